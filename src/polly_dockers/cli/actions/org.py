"""The organisations of the person: what ``polly org list`` and ``use`` do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from polly_dockers.cli import profiles, prompts, tables, terminal
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.tables import Column

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call

_ORGANISATION = (Column("organisation"), Column("role"), Column("joined at"), Column("default"))


def list_(call: Call, output: str) -> None:
    """Print the organisations, the one joined first at the beginning, and which one is the default; or that of --org.

    Raises CommandError for an organisation that the person is not a member of.
    """
    session = call.session
    default = session.default
    call.remember("polly org list")
    mine = [each for each in session.memberships if call.org in {None, each.organisation}]
    if call.org and not mine:
        raise _not_a_member(call.org, [each.organisation for each in session.memberships])
    if output == "json":
        tables.document([msgspec.to_builtins(each) | {"default": each.organisation == default} for each in mine])
        return
    if not session.memberships:
        terminal.say("You are not a member of an organisation.")
        return
    rows = [
        (each.organisation, each.role, tables.date(each.joined_at), "yes" if each.organisation == default else "")
        for each in mine
    ]
    tables.show(_ORGANISATION, rows)


def _not_a_member(wanted: str, mine: list[str]) -> CommandError:
    return CommandError(
        f"You are not a member of {terminal.clean(wanted)!r}. You are a member of: {', '.join(mine) or 'none'}."
    )


def use(call: Call) -> None:
    """Keep the organisation with the profile.

    Raises UsageError where no profile is in use, CommandError for an organisation that the person is not a member of.
    """
    session = call.session
    if session.stored is None:
        msg = "POLLY_TOKEN says who you are, and no profile is in use. Choose the organisation by POLLY_ORG or --org."
        raise UsageError(msg)
    mine = [each.organisation for each in session.memberships]
    wanted = call.org or call.need("--org", lambda: prompts.choose("Which organisation?", mine))
    if wanted not in mine:
        raise _not_a_member(wanted, mine)
    with profiles.edit() as known:
        stored = known.by_name.get(session.profile)
        if stored:
            known.by_name[session.profile] = stored._replace(organisation=wanted)
    session.chosen = wanted
    call.remember("polly org use")
    terminal.success(f"The commands mean the organisation {wanted} from now on")
    variable = os.environ.get("POLLY_ORG")
    if variable and variable != wanted:
        terminal.say(f"Warning: POLLY_ORG={variable} comes first, for as long as it is set.")
