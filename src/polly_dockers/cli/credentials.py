"""The short-lived registry token that Docker is handed, and its cache. Standard library only where it is fresh.

One file for each signed-in token, named by a hash of server and token: after signing out and in again as somebody else
nobody is handed the previous token. A token is renewed when two thirds of its time are over, so that a long pull can
go on with it; until then no process waits for another.

How long a token lasts is what the server says (``expires_in``). The time at which it ends is never compared with the
clock of this machine, which may be wrong by any amount. What is trusted is that seconds pass: those since the machine
was booted, or, where these are not known, the difference of two times of its clock. A time that seems to be before the
token was made leads to a new token, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from polly_dockers.cli import files
from polly_dockers.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "POLLY"
LIFETIME = 3_600
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Moment(NamedTuple):
    """When something was, by two clocks."""

    time: float
    """Seconds since 1970 by the clock of this machine."""
    boot: str
    """Which boot of the machine it was, "" where that is not known."""
    uptime: float
    """Seconds since that boot, by a clock that nobody sets."""

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        try:
            return cls(time.time(), _BOOT.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))
        except (OSError, AttributeError):
            return cls(time.time(), "", 0.0)

    def age(self) -> float:
        """Return how many seconds ago it was; infinity where it seems to be still to come."""
        now = Moment.now()
        age = now.uptime - self.uptime if now.boot and now.boot == self.boot else now.time - self.time
        return age if age >= 0 else math.inf


class SignIn(NamedTuple):
    """What a registry token is made with."""

    server: str
    token: str
    email: str = ""
    ca_file: str = ""
    """Certificates that the profile trusts beside the system's."""
    variable: bool = False
    """Whether the token is that of POLLY_TOKEN."""


class Cached(NamedTuple):
    """A registry token in its file."""

    id: str
    token: str
    lasts: float
    """Seconds that it is good for, from the moment on when it was asked for."""
    made: Moment

    def is_fresh(self) -> bool:
        """Tell whether a third of its time is left."""
        return self.made.age() < self.lasts * 2 / 3

    def is_good(self) -> bool:
        """Tell whether it has not ended."""
        return self.made.age() < self.lasts


def token_of_environment() -> str:
    """Return POLLY_TOKEN without what editors and shells put around it; empty where it is not set."""
    return os.environ.get("POLLY_TOKEN", "").strip().strip("\ufeff")


@contextlib.contextmanager
def handed_out(sign_in: SignIn) -> Iterator[str]:
    """Hand out a registry token that is good for 20 minutes at least, where the sign-in itself lasts that long.

    A new one that can't be kept ends again where the block is left by an exception: nobody has it then. Raises
    CommandError when the server is needed and refuses or does not answer.
    """
    try:
        path = _path(sign_in.server, sign_in.token)
        cached = _read(path)
        if not cached or not cached.is_fresh():
            files.make_private_folder(path.parent)
            files.check_writable(path)
            with files.locked(path):
                cached = _read(path)
                if not cached or not cached.is_fresh():
                    cached = _renewed(path, sign_in, cached)
    except (OSError, _NoFolderError):  # nowhere to keep it: it works all the same
        with _minted(sign_in) as fresh:
            yield fresh.token
        return
    yield cached.token


def forget(server: str, token: str) -> str | None:
    """Remove the cached token, and return its id so that it can be revoked; None where there is none."""
    try:
        path = _path(server, token)
    except _NoFolderError:
        return None
    cached = _read(path)
    with contextlib.suppress(OSError):
        path.unlink()
    return cached.id if cached else None


def forget_revoked(server: str, token: str, good: set[str]) -> bool:
    """Remove the cached token unless its id is among those that are good; return whether it was removed."""
    try:
        cached = _read(_path(server, token))
    except _NoFolderError:
        return False
    return cached is not None and cached.id not in good and forget(server, token) is not None


def _renewed(path: Path, sign_in: SignIn, cached: Cached | None) -> Cached:
    from polly_dockers.cli.errors import UnreachableError

    try:
        with _minted(sign_in) as fresh:
            files.replace(path, json.dumps(fresh._asdict() | {"made": fresh.made._asdict()}))
            return fresh
    except UnreachableError:
        if cached and cached.is_good():
            return cached
        raise


@contextlib.contextmanager
def _minted(sign_in: SignIn) -> Iterator[Cached]:
    from polly_dockers.cli.client import Client
    from polly_dockers.cli.new_token import new_token, on_this_machine

    label = on_this_machine("docker-credential-polly")
    asked = Moment.now()
    client = Client(sign_in.server, token=sign_in.token, ca_file=sign_in.ca_file, variable=sign_in.variable)
    with new_token(client, "registry", LIFETIME, label) as created:
        yield Cached(created.id, created.token, created.expires_in or LIFETIME, asked)


class _NoFolderError(Exception):
    """There is no home folder, so there is no cache."""


def _path(server: str, token: str) -> Path:
    name = hashlib.sha256(f"{server}\n{token}".encode()).hexdigest()[:32]
    try:
        return files.cache_folder() / "registry-tokens" / f"{name}.json"
    except CommandError as error:
        raise _NoFolderError from error


def _read(path: Path) -> Cached | None:
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        made = Moment(float(cached["made"]["time"]), str(cached["made"]["boot"]), float(cached["made"]["uptime"]))
        return Cached(str(cached["id"]), str(cached["token"]), float(cached["lasts"]), made)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
