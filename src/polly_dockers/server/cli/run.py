"""``polly-server run``: its options, the demo organisation, and what a started server prints."""

from __future__ import annotations

import inspect
import os
import secrets
import sys
from functools import wraps
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Final

import typer

from polly_dockers import __version__, config, db
from polly_dockers.auth import members
from polly_dockers.auth.members import Existing
from polly_dockers.auth.passwords import hash_now
from polly_dockers.model import Role
from polly_dockers.server import data_folder
from polly_dockers.server.cli.folder import ConfigFile
from polly_dockers.system import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

DEMO_ORG: Final = "demo"
DEMO_EMAIL: Final = "admin@demo.example"
EXAMPLES: Final = (
    "polly-server run --demo\n"
    "polly-server run --data data --listen 0.0.0.0:443 --public-url https://registry.acme.example "
    "--tls-cert cert.pem --tls-key key.pem"
)


def _takes_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Let a command take each setting as an option: they come before its own parameters, in ``options``."""
    kind = inspect.Parameter.KEYWORD_ONLY
    taken = [
        inspect.Parameter(
            name,
            kind,
            default=None,
            annotation=Annotated[str | None, typer.Option(metavar=setting.metavar, help=setting.help)],
        )
        for name, setting in config.SETTINGS.items()
    ]
    own = [each for each in inspect.signature(function, eval_str=True).parameters.values() if each.name != "options"]

    @wraps(function)
    def command(**values: object) -> None:
        options = {name: values.pop(name) for name in config.SETTINGS}
        function(options, **values)

    command.__annotations__ = {each.name: each.annotation for each in (*taken, *own)}
    command.__signature__ = inspect.Signature([*taken, *own])  # type: ignore[attr-defined]
    return command


@_takes_settings
def run_server(
    options: dict[str, object],
    *,
    config_file: ConfigFile = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="If there is no organisation, create demo with an admin.")
    ] = False,
) -> None:
    """Serve the registry until SIGTERM. Requests in flight then finish first.

    Every option is also an environment variable POLLY_… and a line of the TOML file. The option wins over the
    variable, the variable over the file.
    """
    settings = config.load(options, os.environ, config_file)
    from polly_dockers.server import startup  # noqa: PLC0415 - gunicorn and uvloop are for this command alone

    password = None
    if demo:
        startup.check_address(settings)
        password = make(settings)
    startup.run(settings, lambda: say_ready(settings, password), config.unknown_variables(os.environ))


def first_organisation(
    connection: Connection, slug: str, email: str, hashed: str, existing: Existing = Existing.refuse
) -> None:
    """Make an organisation and its first admin; ``hashed`` is the hash of the password."""
    made = members.create_organisation(connection, slug)
    create = f"polly-server org create {slug}"  # if there is an account, the organisation is not kept
    members.add(connection, made, slug, email, Role.admin, hashed, existing, first=create)


def make(settings: config.Config) -> str | None:
    """Make the organisation demo if there is no organisation. Returns the password of its admin, else None."""
    data_folder.prepare(settings.data)
    password = secrets.token_urlsafe(12)

    def fill(connection: Connection) -> bool:
        if db.accounts.organisation_list(connection):
            return False
        first_organisation(connection, DEMO_ORG, DEMO_EMAIL, hash_now(password), Existing.reset_password)
        return True

    return password if data_folder.transaction(settings.data, fill) else None


def say_ready(settings: config.Config, password: str | None) -> None:
    """Print that the server is ready and, with a password, the first steps. A closed or full stdout is no failure.

    Nothing is printed if stdout and a log of JSON lines go to the same file: the log has a line for it.
    """
    if password is None and settings.log_format == "json" and not sys.stdout.isatty() and _log_goes_to_stdout():
        return
    try:
        _print_ready(settings, password)
    except OSError as error:
        process.drop_output()
        command = f"polly-server user reset-password --data {quote(str(settings.data))} --email {DEMO_EMAIL}"
        lost = f" To set a password: {command}" if password else ""
        print(f"polly-server: stdout can't be written: {error.strerror}. The server runs.{lost}", file=sys.stderr)


def _log_goes_to_stdout() -> bool:
    """Whether stdout and stderr are the same file, as under systemd."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):
        return False


def _print_ready(settings: config.Config, password: str | None) -> None:
    print(f"Polly Docker Repository {__version__} at {settings.url}, data in {settings.data.resolve()}; Ctrl-C ends it")
    if settings.everywhere and not settings.public_url:
        print("Other machines can't use that address. For them, set how they reach the server: --public-url URL")
    if password is not None:
        path = f"{settings.registry}/{DEMO_ORG}/hello"
        print(f"""
The organisation {DEMO_ORG} is new. Its admin is {DEMO_EMAIL}, the password {password}
(shown only once). Paste in another terminal, in this folder:

  export PATH="$PWD/.venv/bin:$PATH"
  echo '{password}' | polly login --server {settings.url} --email {DEMO_EMAIL} --password-stdin
  polly dockers create --name hello --description "My first docker"
  eval "$(polly dockers login)"
  printf 'FROM scratch\\nCOPY . /docs\\n' | docker build -q -t {path}:v1 -f - docs
  docker push {path}:v1
  polly dockers commit-list --name hello
""")
    sys.stdout.flush()
