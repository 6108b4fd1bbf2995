"""``polly profiles``: list, choose and remove the servers that the person is signed in to."""

from __future__ import annotations

import difflib
import os
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from polly_dockers.cli import profiles, prompts, server_url, session, tables, terminal
from polly_dockers.cli.actions import account
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.tables import Column, Columns

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call

_PROFILE: Columns[dict[str, Any]] = (
    Column("profile", itemgetter("name")),
    Column("user", itemgetter("email")),
    Column("server", itemgetter("server"), own_line=True),
    Column("current", lambda each: "yes" if each["current"] else ""),
    Column("organisation", lambda each: each["organisation"] or "-"),
    Column("expires", lambda each: tables.date(each["expires_at"])),
)


def list_(call: Call, output: str) -> None:
    """Print the profiles, sorted by name, without their tokens."""
    known = profiles.load()
    call.remember("polly profiles list")
    hidden = {"token", "docker_tokens", "borrowed"}
    items = [
        {"name": name, "current": name == known.current}
        | {key: value for key, value in each._asdict().items() if key not in hidden}
        for name, each in sorted(known.by_name.items())
    ]
    tables.display(output, items, _PROFILE, items, "You are not signed in. Run: polly login --server URL")


def use(call: Call) -> None:
    """Make a profile the current one. Raises CommandError if there is none with that name."""
    wanted = session.meant(_of_server(_name(call), " To create one, run: polly login --profile NAME"), call.server)
    with profiles.edit() as known:
        name = known.current = session.agreed(known, wanted)
        server = known.by_name[name].server
    call.remember("polly profiles use")
    terminal.success(f"The commands use {name} ({server}) from now on")
    for variable in ("POLLY_TOKEN", "POLLY_PROFILE", "POLLY_SERVER"):
        if os.environ.get(variable):
            terminal.say(f"Warning: {variable} in the environment overrides this as long as it is set.")


def remove(call: Call) -> None:
    """Sign out of a profile, given by its name or its server, and delete it.

    Raises CommandError if there is none or its token may still work, and UsageError if the server has several.
    """
    call.profile = _of_server(_name(call), " Nothing was removed.")
    call.remember("polly profiles remove")
    account.logout(call)


def _of_server(text: str, otherwise: str) -> str:
    """Return the name of the profile with this name or this server address.

    Raises CommandError if there is none; its message ends with ``otherwise``.
    """
    known = profiles.load()
    if text in known.by_name:
        return text
    try:
        url = server_url.normal(text)
    except UsageError:
        url = ""
    found = session.of_server(known, url) if url else ""
    if found:
        return found
    near = difflib.get_close_matches(text, list(known.by_name), 1)
    maybe = f" Did you mean {near[0]}?" if near else ""
    have = f" There are: {known.names()}." if known.by_name else " You are not signed in anywhere."
    msg = f"There is no profile {server_url.masked(text)!r}.{maybe}{have}{otherwise}"
    raise CommandError(msg)


def _name(call: Call) -> str:
    """Return --profile; ask for it if it is missing, and set it on the call."""
    if not call.profile:
        known = sorted(profiles.load().by_name)
        call.profile = call.need("--profile", lambda: prompts.choose("Which profile?", known))
    return call.profile
