"""Make a registry, run it, and look after its organisations and users on the machine that holds it."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from polly_dockers import __version__, db
from polly_dockers.auth import members
from polly_dockers.auth.passwords import UNSET, hash_now
from polly_dockers.cli import tables
from polly_dockers.cli.command import HelpedCommand, Output
from polly_dockers.db.audit import Event
from polly_dockers.errors import BadRequest, MemberUnknown, PollyError
from polly_dockers.formatting import counted
from polly_dockers.model import Role, parse_email, parse_slug
from polly_dockers.server import data_folder
from polly_dockers.server.cli import audit, keys, organisations, run, storage
from polly_dockers.server.cli.data_option import Data, Org, same, with_same
from polly_dockers.server.cli.help import complete, group, named_by
from polly_dockers.system import ownership, process, secret_input
from polly_dockers.system.ownership import AccessDenied

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

app: Final = group(__doc__ or "", root=True)
user: Final = group("Users and their roles in organisations.")
app.add_typer(organisations.app, name="org")
app.add_typer(user, name="user")
app.add_typer(keys.app, name="key")

Email = Annotated[str, typer.Option("--email", metavar="EMAIL", help="Email that names the user.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, its first line.")
]
RoleOption = Annotated[
    str, typer.Option("--role", metavar="ROLE", help="reader pulls; writer also pushes; admin also manages.")
]


def main() -> NoReturn:
    """The entry point: a failure is one line on stderr and exit 1; 2 for what was typed wrongly."""
    process.prepare()
    os.umask(ownership.UMASK)
    try:
        code = complete(app)
    except secret_input.UnreadableError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        raise SystemExit(2) from None
    except AccessDenied as error:
        place = ownership.explain(Path(error.place)) if error.place else error.message
        print(f"Error: {place}", file=sys.stderr)
        raise SystemExit(1) from None
    except PollyError as error:
        print(f"Error: {with_same(error.message)}", file=sys.stderr)
        raise SystemExit(2 if error.status == BadRequest.status else 1) from None
    except Exception as error:
        if os.environ.get("POLLY_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename and ownership.denied(error):
            print(f"Error: {ownership.explain(Path(error.filename))}", file=sys.stderr)
            raise SystemExit(1) from None
        if isinstance(error, OSError) and error.strerror:
            process.drop_output()
            place = f": {error.filename}" if error.filename else ""
            print(f"Error: {error.strerror}{place}. Run it again once that is mended.", file=sys.stderr)
            raise SystemExit(1) from None
        message = "This failed where it should not. POLLY_DEBUG=1 before the command shows where."
        print(f"Error: {message}", file=sys.stderr)  # no word of the error: it may hold a password
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(code)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's form
    if value:
        print(f"polly-server {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run the Polly Docker Repository and look after it."""


def _password(email: str, *, from_stdin: bool) -> str:
    if from_stdin:
        return secret_input.line("the password")
    if not sys.stdin.isatty():
        print("Error: There is no terminal to ask for the password. Give --password-stdin.", file=sys.stderr)
        raise SystemExit(2)
    while True:
        password = secret_input.ask(f"New password of {email}: ", "the password")
        if secret_input.ask("The same again: ", "the password") == password:
            return password
        print("The two passwords differ; nothing is changed.", file=sys.stderr)


@app.command(
    cls=HelpedCommand,
    epilog="polly-server init --data data --org acme --email ann@acme.example\n"
    "polly-server init --data data --org acme --email ann@acme.example --password-stdin < password.txt",
)
def init(org: Org, email: Email, data: Data = Path("data"), *, password_stdin: PasswordStdin = False) -> None:
    """Make the database, an organisation and its first admin."""
    parse_slug(org)
    email = parse_email(email)
    hashed = hash_now(_password(email, from_stdin=password_stdin))
    data_folder.prepare(data)
    data_folder.change(data, lambda connection: run.first_organisation(connection, org, email, hashed))
    print(
        f"Organisation {org} with the admin {email} is in {data}. Start it: polly-server run --data {quote(str(data))}"
    )


app.command("run", cls=HelpedCommand, epilog=run.EXAMPLES)(run.run_server)


# --- users -----------------------------------------------------------------------------------------------------


@user.command(
    "add",
    cls=HelpedCommand,
    epilog="polly-server user add bob@acme.example --org acme --role writer\n"
    "polly-server user add bob@acme.example --org acme --role writer --password-stdin < password.txt",
)
@named_by("email")
def user_add(
    org: Org, email: Email, role: RoleOption, data: Data = Path("data"), *, password_stdin: PasswordStdin = False
) -> None:
    """Make a user a member of an organisation. The password is for a user who has none; others keep theirs."""
    data_folder.require(data)
    email, wanted = parse_email(email), Role.parse(role)

    def keeps(connection: Connection) -> bool:
        members.find_organisation(connection, org)
        known = db.accounts.user(connection, email)
        return known is not None and known.password_hash != UNSET  # unset as after a rebuild

    asked = not data_folder.change(data, keeps)
    hashed = hash_now(_password(email, from_stdin=password_stdin)) if asked else UNSET

    def add(connection: Connection) -> bool:
        kept = keeps(connection)
        organisation = members.find_organisation(connection, org)
        made = members.add(connection, organisation, org, email, wanted, hashed, by=None)
        if not kept:
            db.accounts.set_password(connection, made.user_id, hashed)
        return kept

    note = " The account was there already and keeps its password." if data_folder.change(data, add) else ""
    print(f"{email} is {wanted.name} in {org}.{note}")


@user.command("list", cls=HelpedCommand, epilog="polly-server user list --data data --org acme")
def user_list(
    data: Data = Path("data"),
    *,
    org: Annotated[str | None, typer.Option(metavar="NAME", help="Only members of this organisation.")] = None,
    output: Output = "table",
) -> None:
    """List the users and their roles. It also shows who has no password yet."""
    data_folder.require(data)

    def find(connection: Connection) -> list[Row[*tuple[Any, ...]]]:
        return db.accounts.user_list(
            connection, members.find_organisation(connection, org) if org is not None else None
        )

    items: list[dict[str, Any]] = []
    for email, of_user in itertools.groupby(data_folder.change(data, find), key=lambda row: row.email):
        each = list(of_user)
        roles = [{"organisation": row.slug, "role": Role(row.role).name} for row in each if row.slug]
        items.append({"email": email, "roles": roles, "has_password": each[0].password_hash != UNSET})
    if output == "json":
        tables.document(items)
        return
    lines = [
        (
            str(item["email"]),
            ", ".join(f"{role['organisation']} {role['role']}" for role in item["roles"]) or "in no organisation",
            "" if item["has_password"] else "has none",
        )
        for item in items
    ]
    if items:
        tables.show([tables.Column("user", own_line=True), tables.Column("roles"), tables.Column("password")], lines)
    else:
        print(
            f"There is no user yet. Make one: polly-server user add{same()} --org … --email … --role …", file=sys.stderr
        )


@user.command(
    "set-role",
    cls=HelpedCommand,
    epilog="polly-server user set-role bob@acme.example --org acme --role admin",
)
@named_by("email")
def user_set_role(org: Org, email: Email, role: RoleOption, data: Data = Path("data")) -> None:
    """Give a member another role."""
    data_folder.require(data)
    wanted = Role.parse(role)

    def change(connection: Connection) -> None:
        members.change_role(connection, members.find_organisation(connection, org), org, email, wanted, by=None)

    data_folder.change(data, change)
    print(f"{email.strip().lower()} is {wanted.name} in {org}.")


@user.command("remove", cls=HelpedCommand, epilog="polly-server user remove bob@acme.example --org acme")
@named_by("email")
def user_remove(org: Org, email: Email, data: Data = Path("data")) -> None:
    """Remove a user from an organisation. It takes effect on the next request; what they pushed stays."""
    data_folder.require(data)

    def change(connection: Connection) -> None:
        members.delete(connection, members.find_organisation(connection, org), org, email, by=None)

    data_folder.change(data, change)
    print(f"{email.strip().lower()} is not a member of {org} any more.")


@user.command("reset-password", cls=HelpedCommand, epilog="polly-server user reset-password bob@acme.example")
@named_by("email")
def user_reset_password(email: Email, data: Data = Path("data"), *, password_stdin: PasswordStdin = False) -> None:
    """Give a user another password. All their sign-ins and access tokens end."""
    data_folder.require(data)
    email = parse_email(email)
    data_folder.change(data, lambda connection: _user(connection, email))  # before anything is asked
    hashed = hash_now(_password(email, from_stdin=password_stdin))

    def change(connection: Connection) -> None:
        found = _user(connection, email)
        db.accounts.set_password(connection, found.id, hashed)
        db.audit.append_for_account(connection, Event.password_change, email, "", by=db.audit.OPERATOR, subject=email)
        db.throttles.forgive_account(connection, email)

    data_folder.change(data, change)
    print(f"{email} has a new password; all sign-ins of {email} have ended.")


@user.command(
    "revoke-tokens",
    cls=HelpedCommand,
    epilog="polly-server user revoke-tokens bob@acme.example\npolly-server user revoke-tokens --all",
)
def user_revoke_tokens(
    argument: Annotated[
        str | None,
        typer.Argument(
            metavar="[EMAIL]", help="The same as --email, which may be left out before it.", show_default=False
        ),
    ] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="EMAIL", help="Email that names the user.")] = None,
    data: Data = Path("data"),
    *,
    everybody: Annotated[bool, typer.Option("--all", help="The tokens of all users.")] = False,
) -> None:
    """End all access tokens of a user, or of everybody. Sign-ins end with them; passwords stay."""
    data_folder.require(data)
    if argument is not None and email not in {None, argument}:
        msg = f"{argument!r} and --email {email!r} are different. Give one of them."
        raise BadRequest(msg)
    email = argument if email is None else email
    if (email is None) != everybody:
        msg = "Give the email of a user, or --all."
        raise BadRequest(msg)
    email = None if email is None else parse_email(email)

    def end(connection: Connection) -> int:
        found = None if email is None else _user(connection, email).id
        count = db.accounts.delete_tokens(connection, found)
        detail = f"{count} access tokens"
        if email is None:
            db.audit.append(connection, Event.token_revoke, "all", organisation_id=None, by=None, detail=detail)
        else:
            db.audit.append_for_account(
                connection, Event.token_revoke, email, "", by=db.audit.OPERATOR, subject="all", detail=detail
            )
        return count

    count = data_folder.change(data, end)
    print(f"{counted(count, 'access token')} of {email or 'all users'} {'has' if count == 1 else 'have'} ended.")


def _user(connection: Connection, email: str) -> db.accounts.User:
    found = db.accounts.user(connection, email)
    if found is None:
        msg = f"There is no user {email}. polly-server user list{same()} shows all, and user add makes one."
        raise MemberUnknown(msg)
    return found


storage.add_to(app)
audit.add_to(app)
