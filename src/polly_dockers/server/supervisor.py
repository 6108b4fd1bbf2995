"""The process that the workers are children of: what signals mean to it, and how it ends.

SIGTERM and SIGINT (Ctrl-C) let the requests in flight end; SIGQUIT, or a second SIGINT, ends them at once. SIGHUP reads
the certificate again. Where the server was started from a terminal, SIGHUP means that the terminal was closed, and ends
the server as SIGTERM does, unless it was ignored at the start, as nohup has it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog
from gunicorn.arbiter import Arbiter

from polly_dockers.web.metrics import EXPIRY, share

if TYPE_CHECKING:
    from pathlib import Path

    from polly_dockers.server.certificates import Certificates

log: Final = structlog.get_logger("polly.server")


def hangup_ends() -> bool:
    """Whether SIGHUP is to end the server: it has a terminal that can be closed, and did not begin with it ignored."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Supervisor(Arbiter):  # type: ignore[misc]
    """Gunicorn's, with signals of our own."""

    def __init__(self, app: Any, certificates: Certificates | None, folder: Path) -> None:  # noqa: ANN401 - gunicorn's
        """``folder`` is shared by the processes of this server."""
        self._certificates = certificates
        self._folder = folder
        self._hangup_ends = hangup_ends()
        self._began = time.monotonic()
        self.reason = ""
        """Why it ends: a signal's name."""
        super().__init__(app)
        self._tell_expiry()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self._began

    def handle_hup(self) -> None:
        """SIGHUP."""
        if self._hangup_ends:
            self._end("SIGHUP, the terminal was closed")
        if self._certificates is None:
            log.info("SIGHUP: there is no certificate to read again")
        else:
            self._renew()

    def handle_term(self) -> None:
        """SIGTERM."""
        self._end("SIGTERM")

    def handle_int(self) -> None:
        """SIGINT: gunicorn's own would not let requests end."""
        self._end("SIGINT")

    def handle_quit(self) -> None:
        """SIGQUIT."""
        self.reason = "SIGQUIT"
        log.info("the server ends at once", reason=self.reason)
        self.stop(graceful=False)
        raise StopIteration

    def handle_usr2(self) -> None:
        """SIGUSR2, by which gunicorn would start another server: nothing."""

    def handle_ttin(self) -> None:
        """SIGTTIN, by which gunicorn would start another worker: nothing."""

    def handle_ttou(self) -> None:
        """SIGTTOU, by which gunicorn would end a worker: nothing."""

    def maybe_promote_master(self) -> None:
        """Called about once a second: have the certificate renewed where its files have changed."""
        if self._certificates is not None and self._certificates.changed():
            self._renew()
        if not (self._folder / EXPIRY).exists():  # the folder was gone
            self._tell_expiry()

    def _renew(self) -> None:
        if self._certificates is not None and self._certificates.reload():
            self._tell_expiry()
            self.kill_workers(signal.SIGHUP)

    def _tell_expiry(self) -> None:
        """Let /metrics have the end of the certificate."""
        if self._certificates is not None:
            with contextlib.suppress(OSError):
                share(self._folder, EXPIRY, f"{self._certificates.expires:.0f}".encode())

    def _end(self, reason: str) -> NoReturn:
        self.reason = reason
        log.info("the server ends once the requests in flight have ended", reason=reason)
        raise StopIteration


def leave(code: int) -> NoReturn:
    """End this process at once, with all that was printed: taking an interpreter apart takes seconds."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what sys.exit would call
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
