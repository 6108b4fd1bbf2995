"""``polly org``: list the organisations of the person, and choose one."""

from __future__ import annotations

import os
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from polly_dockers.cli import profiles, prompts, tables, terminal
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.tables import Column, Columns

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call

_ORGANISATION: Columns[dict[str, Any]] = (
    Column("organisation", itemgetter("organisation")),
    Column("role", itemgetter("role")),
    Column("joined at", lambda each: tables.date(each["joined_at"])),
    Column("default", lambda each: "yes" if each["default"] else ""),
)


def list_(call: Call, output: str) -> None:
    """Print the organisations in the order in which the person joined them, and mark the default; or only --org.

    Raises CommandError if the person is not a member of --org.
    """
    session = call.session
    default = session.default
    call.remember("polly org list")
    mine = [each for each in session.memberships if call.org in {None, each.organisation}]
    if call.org and not mine:
        raise _not_a_member(call.org, [each.organisation for each in session.memberships])
    items = [msgspec.to_builtins(each) | {"default": each.organisation == default} for each in mine]
    tables.display(output, items, _ORGANISATION, items, "You are not a member of any organisation.")


def _not_a_member(wanted: str, mine: list[str]) -> CommandError:
    return CommandError(
        f"You are not a member of {terminal.clean(wanted)!r}. You are a member of: {', '.join(mine) or 'none'}."
    )


def use(call: Call) -> None:
    """Save the organisation in the profile as its default.

    Raises UsageError if no profile is in use, and CommandError if the person is not a member of the organisation.
    """
    session = call.session
    if session.stored is None:
        msg = "With POLLY_TOKEN there is no profile to save this in. Choose the organisation with POLLY_ORG or --org."
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
    terminal.success(f"The commands use the organisation {wanted} from now on")
    variable = os.environ.get("POLLY_ORG")
    if variable and variable != wanted:
        terminal.say(f"Warning: POLLY_ORG={variable} overrides this as long as it is set.")
