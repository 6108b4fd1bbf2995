"""The servers that this user is signed in to, in one file. Standard library only, because Docker waits for it.

``profiles.json`` is ``{"current": NAME, "profiles": {NAME: {…}}}``. It contains access tokens, never
a password. Its mode is 0600, in a folder of mode 0700.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from polly_dockers.cli import files
from polly_dockers.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_INSTEAD = "Set XDG_CONFIG_HOME to another folder, or set POLLY_SERVER and POLLY_TOKEN, which need no file."


class Profile(NamedTuple):
    """One signed-in server. A dataclass would take ten milliseconds of each request of Docker."""

    server: str
    """``https://HOST[:PORT]``."""
    registry: str
    """The host at the start of every image path."""
    email: str
    token: str
    """An access token of scope ``full``."""
    expires_at: str
    docker_tokens: dict[str, str]
    """Id and expiry date of the access tokens of scope registry that ``polly dockers login`` created."""
    organisation: str = ""
    """Chosen with ``polly org use`` or ``polly login --org``; empty if the user has not chosen."""
    ca_file: str = ""
    """A file of certificates to trust in addition to the system's; empty for none. POLLY_CA_FILE overrides it."""
    borrowed: bool = False
    """Whether the token came from POLLY_TOKEN; signing out does not revoke it then."""


class Profiles:
    """All profiles; ``current`` is the name of the default one, empty for none."""

    def __init__(self, current: str, by_name: dict[str, Profile]) -> None:
        """Take the name of the current profile, and all profiles by name."""
        self.current = current
        self.by_name = by_name

    def names(self) -> str:
        """Return all names for a message."""
        return ", ".join(sorted(self.by_name))

    def remove(self, name: str) -> None:
        """Delete a profile. If one is left, it becomes the current one."""
        self.by_name.pop(name, None)
        if self.current == name:
            self.current = next(iter(self.by_name)) if len(self.by_name) == 1 else ""


_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


def aliases(host: str) -> tuple[str, ...]:
    """Return all names of the server ``HOST[:PORT]``: three for this machine, else only itself."""
    for each in _THIS_MACHINE:
        if host == each or host.startswith(f"{each}:"):
            return tuple(f"{name}{host[len(each) :]}" for name in _THIS_MACHINE)
    return (host,)


def same(one: str, other: str) -> bool:
    """Return whether two hosts, or two normal addresses, are one server: localhost is 127.0.0.1 and [::1]."""
    (scheme, _, host), (other_scheme, _, other_host) = one.rpartition("://"), other.rpartition("://")
    return scheme == other_scheme and host in aliases(other_host)


def path() -> Path:
    """Return the path of the file."""
    return files.config_folder() / "profiles.json"


def load() -> Profiles:
    """Return the profiles in the file; none if there is no file. Raises CommandError if it can't be read."""
    try:
        return _decoded(json.loads(path().read_text(encoding="utf-8-sig")))
    except (FileNotFoundError, NotADirectoryError):
        return Profiles("", {})
    except OSError as error:
        msg = f"{path()} can't be read: {error.strerror}. {_INSTEAD}"
        raise CommandError(msg) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        msg = f"{path()} is not a file of profiles{where}. Remove it, and sign in again with `polly login`."
        raise CommandError(msg) from error


def _decoded(document: dict[str, Any]) -> Profiles:
    profiles = {name: _profile(entry) for name, entry in document["profiles"].items()}
    current = document.get("current", "")
    return Profiles(current if current in profiles else "", profiles)


def _profile(entry: dict[str, Any]) -> Profile:
    known = {key: value for key, value in entry.items() if key in Profile._fields}
    profile = Profile(**({"docker_tokens": {}} | known))
    if not all(isinstance(each, str) for each in (*profile[:5], profile.organisation, profile.ca_file)):
        raise TypeError(entry)
    return profile


@contextlib.contextmanager
def edit() -> Iterator[Profiles]:
    """Yield the profiles, and save the changes at the end of the block; several processes take turns.

    Raises CommandError if the file can't be read or written.
    """
    with _writing() as place, files.locked(place):
        profiles = load()
        yield profiles
        document = {
            "current": profiles.current,
            "profiles": {name: profile._asdict() for name, profile in profiles.by_name.items()},
        }
        files.replace(place, json.dumps(document, indent=2) + "\n")


def check_writable() -> None:
    """Raise the CommandError that ``edit`` would raise at its end, before something is created that must be saved."""
    with _writing() as place:
        files.check_writable(place)


@contextlib.contextmanager
def _writing() -> Iterator[Path]:
    """Create the folder, and yield the path of the file; turn an OSError into a CommandError."""
    place = path()
    try:
        files.make_private_folder(place.parent)
        yield place
    except OSError as error:
        msg = f"{place} can't be written: {error.strerror}. {_INSTEAD}"
        raise CommandError(msg) from error
