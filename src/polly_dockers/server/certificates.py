"""The certificate that a server shows: read again while it runs, and shared by its workers.

The supervisor reads the two files, as root where root started it, tries them, and writes them to memory that all of its
workers share; they read from there, at their start and at SIGHUP. So a new certificate that can't be used is refused
once, and a worker that starts later has the one that works. A connection keeps the certificate that it began with.
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
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log: Final = structlog.get_logger("polly.certificate")

LOOK_EVERY: Final = 5.0
"""Seconds between two looks whether the files have changed."""
SOON: Final = 14 * 86_400
"""Seconds before a certificate's end from which the log warns of it."""
_OF_ANOTHER: Final = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
"""What OpenSSL says of a key that is not the certificate's; the last where it is of another kind."""
_LARGEST: Final = 4 << 20
"""Bytes of a file that are read, at most."""


class Certificates:
    """The certificate and key of a server's settings. Made by the supervisor, before it forks."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Read the files; raises Unavailable where they can't be used."""
        self._files = cert, key
        self._shared = os.memfd_create("polly-certificate"), os.memfd_create("polly-key")
        self._lock = os.memfd_create("polly-certificate-lock")
        self.expires = 0.0
        """When the certificate ends, in seconds since 1970."""
        self._seen = self._state()
        self._tried = self._seen
        self._looked = time.monotonic()
        self._current: ssl.SSLContext | None = None
        self._take()

    # --- the supervisor's -----------------------------------------------------------------------------------------

    def reload(self) -> bool:
        """Read the files again; whether they can be used. Where not, the log says why, and all stays as it was."""
        self._tried = self._seen = self._state()
        try:
            self._take(waiting=False)
        except Unavailable as error:
            log.error("the new certificate is refused; the one before stays", reason=error.message)  # noqa: TRY400
            return False
        log.info("the certificate was read again", expires=_date(self.expires))
        return True

    def changed(self) -> bool:
        """Whether the files are others than those that were read last, and two looks found them so.

        It looks once in LOOK_EVERY seconds, so that a program that writes one file after the other has time for both.
        """
        if time.monotonic() - self._looked < LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        before, self._seen = self._seen, self._state()
        return before == self._seen != self._tried

    def _state(self) -> tuple[tuple[int, ...], ...]:
        """What tells whether a file is new, was written to, or has another owner or mode. Links are followed."""
        found: list[tuple[int, ...]] = []
        with ownership.acting(None):
            for file in self._files:
                try:
                    status = file.stat()
                    found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                except OSError:
                    found.append(())
        return tuple(found)

    def _take(self, *, waiting: bool = True) -> None:
        """Read the files, try them, and let the workers have them; ``waiting``: also from a pipe."""
        with ownership.acting(None):
            contents = [
                _read(file, what, waiting=waiting)
                for file, what in zip(self._files, ("certificate", "key"), strict=True)
            ]
        if b"ENCRYPTED" in contents[1]:
            msg = f"The key {self._files[1]} is protected by a passphrase. Give one without it, for its owner alone."
            raise Unavailable(msg)
        self.expires = self._try(contents)
        with self._alone(fcntl.LOCK_EX):
            for fd, content in zip(self._shared, contents, strict=True):
                _fill(fd, content)
        if self.expires < time.time() + SOON:
            log.warning("the certificate ends soon, or has ended", expires=_date(self.expires))

    def _try(self, contents: list[bytes]) -> float:
        """When the certificate ends; raises Unavailable where certificate and key can't be used together."""
        cert, key = self._files
        trial = os.memfd_create("polly-certificate"), os.memfd_create("polly-key")
        try:
            for fd, content in zip(trial, contents, strict=True):
                _fill(fd, content)
            _load(trial)
            return x509.load_pem_x509_certificates(contents[0])[0].not_valid_after_utc.timestamp()
        except ssl.SSLError as error:
            if error.reason in _OF_ANOTHER:
                msg = f"The key {key} is not the key of the certificate {cert}. Give the one that belongs to it."
            else:
                msg = (
                    f"The certificate {cert} with the key {key} can't be used. Both are to be in PEM form: the "
                    "certificate first and then its chain in one file, the key in the other."
                )
            raise Unavailable(msg) from error
        except ValueError as error:
            msg = f"The certificate {cert} can't be read: it is not an X.509 certificate in PEM form."
            raise Unavailable(msg) from error
        finally:
            for fd in trial:
                os.close(fd)

    # --- a worker's -----------------------------------------------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        """A context to listen with, for this process: each new connection has the certificate that is current then."""
        context = self.refresh()

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._current or context

        listening = _load(self._shared, self._alone())
        listening.sni_callback = choose  # called for each connection, with and without a name
        return listening

    def refresh(self) -> ssl.SSLContext:
        """Take what the supervisor read last, for the connections of this process from now on."""
        self._current = _load(self._shared, self._alone())
        return self._current

    @contextlib.contextmanager
    def _alone(self, kind: int = fcntl.LOCK_SH) -> Iterator[None]:
        """Keep the two from being read while they are written. The lock is each process's own, and dies with it."""
        fcntl.lockf(self._lock, kind)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)


def _read(file: Path, what: str, *, waiting: bool) -> bytes:
    """The file; without ``waiting`` a regular one only: a pipe to which nobody writes would stop the server."""
    flags = 0 if waiting else os.O_NONBLOCK
    try:
        with open(file, "rb", opener=lambda path, mode: os.open(path, mode | flags)) as reading:
            if not waiting and not stat.S_ISREG(os.fstat(reading.fileno()).st_mode):
                msg = f"The {what} {file} is not a regular file, which could be read again."
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


def _load(shared: tuple[int, int], alone: contextlib.AbstractContextManager[None] | None = None) -> ssl.SSLContext:
    """TLS 1.2 and newer with that certificate and key; raises ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with alone or contextlib.nullcontext():
        context.load_cert_chain(*(f"/proc/self/fd/{fd}" for fd in shared))
    return context


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
