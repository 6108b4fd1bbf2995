"""The TLS certificate of the server: reloaded while it runs, and shared by the workers.

The supervisor reads certificate and key, as root if root started it, checks them, and writes them to memory that the
workers share. Workers read that memory at their start and at SIGHUP. So a certificate that can't be used is refused
once, and a worker that starts later still gets the one that works. A connection keeps the certificate it started with.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import ssl
import stat
import time
from typing import TYPE_CHECKING, Final

import structlog
from cryptography import x509

from polly_dockers.errors import Unavailable
from polly_dockers.formatting import INDENT
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log: Final = structlog.get_logger("polly.certificate")

CHECK_EVERY: Final = 5.0
"""Seconds between two checks whether the files have changed."""
SOON: Final = 14 * 86_400
"""The log warns if a certificate expires within this many seconds."""
_WRONG_KEY: Final = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
"""OpenSSL's reasons for a key that does not belong to the certificate; the last for a key of another type."""
_LARGEST: Final = 4 << 20
"""Bytes that are read of a file, at most."""


class Certificates:
    """The certificate and key of a server. The supervisor makes it before it forks."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Read the files; raises Unavailable if they can't be used."""
        self._files = cert, key
        self._shared = os.memfd_create("polly-certificate"), os.memfd_create("polly-key")
        self._lock = os.memfd_create("polly-certificate-lock")
        self.expires = 0.0
        """When the certificate expires, in seconds since 1970."""
        self._seen = self._state()
        self._tried = self._seen
        self._checked_at = time.monotonic()
        self._current: ssl.SSLContext | None = None
        self._read_files()

    # --- for the supervisor ---------------------------------------------------------------------------------------

    def reload(self) -> bool:
        """Read the files again. False if they can't be used: the log says why, and the previous ones stay in use."""
        self._tried = self._seen = self._state()
        try:
            self._read_files(waiting=False)
        except Unavailable as error:
            reason = error.message.replace(f"\n{INDENT}", " ")  # in the log, a command stands in the line
            log.error("certificate reload failed; the previous one stays in use", reason=reason)  # noqa: TRY400
            return False
        log.info("certificate reloaded", expires=_date(self.expires))
        return True

    def changed(self) -> bool:
        """Whether the files differ from those that were read last, and did not change between two checks.

        It checks every CHECK_EVERY seconds. A program that writes one file after the other has that long.
        """
        if time.monotonic() - self._checked_at < CHECK_EVERY:
            return False
        self._checked_at = time.monotonic()
        before, self._seen = self._seen, self._state()
        return before == self._seen != self._tried

    def _state(self) -> tuple[tuple[int, ...], ...]:
        """What changes when a file is replaced or written to, or gets another owner or mode. Links are followed."""
        found: list[tuple[int, ...]] = []
        with ownership.acting(None):
            for file in self._files:
                try:
                    status = file.stat()
                    found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                except OSError:
                    found.append(())
        return tuple(found)

    def _read_files(self, *, waiting: bool = True) -> None:
        """Read the files, check them, and write them to the shared memory. ``waiting``: also read from a pipe."""
        with ownership.acting(None):
            contents = [
                _read(file, what, waiting=waiting)
                for file, what in zip(self._files, ("certificate", "key"), strict=True)
            ]
        if b"ENCRYPTED" in contents[1]:
            msg = f"The key {self._files[1]} is protected by a passphrase. Give one without, for its owner alone."
            raise Unavailable(msg)
        self.expires = self._try(contents)
        with self._locked(fcntl.LOCK_EX):
            for fd, content in zip(self._shared, contents, strict=True):
                _fill(fd, content)
        if self.expires < time.time():
            log.warning("certificate has expired", expired=_date(self.expires))
        elif self.expires < time.time() + SOON:
            log.warning("certificate expires soon", expires=_date(self.expires))

    def _try(self, contents: list[bytes]) -> float:
        """When the certificate expires; raises Unavailable if certificate and key can't be used together."""
        cert, key = self._files
        trial = os.memfd_create("polly-certificate"), os.memfd_create("polly-key")
        try:
            for fd, content in zip(trial, contents, strict=True):
                _fill(fd, content)
            _context(trial)
            return x509.load_pem_x509_certificates(contents[0])[0].not_valid_after_utc.timestamp()
        except ssl.SSLError as error:
            if error.reason in _WRONG_KEY:
                msg = f"The key {key} is not the key of the certificate {cert}. Give the one that belongs to it."
            else:
                msg = (
                    f"The certificate {cert} with the key {key} can't be used. Both must be in PEM form: the "
                    "certificate followed by its chain in one file, the key in the other."
                )
            raise Unavailable(msg) from error
        except ValueError as error:
            msg = f"The certificate {cert} can't be read: it is not an X.509 certificate in PEM form."
            raise Unavailable(msg) from error
        finally:
            for fd in trial:
                os.close(fd)

    # --- for a worker ---------------------------------------------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        """A TLS context to listen with. Each new connection uses the certificate that is current then."""
        context = self.refresh()

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._current or context

        listening = _context(self._shared, self._locked())
        listening.sni_callback = choose  # called for each connection, with and without a name
        return listening

    def refresh(self) -> ssl.SSLContext:
        """Use the certificate that the supervisor loaded last, for new connections of this process."""
        self._current = _context(self._shared, self._locked())
        return self._current

    @contextlib.contextmanager
    def _locked(self, kind: int = fcntl.LOCK_SH) -> Iterator[None]:
        """Keep workers from reading the memory while it is written.

        This is no flock(2), which parent and workers would share: they inherit the descriptor.
        """
        fcntl.lockf(self._lock, kind)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)


def _read(file: Path, what: str, *, waiting: bool) -> bytes:
    """The content of a file. Without ``waiting`` it must be a regular file: reading a pipe could block the server."""
    flags = 0 if waiting else os.O_NONBLOCK
    try:
        with open(file, "rb", opener=lambda path, mode: os.open(path, mode | flags)) as reading:
            if not waiting and not stat.S_ISREG(os.fstat(reading.fileno()).st_mode):
                msg = f"The {what} {file} is not a regular file, so it can't be read again."
                raise Unavailable(msg)
            content = reading.read(_LARGEST)
    except OSError as error:
        reason = ownership.explain(file, reading=True) if ownership.denied(error) else f"{error.strerror}."
        msg = f"The {what} {file} can't be read: {reason}"
        raise Unavailable(msg) from error
    return content


def _fill(fd: int, content: bytes) -> None:
    os.ftruncate(fd, 0)
    at = 0
    while at < len(content):
        at += os.pwrite(fd, content[at:], at)


def _context(shared: tuple[int, int], lock: contextlib.AbstractContextManager[None] | None = None) -> ssl.SSLContext:
    """A context for TLS 1.2 and newer with the certificate and key; raises ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with lock or contextlib.nullcontext():
        context.load_cert_chain(*(f"/proc/self/fd/{fd}" for fd in shared))
    return context


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
