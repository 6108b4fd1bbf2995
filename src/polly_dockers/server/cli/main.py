"""The command ``polly-server``: its commands put together, ``init``, and what it prints when a command fails."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Final, NoReturn

import typer

from polly_dockers import __version__
from polly_dockers.auth.passwords import hash_now
from polly_dockers.cli.help import HelpedCommand
from polly_dockers.errors import BadRequest, PollyError
from polly_dockers.model import parse_email, parse_slug
from polly_dockers.server import data_folder
from polly_dockers.server.cli import audit, folder, keys, organisations, run, storage, users
from polly_dockers.server.cli.folder import Data
from polly_dockers.server.cli.help import complete, group, tell
from polly_dockers.server.cli.organisations import Org
from polly_dockers.server.cli.users import Email, PasswordStdin
from polly_dockers.system import ownership, process, secret_input
from polly_dockers.system.ownership import AccessDenied

app: Final = group(
    "Create a registry, run it, and manage its organisations and users on the machine that it runs on.", root=True
)


def main() -> NoReturn:
    """Run the command and end the process: exit code 1 and one line on stderr for a failure, 2 for a wrong command."""
    process.prepare()
    os.umask(ownership.UMASK)
    try:
        code = complete(app)
    except KeyboardInterrupt:
        raise SystemExit(process.INTERRUPTED) from None
    except Exception as error:
        if os.environ.get("POLLY_DEBUG") and not isinstance(error, PollyError | secret_input.UnreadableError):
            raise
        message, code = _failure(error)
        unexpected = "An unexpected failure of polly-server. To see the details, put POLLY_DEBUG=1 before the command."
        tell(f"Error: {message or unexpected}", aside=True)  # no word of the error: it may hold a password
    raise SystemExit(code)


def _failure(error: Exception) -> tuple[str, int]:
    """The message for an error, empty for one that nobody foresaw, and the exit code."""
    if isinstance(error, secret_input.UnreadableError):
        return error.message, 2
    if isinstance(error, AccessDenied):
        return ownership.explain(Path(error.place)) if error.place else error.message, 1
    if isinstance(error, PollyError):
        return folder.with_option(error.message), 2 if error.status == BadRequest.status else 1
    if isinstance(error, OSError) and error.filename and ownership.denied(error):
        return ownership.explain(Path(error.filename)), 1
    if isinstance(error, OSError) and error.strerror:
        process.drop_output()
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}. Fix that, and run the command again.", 1
    return "", 1


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's form
    if value:
        print(f"polly-server {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run the Polly Docker Repository, and manage it."""


@app.command(
    cls=HelpedCommand,
    epilog="polly-server init --data data --org acme --email ann@acme.example\n"
    "polly-server init --data data --org acme --email ann@acme.example --password-stdin < password.txt",
)
def init(org: Org, email: Email, data: Data = Path("data"), *, password_stdin: PasswordStdin = False) -> None:
    """Create the database, an organisation and its first admin."""
    parse_slug(org)
    data_folder.refuse_backup(data)
    email = parse_email(email)
    hashed = hash_now(users.read_password(email, from_stdin=password_stdin))
    data_folder.prepare(data)
    data_folder.transaction(data, lambda connection: run.first_organisation(connection, org, email, hashed))
    tell(
        f"Created the organisation {org} with the admin {email} in {data}. "
        f"Start the server: polly-server run --data {quote(str(data))}"
    )


app.command("run", cls=HelpedCommand, epilog=run.EXAMPLES)(run.run_server)
app.add_typer(storage.app)
app.add_typer(audit.app)
app.add_typer(organisations.app, name="org")
app.add_typer(users.app, name="user")
app.add_typer(keys.app, name="key")
