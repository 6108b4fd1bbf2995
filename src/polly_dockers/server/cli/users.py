"""The commands of polly-server for users: their roles, passwords and access tokens."""

from __future__ import annotations

import itertools
import sys
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from polly_dockers import db, password_rules
from polly_dockers.auth import members
from polly_dockers.auth.members import Existing
from polly_dockers.auth.passwords import UNSET, hash_now
from polly_dockers.cli import tables
from polly_dockers.cli.help import HelpedCommand
from polly_dockers.cli.options import Output
from polly_dockers.cli.tables import Column, Columns
from polly_dockers.db.audit import Event
from polly_dockers.errors import BadRequest, MemberUnknown
from polly_dockers.formatting import counted
from polly_dockers.model import Role, parse_email
from polly_dockers.server.cli import folder
from polly_dockers.server.cli.folder import Data
from polly_dockers.server.cli.help import Yes, confirm, group, named_by, tell
from polly_dockers.server.cli.organisations import Org
from polly_dockers.system import secret_input

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


_USER: Final[Columns[dict[str, Any]]] = (
    Column("user", itemgetter("email"), own_line=True),
    Column("roles", lambda each: _roles(each["roles"])),
    Column("password", lambda each: "set" if each["has_password"] else "has none"),
)
app: Final = group("Users and their roles in organisations.")

Email = Annotated[str, typer.Option("--email", metavar="EMAIL", help="Email of the user.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")
]
RoleOption = Annotated[
    str, typer.Option("--role", metavar="ROLE", help="reader pulls; writer also pushes; admin also manages.")
]


def read_password(email: str, *, from_stdin: bool) -> str:
    """A new password for the user: the first line of stdin, or asked for twice at the terminal.

    Raises SystemExit where there is no terminal, and UnreadableError for input that is not a password.
    """
    if from_stdin:
        return secret_input.line("the password")
    if not sys.stdin.isatty():
        tell("Error: There is no terminal to ask for the password on. Use --password-stdin.", aside=True)
        raise SystemExit(2)
    while True:
        password = secret_input.ask(f"New password of {email}: ", "the password")
        if wrong := password_rules.problem(password):
            tell(wrong, aside=True)
            continue
        if secret_input.ask("The same again: ", "the password") == password:
            return password
        tell("The two passwords are different. Nothing was changed.", aside=True)


@app.command(
    "add",
    cls=HelpedCommand,
    epilog="polly-server user add bob@acme.example --org acme --role writer\n"
    "polly-server user add bob@acme.example --org acme --role writer --password-stdin < password.txt\n"
    "polly-server user add bob@acme.example --org biolab --role reader --keep-password",
)
@named_by("email")
def run_add(
    org: Org,
    email: Email,
    role: RoleOption,
    data: Data = Path("data"),
    *,
    password_stdin: PasswordStdin = False,
    keep_password: Annotated[
        bool,
        typer.Option(
            "--keep-password", help="Add an existing account, which keeps its password. Its creator can use the role."
        ),
    ] = False,
    reset_password: Annotated[
        bool,
        typer.Option(
            "--reset-password", help="If the account exists, set a new password, and end its sign-ins and tokens."
        ),
    ] = False,
) -> None:
    """Make a user a member of an organisation.

    The account is created with a password. An email that already has an account is refused: somebody else may have
    created it. Add --keep-password if you know that the account is theirs, or else --reset-password.
    """
    email, wanted = parse_email(email), Role.parse(role)
    if keep_password and (password_stdin or reset_password):
        other = "--reset-password" if reset_password else "--password-stdin"
        msg = f"--keep-password and {other} can't be together. Leave one of them out."
        raise BadRequest(msg)
    existing = Existing.reset_password if reset_password else Existing.refuse
    if keep_password:
        existing = Existing.keep_password

    def check(connection: Connection) -> None:
        members.check_account(connection, members.require_organisation(connection, org), org, email, existing, wanted)

    def add(connection: Connection) -> bool:
        is_known = db.accounts.user(connection, email) is not None
        organisation = members.require_organisation(connection, org)
        members.add(connection, organisation, org, email, wanted, hashed, existing)
        return is_known

    folder.transaction(data, check)  # before anything is asked
    hashed = UNSET if keep_password else hash_now(read_password(email, from_stdin=password_stdin))
    is_known = folder.transaction(data, add)
    if keep_password:
        tell(f"{email} is {wanted.name} in {org}. The account already existed, and keeps its password.")
    elif is_known:
        tell(f"{email} is {wanted.name} in {org}. The account already existed, and has a new password.")
    else:
        tell(f"{email} is {wanted.name} in {org}.")


@app.command("list", cls=HelpedCommand, epilog="polly-server user list --data data --org acme")
def run_list(
    data: Data = Path("data"),
    *,
    org: Annotated[str | None, typer.Option(metavar="NAME", help="Only members of this organisation.")] = None,
    output: Output = "table",
) -> None:
    """List the users and their roles. It also shows who has no password yet."""

    def find(connection: Connection) -> list[Row[*tuple[Any, ...]]]:
        return db.accounts.user_list(
            connection, members.require_organisation(connection, org) if org is not None else None
        )

    items: list[dict[str, Any]] = []
    for email, of_user in itertools.groupby(folder.read(data, find), key=lambda row: row.email):
        each = list(of_user)
        roles = [{"organisation": row.slug, "role": Role(row.role).name} for row in each if row.slug]
        items.append({"email": email, "roles": roles, "has_password": each[0].password_hash != UNSET})
    command = f"polly-server user add{folder.option()} --org … --email … --role …"
    tables.display(output, items, _USER, items, f"There is no user yet. Create one: {command}")


def _roles(roles: list[dict[str, str]]) -> str:
    return ", ".join(f"{each['organisation']} {each['role']}" for each in roles) or "in no organisation"


@app.command(
    "set-role", cls=HelpedCommand, epilog="polly-server user set-role bob@acme.example --org acme --role admin"
)
@named_by("email")
def run_set_role(org: Org, email: Email, role: RoleOption, data: Data = Path("data")) -> None:
    """Give a member another role."""
    wanted = Role.parse(role)

    def change(connection: Connection) -> None:
        members.change_role(connection, members.require_organisation(connection, org), org, email, wanted, by=None)

    folder.transaction(data, change)
    tell(f"{email.strip().lower()} is {wanted.name} in {org}.")


@app.command(
    "remove",
    cls=HelpedCommand,
    epilog="polly-server user remove bob@acme.example --org acme\n"
    "polly-server user remove bob@acme.example --org acme --yes",
)
@named_by("email")
def run_remove(org: Org, email: Email, data: Data = Path("data"), *, yes: Yes = False) -> None:
    """Remove a user from an organisation. It takes effect on the next request; what they pushed stays.

    On a terminal it asks first. Elsewhere it needs --yes.
    """

    def check(connection: Connection) -> bool:
        return members.require_removable(connection, members.require_organisation(connection, org), org, email, by=None)

    if not yes:
        who = email.strip().lower()
        if folder.transaction(data, check):
            what = (
                f"This removes {who} from {org}. From the next request on they can't pull, push or run commands there. "
                "What they pushed stays."
            )
            confirm(what, "Remove them?", "Nobody was removed.", "remove")
        else:
            what = f"{who} was invited to {org} and has not joined. This revokes the invitation."
            confirm(what, "Revoke the invitation?", "Nobody was removed.", "remove")

    def remove(connection: Connection) -> None:
        members.delete(connection, members.require_organisation(connection, org), org, email, by=None)

    folder.transaction(data, remove)
    tell(f"{email.strip().lower()} is not a member of {org} any more.")


@app.command("reset-password", cls=HelpedCommand, epilog="polly-server user reset-password bob@acme.example")
@named_by("email")
def run_reset_password(email: Email, data: Data = Path("data"), *, password_stdin: PasswordStdin = False) -> None:
    """Give a user another password. All their sign-ins and access tokens end."""
    email = parse_email(email)
    folder.transaction(data, lambda connection: _find(connection, email))  # before anything is asked
    hashed = hash_now(read_password(email, from_stdin=password_stdin))

    def change(connection: Connection) -> None:
        members.reset_password(connection, _find(connection, email), hashed)

    folder.transaction(data, change)
    tell(f"{email} has a new password; all sign-ins of {email} have ended.")


@app.command(
    "revoke-tokens",
    cls=HelpedCommand,
    epilog="polly-server user revoke-tokens bob@acme.example\npolly-server user revoke-tokens --all",
)
def run_revoke_tokens(
    argument: Annotated[
        str | None,
        typer.Argument(metavar="[EMAIL]", help="The same as --email; you may leave out --email.", show_default=False),
    ] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="EMAIL", help="Email of the user.")] = None,
    data: Data = Path("data"),
    *,
    everybody: Annotated[bool, typer.Option("--all", help="The tokens of all users.")] = False,
) -> None:
    """End all access tokens of a user, or of everybody. Sign-ins end with them; passwords stay."""
    if argument is not None and email not in {None, argument}:
        msg = f"{argument!r} and --email {email!r} are different. Give one of them."
        raise BadRequest(msg)
    email = argument if email is None else email
    if (email is None) != everybody:
        msg = "Give the email of a user, or --all."
        raise BadRequest(msg)
    whose = None if email is None else parse_email(email)
    count = folder.transaction(data, lambda connection: _revoke_tokens(connection, whose))
    tell(f"{counted(count, 'access token')} of {whose or 'all users'} {'has' if count == 1 else 'have'} ended.")


def _revoke_tokens(connection: Connection, email: str | None) -> int:
    """Delete the access tokens of a user, or of all users where ``email`` is None; how many there were."""
    count = db.accounts.delete_tokens(connection, None if email is None else _find(connection, email).id)
    detail = counted(count, "access token")
    if count == 0:
        return 0
    if email is None:
        db.audit.append(connection, Event.token_revoke, "all", organisation_id=None, by=None, detail=detail)
    else:
        operator = db.audit.OPERATOR
        db.audit.append_for_account(
            connection, Event.token_revoke, email, "", by=operator, subject="all", detail=detail
        )
    return count


def _find(connection: Connection, email: str) -> db.accounts.User:
    """The user of that email; raises MemberUnknown."""
    found = db.accounts.user(connection, email)
    if found is None:
        command = f"polly-server user list{folder.option()}"
        msg = f"There is no user {email}. {command} lists all users, and user add creates one."
        raise MemberUnknown(msg)
    return found
