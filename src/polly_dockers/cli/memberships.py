"""The members of an organisation: what ``polly members list, add, set-role`` and ``remove`` do."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, get_args

import msgspec

from polly_dockers import wire
from polly_dockers.cli import ask, render, terminal
from polly_dockers.cli.render import Column

if TYPE_CHECKING:
    from polly_dockers.cli.command import Call

_MEMBER = (Column("email"), Column("role"), Column("joined at"))


def list_(call: Call, output: str) -> None:
    """Print the members."""
    session = call.session
    items = session.client.members(session.organisation).items
    if output == "json":
        render.document(items)
    else:
        render.show(_MEMBER, [_row(each) for each in items])


def add(call: Call, email: str | None, role: wire.Role | None, output: str, *, password_stdin: bool) -> None:
    """Take somebody in, and print the member with the first password where that was made up here."""
    email = email or call.need("--email", lambda: ask.text("Enter the email of the new member?"))
    role = role or _ask_role(call)
    session = call.session
    made_up = "" if password_stdin else _password()
    password = made_up or ask.line_of_stdin("the first password")
    organisation = session.organisation
    item = session.client.add_member(organisation, wire.MemberAdd(email, role, password))
    call.remember("polly members add", email=email, role=role)
    terminal.success(f"{terminal.clean(item.email)} is a member of {organisation}")
    extra = {"password": made_up} if made_up else {}
    if output == "json":
        render.document(msgspec.to_builtins(item) | extra)
        return
    columns = [*_MEMBER, Column("first password, if new")] if made_up else _MEMBER
    render.show(columns, [(*_row(item), *extra.values())])
    if made_up:
        terminal.say(
            "The first password is shown this once; polly password changes it. Who had an account on this server "
            f"before keeps the password of that, and joins with this one: polly members accept --org {organisation}"
        )


def set_role(call: Call, email: str | None, role: wire.Role | None, output: str) -> None:
    """Change the role of a member, and print the member."""
    email = email or _ask_member(call)
    role = role or _ask_role(call)
    session = call.session
    item = session.client.set_role(session.organisation, email, role)
    call.remember("polly members set-role", email=email, role=role)
    terminal.success(f"{terminal.clean(item.email)} is {item.role} of {session.organisation}")
    if output == "json":
        render.document(item)
    else:
        render.show(_MEMBER, [_row(item)])


def accept(call: Call, *, password_stdin: bool) -> None:
    """Join an organisation with the password of its invitation."""
    session = call.session
    organisation = session.chosen or call.need("--org", lambda: ask.text("Which organisation added you?"))
    if password_stdin:
        password = ask.line_of_stdin("the password of the invitation")
    else:
        password = call.need("--password-stdin", lambda: ask.password("Enter the password that its admin gave you"))
    session.client.accept_invitation(organisation, password)
    session.chosen = organisation
    call.remember("polly members accept")
    terminal.success(f"You are a member of {terminal.clean(organisation)}")


def remove(call: Call, email: str | None) -> None:
    """Take a member out."""
    email = email or _ask_member(call)
    session = call.session
    session.client.remove_member(session.organisation, email)
    call.remember("polly members remove", email=email)
    terminal.success(f"{email} is no member of {session.organisation} any more")


def _ask_member(call: Call) -> str:
    def question() -> str:
        session = call.session
        known = [each.email for each in session.client.members(session.organisation).items]
        return ask.one_of("Enter the email of the member?", known)

    return call.need("--email", question)


def _ask_role(call: Call) -> wire.Role:
    roles: tuple[wire.Role, ...] = get_args(wire.Role)
    answer = call.need("--role", lambda: ask.choose("Which role?", roles[::-1]))
    return next(each for each in roles if each == answer)


def _password() -> str:
    return secrets.token_urlsafe(15)


def _row(item: wire.MemberItem) -> render.Row:
    return item.email, item.role, render.date(item.joined_at)
