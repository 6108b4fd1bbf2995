"""The parent process of the workers, and what it does on signals.

SIGTERM and SIGINT (Ctrl-C) shut the server down after the requests in flight; SIGQUIT and a second SIGINT shut it down
immediately. SIGHUP reloads the certificate. If the server was started from a terminal, SIGHUP means that the terminal
was closed, and shuts the server down as SIGTERM does, unless nohup ignores it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog
from gunicorn.arbiter import Arbiter

from polly_dockers.web.metrics import EXPIRY, share

if TYPE_CHECKING:
    from pathlib import Path

    from polly_dockers.server.certificates import Certificates

log: Final = structlog.get_logger("polly.server")


def _stops_on_hangup() -> bool:
    """Whether SIGHUP shuts the server down: it has a terminal that can be closed, and SIGHUP is not ignored."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Supervisor(Arbiter):  # type: ignore[misc]
    """Gunicorn's arbiter, which forks and watches the workers, with our handling of signals."""

    def __init__(self, app: Any, certificates: Certificates | None, folder: Path) -> None:  # noqa: ANN401 - gunicorn's
        """``folder`` is shared by the processes of this server."""
        self._certificates = certificates
        self._folder = folder
        self._stops_on_hangup = _stops_on_hangup()
        self._began = time.monotonic()
        self.reason = ""
        """Why the server shuts down: the name of a signal. Empty while it runs."""
        super().__init__(app)
        self._write_expiry()

    @property
    def seconds(self) -> float:
        """How long it has run, in seconds."""
        return time.monotonic() - self._began

    def handle_hup(self) -> None:
        """SIGHUP: reload the certificate, or shut down."""
        if self._stops_on_hangup:
            self._shut_down("SIGHUP, the terminal was closed")
        if self._certificates is None:
            log.info("SIGHUP received: there is no certificate to reload")
        else:
            self._reload()

    def handle_term(self) -> None:
        """SIGTERM: shut down after the requests in flight."""
        self._shut_down("SIGTERM")

    def handle_int(self) -> None:
        """SIGINT: the same. Gunicorn would interrupt the requests."""
        self._shut_down("SIGINT")

    def handle_quit(self) -> None:
        """SIGQUIT: shut down immediately."""
        self.reason = "SIGQUIT"
        log.info("shutting down immediately", reason=self.reason)
        self.stop(graceful=False)
        raise StopIteration

    def handle_usr2(self) -> None:
        """SIGUSR2: do nothing. Gunicorn would start another server."""

    def handle_ttin(self) -> None:
        """SIGTTIN: do nothing. Gunicorn would start another worker."""

    def handle_ttou(self) -> None:
        """SIGTTOU: do nothing. Gunicorn would stop a worker."""

    def maybe_promote_master(self) -> None:
        """Called about once a second: reload the certificate if its files have changed."""
        if self._certificates is not None and self._certificates.changed():
            self._reload()
        if not (self._folder / EXPIRY).exists():  # the folder was deleted
            self._write_expiry()

    def _reload(self) -> None:
        if self._certificates is not None and self._certificates.reload():
            self._write_expiry()
            self.kill_workers(signal.SIGHUP)

    def _write_expiry(self) -> None:
        """Write when the certificate expires, for /metrics."""
        if self._certificates is not None:
            with contextlib.suppress(OSError):
                share(self._folder, EXPIRY, f"{self._certificates.expires:.0f}".encode())

    def _shut_down(self, reason: str) -> NoReturn:
        self.reason = reason
        log.info("shutting down after the requests in flight", reason=reason)
        raise StopIteration
