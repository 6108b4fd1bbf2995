"""Docker's short-lived access token of scope registry, and its cache. A cached one needs only the standard library.

There is one file for each access token, named by a hash of server and token. So nobody gets the previous user's token
after signing in as somebody else. A token is renewed after two thirds of its lifetime, so that a long pull can still
use it; until then no process waits for another.

The server says how long a token lasts (``expires_in``). Its expiry date is never compared with the clock of this
machine, which may be wrong. Only the elapsed seconds count: since the boot of the machine, or if that is not known,
by the difference of two times of the clock. If the clock was set back before the token's creation, a new token is made.
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
    """A point in time, by two clocks."""

    time: float
    """Seconds since 1970 by the clock of this machine."""
    boot: str
    """The id of the boot of the machine; empty if not known."""
    uptime: float
    """Seconds since that boot, by a clock that can't be set."""

    @classmethod
    def now(cls) -> Moment:
        """Return the current time."""
        try:
            return cls(time.time(), _BOOT.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))
        except (OSError, AttributeError):
            return cls(time.time(), "", 0.0)

    def age(self) -> float:
        """Return how many seconds ago it was; infinity if it seems to be in the future."""
        now = Moment.now()
        age = now.uptime - self.uptime if now.boot and now.boot == self.boot else now.time - self.time
        return age if age >= 0 else math.inf


class SignIn(NamedTuple):
    """What is needed to create an access token of scope registry."""

    server: str
    token: str
    email: str = ""
    ca_file: str = ""
    """A file of certificates that the profile trusts in addition to the system's."""
    variable: bool = False
    """Whether the token comes from POLLY_TOKEN."""


class Cached(NamedTuple):
    """An access token of scope registry in the cache."""

    id: str
    token: str
    lasts: float
    """Its lifetime in seconds, from the request that created it."""
    made: Moment

    def is_fresh(self) -> bool:
        """Return whether a third of its lifetime is left."""
        return self.made.age() < self.lasts * 2 / 3

    def is_good(self) -> bool:
        """Return whether it has not expired."""
        return self.made.age() < self.lasts


def token_of_environment() -> str:
    """Return POLLY_TOKEN without surrounding whitespace and a byte order mark; empty if it is not set."""
    return os.environ.get("POLLY_TOKEN", "").strip().strip("\ufeff")


@contextlib.contextmanager
def handed_out(sign_in: SignIn) -> Iterator[str]:
    """Yield an access token of scope registry that works for at least 20 minutes.

    It ends earlier if the sign-in itself does. If a new token can't be cached and the block raises an exception, the
    token is revoked, because nobody has it. Raises CommandError if a server that is needed refuses or does not respond.
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
    except (OSError, _NoFolderError):  # there is no place for a cache: it works without
        with _minted(sign_in) as fresh:
            yield fresh.token
        return
    yield cached.token


def delete_cached(server: str, token: str) -> str | None:
    """Delete the cached token, and return its id so that it can be revoked; None if there is none."""
    try:
        path = _path(server, token)
    except _NoFolderError:
        return None
    cached = _read(path)
    with contextlib.suppress(OSError):
        path.unlink()
    return cached.id if cached else None


def delete_revoked(server: str, token: str, good: set[str]) -> bool:
    """Delete the cached token unless its id is in ``good``; return whether it was deleted."""
    try:
        cached = _read(_path(server, token))
    except _NoFolderError:
        return False
    return cached is not None and cached.id not in good and delete_cached(server, token) is not None


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
