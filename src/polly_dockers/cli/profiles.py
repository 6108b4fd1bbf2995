"""The servers that this user is signed in to, in one file. Standard library only: Docker waits for this.

``profiles.json`` is ``{"current": NAME, "profiles": {NAME: {…}}}``. It holds access tokens and never a password, so its
mode is 0600 in a folder of 0700.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from polly_dockers.cli import files
from polly_dockers.cli.failures import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Profile:
    """One signed-in server."""

    server: str
    """``https://HOST[:PORT]``."""
    registry: str
    """The host that stands before every image path."""
    email: str
    token: str
    """An access token of scope ``full``."""
    expires_at: str
    organisation: str = ""
    """Chosen with ``polly login --org``; empty where the user has not chosen."""
    docker_tokens: dict[str, str] = field(default_factory=dict)
    """Id to expiry of the registry tokens that ``polly dockers login`` has handed out."""


@dataclass
class Profiles:
    """All of them; ``current`` is the one that is meant where nothing else is said, empty for none."""

    current: str = ""
    by_name: dict[str, Profile] = field(default_factory=dict)

    def names(self) -> str:
        """Return all names for a message."""
        return ", ".join(sorted(self.by_name))

    def remove(self, name: str) -> None:
        """Forget a profile; where one is left, that is the current one."""
        self.by_name.pop(name, None)
        if self.current == name:
            self.current = next(iter(self.by_name)) if len(self.by_name) == 1 else ""


def path() -> str:
    """Return the path of the file."""
    return os.path.join(files.config_folder(), "profiles.json")


def load() -> Profiles:
    """Return the profiles of the file, none where there is no file. Raises CommandError when it can't be read."""
    try:
        with open(path(), encoding="utf-8") as file:
            return _decoded(json.load(file))
    except (FileNotFoundError, NotADirectoryError):
        return Profiles()
    except OSError as error:
        raise CommandError(f"{path()} can't be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise CommandError(
            f"{path()} is not a file of profiles{where}. Remove it, and sign in again with `polly login`."
        ) from error


def _decoded(document: Any) -> Profiles:
    known = {each.name for each in fields(Profile)}
    profiles = {
        name: Profile(**{key: value for key, value in entry.items() if key in known})
        for name, entry in document["profiles"].items()
    }
    for profile in profiles.values():
        for each in (profile.server, profile.registry, profile.email, profile.token, profile.expires_at):
            if not isinstance(each, str):
                raise TypeError(each)
    current = document.get("current", "")
    return Profiles(current if current in profiles else "", profiles)


@contextlib.contextmanager
def edit() -> Iterator[Profiles]:
    """Hand out the profiles to be changed, and save them at the end; several processes take turns.

    Raises CommandError when the file can't be read or written.
    """
    folder = files.config_folder()
    try:
        files.make_private_folder(folder)
        with files.locked(os.path.join(folder, "profiles.lock")):
            profiles = load()
            yield profiles
            document = {
                "current": profiles.current,
                "profiles": {name: asdict(profile) for name, profile in profiles.by_name.items()},
            }
            files.replace(path(), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise CommandError(
            f"{folder} can't be written: {error.strerror}. Name another folder in XDG_CONFIG_HOME, "
            "or set POLLY_SERVER and POLLY_TOKEN, which need no file."
        ) from error
