"""polly-server run: its options, the first organisation of a registry, and what a server that is up says on stdout."""

from __future__ import annotations

import os
import secrets
import sys
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Final

import typer

from polly_dockers import __version__, config, db
from polly_dockers.auth import accounts
from polly_dockers.auth.passwords import hash_now
from polly_dockers.model import Role
from polly_dockers.server import data_folder
from polly_dockers.server.cli import data_option
from polly_dockers.system import process

if TYPE_CHECKING:
    from sqlalchemy import Connection

DEMO_ORG: Final = "demo"
DEMO_EMAIL: Final = "admin@demo.example"
ConfigFile = data_option.ConfigFile
EXAMPLES: Final = (
    "polly-server run --demo\n"
    "polly-server run --data data --listen 0.0.0.0:443 --public-url https://registry.acme.example "
    "--tls-cert cert.pem --tls-key key.pem"
)


def run_server(
    *,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the database and the blobs. Default: data.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address to listen on. Default: 127.0.0.1:5000.")
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="How people reach the server, such as https://registry.acme.example."),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="PEM file of the certificate and its chain.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="PEM file of the private key.")] = None,
    workers: Annotated[str | None, typer.Option(metavar="N", help="Worker processes. Default: 2.")] = None,
    metrics_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address of /metrics, apart from the rest.")
    ] = None,
    public_repositories: Annotated[
        str | None,
        typer.Option(metavar="allow|deny", help="Whether admins may make repositories public. Default: deny."),
    ] = None,
    blob_delete: Annotated[
        str | None,
        typer.Option(metavar="allow|deny", help="DELETE of blobs over the registry protocol. Default: allow."),
    ] = None,
    manifest_delete: Annotated[
        str | None,
        typer.Option(
            metavar="allow|deny", help="DELETE of tags and manifests over the registry protocol. Default: allow."
        ),
    ] = None,
    max_manifest_bytes: Annotated[
        str | None, typer.Option(metavar="N", help="Larger manifests are refused. Default: 8388608.")
    ] = None,
    token_seconds: Annotated[
        str | None, typer.Option(metavar="N", help="How long a registry token is valid. Default: 600.")
    ] = None,
    lease_seconds: Annotated[
        str | None, typer.Option(metavar="N", help="How long a blob that no image uses is kept. Default: 86400.")
    ] = None,
    trash_days: Annotated[
        str | None, typer.Option(metavar="N", help="How long what was deleted can be restored. Default: 30.")
    ] = None,
    audit_days: Annotated[
        str | None,
        typer.Option(metavar="N", help="How long entries of the audit log are kept; 0: for ever. Default: 0."),
    ] = None,
    upload_seconds: Annotated[
        str | None, typer.Option(metavar="N", help="How long an upload that nobody continues is kept. Default: 604800.")
    ] = None,
    grace_seconds: Annotated[
        str | None,
        typer.Option(metavar="N", help="How long the bytes of a blob stay that nothing names. Default: 900."),
    ] = None,
    collect_seconds: Annotated[
        str | None, typer.Option(metavar="N", help="Time between two collections of garbage; 0: none. Default: 300.")
    ] = None,
    trusted_proxies: Annotated[
        str | None, typer.Option(metavar="LIST", help="Addresses whose X-Forwarded-For names the client.")
    ] = None,
    stalled_seconds: Annotated[
        str | None, typer.Option(metavar="N", help="How long a client may take nothing of its answer. Default: 60.")
    ] = None,
    graceful_seconds: Annotated[
        str | None, typer.Option(metavar="N", help="How long requests may take to end after SIGTERM. Default: 60.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error. Default: info.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(metavar="json|text", help="Form of the log. Default: json.")] = None,
    config_file: ConfigFile = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Where there is no organisation, make demo with an admin.")
    ] = False,
) -> None:
    """Serve the registry until SIGTERM. Requests in flight then end first.

    Every option is also a variable POLLY_… of the environment, and a line of the TOML file; the option wins over the
    variable, the variable over the file.
    """
    options = {name: value for name, value in locals().items() if name not in {"config_file", "demo"}}
    settings = config.load(options, os.environ, config_file)
    from polly_dockers.server import startup  # noqa: PLC0415 - gunicorn and aiohttp are for this command alone

    password = None
    if demo:
        startup.check_address(settings)
        password = make(settings)
    startup.run(settings, lambda: say_ready(settings, password))


def first_organisation(connection: Connection, slug: str, email: str, hashed: str) -> None:
    """Make an organisation and its first admin, with a password that is hashed."""
    made = accounts.create_organisation(connection, slug)
    accounts.put_member(connection, made, slug, email, Role.admin, hashed, by=None)


def make(settings: config.Config) -> str | None:
    """Make the organisation demo where there is none; the password of its admin, else None."""
    data_folder.prepare(settings.data)
    password = secrets.token_urlsafe(12)

    def fill(connection: Connection) -> bool:
        if db.accounts.organisation_list(connection):
            return False
        first_organisation(connection, DEMO_ORG, DEMO_EMAIL, hash_now(password))
        return True

    return password if data_folder.change(settings.data, fill) else None


def say_ready(settings: config.Config, password: str | None) -> None:
    """Say on stdout that the server is up, and, once, how to begin. A stdout that is closed or full ends nothing.

    Nothing is said between the JSON lines of a log that goes to the same place, which has a line of its own for that.
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
    """Whether stdout and stderr are one and the same, as under systemd."""
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
(shown this once). Paste in another terminal, in this folder:

  export PATH="$PWD/.venv/bin:$PATH"
  echo '{password}' | polly login --server {settings.url} --email {DEMO_EMAIL} --password-stdin
  polly dockers create --name hello --description "My first docker"
  eval "$(polly dockers login)"
  printf 'FROM scratch\\nCOPY . /docs\\n' | docker build -q -t {path}:v1 -f - docs
  docker push {path}:v1
  polly dockers commit-list --name hello
""")
    sys.stdout.flush()
