"""The first organisation of a registry, and what a server that is up says on stdout."""

from __future__ import annotations

import os
import secrets
import sys
from shlex import quote
from typing import TYPE_CHECKING, Final

from polly_dockers import __version__, accounts, datafolder, process
from polly_dockers.db import accounts as rows
from polly_dockers.model import Role
from polly_dockers.passwords import hash_now

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers import config

DEMO_ORG: Final = "demo"
DEMO_EMAIL: Final = "admin@demo.example"


def first_organisation(connection: Connection, slug: str, email: str, hashed: str) -> None:
    """Make an organisation and its first admin, with a password that is hashed."""
    made = accounts.create_organisation(connection, slug)
    accounts.put_member(connection, made, slug, email, Role.admin, hashed, by=None)


def make(settings: config.Config) -> str | None:
    """Make the organisation demo where there is none; the password of its admin, else None."""
    datafolder.prepare(settings.data)
    password = secrets.token_urlsafe(12)

    def fill(connection: Connection) -> bool:
        if rows.organisation_list(connection):
            return False
        first_organisation(connection, DEMO_ORG, DEMO_EMAIL, hash_now(password))
        return True

    return password if datafolder.change(settings.data, fill) else None


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
