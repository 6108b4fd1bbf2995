"""The short-lived registry token that Docker is handed, and its cache. Standard library only where it is fresh.

One file for each signed-in token, named by a hash of server and token: after signing out and in again as somebody else
nobody is handed the token of before. A token is renewed when two thirds of its time are over, so that a long pull can
go on with it; until then no process waits for another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from polly_dockers.cli import files

if TYPE_CHECKING:
    from pathlib import Path

USER = "POLLY"
LIFETIME = 3_600


class Cached(NamedTuple):
    """A registry token in its file; the times are seconds since 1970 by the clock of this machine."""

    id: str
    token: str
    renew_at: float
    ends_at: float


def token_of_environment() -> str:
    """Return POLLY_TOKEN without what editors and shells put around it; empty where it is not set."""
    return os.environ.get("POLLY_TOKEN", "").strip().strip("\ufeff")


def secret(server: str, token: str) -> str:
    """Return a registry token that is good for 20 minutes at least, where the sign-in itself lasts that long.

    Raises CommandError when the server is needed and refuses or does not answer.
    """
    path = _path(server, token)
    cached = _read(path)
    if cached and time.time() < cached.renew_at:
        return cached.token
    try:
        files.make_private_folder(path.parent)
        lock = files.locked(path)
    except OSError:
        return _minted(server, token).token  # nowhere to keep it: it works all the same
    with lock:
        cached = _read(path)
        if cached and time.time() < cached.renew_at:
            return cached.token
        return _renewed(path, server, token, cached)


def forget(server: str, token: str) -> str | None:
    """Remove the cached token, and return its id so that it can be revoked; None where there is none."""
    path = _path(server, token)
    cached = _read(path)
    with contextlib.suppress(OSError):
        path.unlink()
    return cached.id if cached else None


def _renewed(path: Path, server: str, token: str, cached: Cached | None) -> str:
    from polly_dockers.cli.failures import UnreachableError

    try:
        fresh = _minted(server, token)
    except UnreachableError:
        if cached and time.time() < cached.ends_at:
            return cached.token
        raise
    with contextlib.suppress(OSError):
        files.replace(path, json.dumps(fresh._asdict()))
    return fresh.token


def _minted(server: str, token: str) -> Cached:
    import socket
    from datetime import datetime

    from polly_dockers.cli.client import Client

    now = time.time()
    created = Client(server, token=token).create_token(
        "registry", LIFETIME, f"docker-credential-polly on {socket.gethostname()}"
    )
    ends_at = min(now + LIFETIME, datetime.fromisoformat(created.expires_at).timestamp())
    return Cached(created.id, created.token, now + (ends_at - now) * 2 / 3, ends_at)


def _path(server: str, token: str) -> Path:
    name = hashlib.sha256(f"{server}\n{token}".encode()).hexdigest()[:32]
    return files.cache_folder() / "registry-tokens" / f"{name}.json"


def _read(path: Path) -> Cached | None:
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        return Cached(str(cached["id"]), str(cached["token"]), float(cached["renew_at"]), float(cached["ends_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
