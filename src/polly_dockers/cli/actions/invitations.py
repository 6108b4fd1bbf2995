"""``polly members add``, ``invitations`` and ``accept``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.cli import profiles, prompts, session, tables, terminal
from polly_dockers.cli.actions import account, members
from polly_dockers.cli.client import Client
from polly_dockers.cli.errors import UsageError
from polly_dockers.cli.new_token import undone_unless_handed_out
from polly_dockers.cli.tables import Column, Columns

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.session import Session

_CODE = "It reads the code from stdin."
_Invitation = api_types.InvitationItem | api_types.InvitationCreated
_EMAIL = Column[_Invitation]("email", lambda each: each.email)
_ROLE = Column[_Invitation]("role", lambda each: each.role)
_UNTIL = Column[_Invitation]("valid until", lambda each: tables.date(each.expires_at))
_INVITATION = (_EMAIL, _ROLE, _UNTIL)
_MADE: Columns[api_types.InvitationCreated] = (
    _EMAIL,
    _ROLE,
    Column("code", lambda each: each.code, own_line=True),
    _UNTIL,
)


def add(call: Call, email: str | None, role: api_types.Role | None, output: str) -> None:
    """Invite somebody, and print the code, which is never shown again."""
    call.need_all({"--email": (email, ""), "--role": (role, members.ROLES)})
    if call.may_ask() and (email is None or role is None):
        call.session.require("admin")
    question = "What is the email of the new member?"
    email = email or call.need("--email", lambda: prompts.text(question, check=account.email_problem))
    account.check_email(email)
    role = role or members.ask_role(call)
    session = call.session
    organisation = session.organisation
    wanted = email.strip().lower()
    again = any(each.email == wanted for each in session.client.invitations(organisation).items)
    made = session.client.invite(organisation, api_types.InvitationCreate(email, role))
    call.remember("polly members add", email=email, role=role)
    invited = terminal.clean(made.email)
    with undone_unless_handed_out(lambda: session.client.revoke_invitation(organisation, made.email)):
        terminal.success(f"{invited} is invited to {organisation}")
        tables.display(output, made, _MADE, [made])
    if again:
        terminal.say(f"The code that {invited} got before does not work any more.")
    server = shlex.quote(session.server)
    terminal.say(
        f"Give them the code; it is not shown again. They join with: polly members accept --server {server} "
        f"--email {shlex.quote(invited)}"
    )


def pending(call: Call, output: str) -> None:
    """Print who is invited and has not joined yet."""
    session = call.session
    items = session.client.invitations(session.organisation).items
    empty = f"Nobody is invited to {session.organisation}. To invite somebody, run: polly members add"
    tables.display(output, items, _INVITATION, items, empty)


def accept(
    call: Call, email: str | None, code: str | None, ca_file: str | None, *, code_stdin: bool, password_stdin: bool
) -> None:
    """Redeem a code as the signed-in user, or with the email and password of an existing or a new account.

    In the second case the user is signed in afterwards. Raises UsageError if something is missing and nobody can be
    asked, and CommandError if the server refuses.
    """
    if code and code_stdin:
        msg = "--code and --code-stdin both give the code: use one."
        raise UsageError(msg)
    if email is not None and email.strip().startswith("invite-"):
        msg = "This is a code, not an email address. Enter the code when asked, or use --code-stdin < code.txt"
        raise UsageError(msg)
    session = _session(call, email)
    if session is not None and password_stdin:
        msg = f"You are already signed in to {session.server}, so no password is needed. Leave out --password-stdin."
        raise UsageError(msg)
    server = session.server if session else account.named_server(call)
    new = session is None
    call.need_all(
        {
            "--server": (server, ""),
            "--email": (email or not new, ""),
            "--code-stdin": (code or code_stdin, _CODE),
            "--password-stdin": (password_stdin or not new, account.STDIN),
        }
    )
    if session is None:
        server = account.address(call)
        question = "Enter the email address that was invited"
        email = email or call.need("--email", lambda: prompts.text(question, check=account.email_problem))
        account.check_email(email)
    if code_stdin:
        code = prompts.line_of_stdin("the code")
    if not code:
        code = call.need("--code-stdin", lambda: prompts.text("Enter the code of the invitation"), _CODE)
    if session is not None:
        joined = session.client.accept_invitation(api_types.InvitationAccept(code))
    else:
        password = _password(call, password_stdin=password_stdin)
        trusted = account.certificates(server, ca_file)
        replaces = account.check_profile(call, server, trusted)  # before the code is redeemed, because it works once
        profiles.check_writable()
        joined = Client(server, ca_file=trusted).accept_invitation(api_types.InvitationAccept(code, email, password))
    terminal.success(f"{terminal.clean(joined.email)} is {joined.role} of {terminal.clean(joined.organisation)}")
    if session is not None and session.default != joined.organisation:
        joined_one = terminal.clean(joined.organisation)
        terminal.say(
            f"The commands still use the organisation {session.default}. To use this one: --org {joined_one}, or "
            f"permanently: polly org use {joined_one}"
        )
    if session is None:
        call.server, call.org = server, None
        account.login(
            *(call, joined.email, "90d", ca_file),
            password_stdin=False,
            auto=False,
            password=password,
            replaces=replaces,
        )
    call.remember("polly members accept", server=server if session is None else None, email=email, ca_file=ca_file)


def _session(call: Call, email: str | None) -> Session | None:
    """Return the session on the selected server; None if nobody is signed in, or somebody with another email."""
    wanted = session.meant(call.profile, call.server)
    if not wanted.token:
        known, url = profiles.load().by_name, wanted.server
        emails = [each.email for each in known.values() if not url or profiles.same(each.server, url)]
        if wanted.profile and wanted.profile not in known:
            return None  # a new profile
        if not wanted.profile and (not emails or (email and email.strip().lower() not in emails)):
            return None
    current = call.session
    if email is None:
        return current
    mine = current.stored.email if current.stored else current.client.me().email
    return current if email.strip().lower() == mine else None


def _password(call: Call, *, password_stdin: bool) -> str:
    """Ask for the password twice, because it may be that of a new account. Raises UsageError if they differ."""
    if password_stdin:
        return prompts.line_of_stdin("the password")
    question = "Enter your password on this server, or a new one"
    for _ in range(account.TRIES):
        password = call.need("--password-stdin", lambda: prompts.new_password(question), account.STDIN)
        if prompts.password("Enter the password again") == password:
            return password
        terminal.say("The two passwords are different.")
    msg = "The two passwords are different. Nothing was changed."
    raise UsageError(msg)
