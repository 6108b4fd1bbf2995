"""``polly members list``, ``set-role`` and ``remove``."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from polly_dockers import api_types
from polly_dockers.cli import prompts, tables, terminal
from polly_dockers.cli.errors import CommandError, RequestError
from polly_dockers.cli.tables import Column, Columns

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.session import Session

ROLES = "It is reader, writer or admin."
"""The values of --role, for the error that it is missing."""
_MEMBER: Columns[dict[str, Any]] = (
    Column("email", itemgetter("email")),
    Column("role", itemgetter("role")),
    Column(
        "joined at",
        lambda each: (
            tables.date(each["until"], "invited until ") if "until" in each else tables.date(each["joined_at"])
        ),
    ),
)


def list_(call: Call, output: str) -> None:
    """Print the members, and after them who is invited and has not joined yet."""
    session = call.session
    items = [
        {**msgspec.to_builtins(each), "status": "member"} for each in session.client.members(session.organisation).items
    ] + [
        {"email": each.email, "role": each.role, "joined_at": None, "status": "invited", "until": each.expires_at}
        for each in session.client.invitations(session.organisation).items
    ]
    tables.display(output, items, _MEMBER, items)


def set_role(call: Call, email: str | None, role: api_types.Role | None, output: str) -> None:
    """Change the role of a member, and print the member."""
    call.need_all({"--email": (email, ""), "--role": (role, ROLES)})
    email = email or _ask_member(call)
    if role is None and call.may_ask():
        call.session.require("admin")
        member = _check_member(call, email)
        role = ask_role(call, f"{terminal.clean(member.email)} is {member.role}. Which role?", member.role)
    role = role or ask_role(call)
    session = call.session
    item = session.client.set_role(session.organisation, email, role)
    call.remember("polly members set-role", email=email, role=role)
    terminal.success(f"{terminal.clean(item.email)} is {item.role} of {session.organisation}")
    tables.display(output, item, _MEMBER, [msgspec.to_builtins(item)])


def remove(call: Call, email: str | None, *, yes: bool) -> None:
    """Remove a member, or revoke an invitation, after a confirmation. Raises UsageError and DeclinedError."""
    call.need_consent("--email", email, yes=yes)
    email = email or _ask_member(call, invited=True)
    session = call.session
    organisation = session.organisation
    wanted = email.strip().lower()
    invited = any(each.email == wanted for each in session.client.invitations(organisation).items)
    if not invited:
        _check_member(call, email)
    shown = terminal.clean(email)
    if not yes:
        terminal.say(
            f"{shown} was invited to {organisation} and has not joined. This revokes the invitation, and its code "
            "stops working."
            if invited
            else f"This removes {shown} from {organisation}. From the next request on they can't pull, push or run "
            "commands there. What they pushed stays."
        )
        question = "Revoke the invitation?" if invited else "Remove them?"
        call.confirm(question, "Nobody was removed.", "remove")
    if invited:
        _revoke_invitation(session, organisation, email)
    else:
        session.client.remove_member(organisation, email)
    call.remember("polly members remove", email=email, yes=True)
    terminal.success(
        f"The invitation of {shown} to {organisation} is revoked"
        if invited
        else f"{shown} is not a member of {organisation} any more"
    )


def _revoke_invitation(session: Session, organisation: str, email: str) -> None:
    """Revoke an invitation. Raises CommandError if it no longer exists."""
    try:
        session.client.revoke_invitation(organisation, email)
    except RequestError as error:
        if "INVITATION_UNKNOWN" not in error.codes:
            raise
        shown = terminal.clean(email)
        msg = (
            f"The invitation of {shown} no longer exists: they joined {organisation}, or it was revoked. Nothing was "
            "changed. polly members list shows who is a member."
        )
        raise CommandError(msg) from error


def _check_member(call: Call, email: str) -> api_types.MemberItem:
    """Return the member with this email. Raises CommandError if there is none."""
    session = call.session
    wanted = email.strip().lower()
    found = next((each for each in session.client.members(session.organisation).items if each.email == wanted), None)
    if found is None:
        msg = (
            f"{terminal.clean(email)} is not a member of {session.organisation}. "
            "polly members list shows who is, and who is invited."
        )
        raise CommandError(msg)
    return found


def _ask_member(call: Call, *, invited: bool = False) -> str:
    def question() -> str:
        session = call.session
        session.require("admin")
        known = [each.email for each in session.client.members(session.organisation).items]
        if invited:
            known += [each.email for each in session.client.invitations(session.organisation).items]
        return prompts.one_of("What is the email of the member?", known)

    return call.need("--email", question)


def ask_role(call: Call, question: str = "Which role?", current: api_types.Role | None = None) -> api_types.Role:
    """Ask for a role, with the current one selected, and return it. Raises UsageError if nobody can be asked."""
    roles: tuple[api_types.Role, ...] = get_args(api_types.Role)
    answer = call.need("--role", lambda: prompts.choose(question, roles, current), ROLES)
    return next(each for each in roles if each == answer)
