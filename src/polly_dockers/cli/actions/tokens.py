"""``polly tokens``: list, create and revoke access tokens."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from polly_dockers.cli import credentials, files, profiles, prompts, tables, terminal, times
from polly_dockers.cli.actions import account
from polly_dockers.cli.client import Client
from polly_dockers.cli.errors import CommandError, RequestError, UsageError
from polly_dockers.cli.new_token import new_token
from polly_dockers.cli.tables import Column, Columns
from polly_dockers.system import process

if TYPE_CHECKING:
    from polly_dockers import api_types
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.session import Session

_TOKEN: Columns[api_types.TokenItem] = (
    Column("id", lambda each: each.id),
    Column("label", lambda each: f"{each.label or '-'}{' (this one)' if each.current else ''}", own_line=True),
    Column("scope", lambda each: each.scope),
    Column("last used", lambda each: tables.date(each.last_used_at)),
    Column("expires", lambda each: tables.date(each.expires_at)),
    Column("created at", lambda each: tables.date(each.created_at)),
)
_CREATED: Columns[api_types.TokenCreated] = (
    Column("id", lambda each: each.id),
    Column("scope", lambda each: each.scope),
    Column("expires", lambda each: tables.date(each.expires_at)),
    Column("token", lambda each: each.token, own_line=True),
)
_STDOUT = "-"
_UNAUTHORIZED = 401
_SLACK = 60
"""Seconds by which a token may expire too early before the command says so."""


@dataclass(frozen=True)
class Wanted:
    """The token to create, and where its secret goes: a path, ``-`` for stdout, or None for the table."""

    label: str | None
    scope: Literal["registry", "full"]
    expires: str
    file: str | None
    password_stdin: bool


def list_(call: Call, output: str) -> None:
    """Print the access tokens that work. The one of this sign-in is marked."""
    items = call.session.client.tokens()
    call.remember("polly tokens list")
    tables.display(output, items, _TOKEN, items)


def create(call: Call, wanted: Wanted, output: str) -> None:
    """Create an access token, and print it or write it to the file.

    Raises UsageError if an option is missing or wrong, and CommandError if the server refuses or the secret can't be
    written. In the latter case the token is revoked.
    """
    lifetime = times.seconds(wanted.expires)
    if wanted.password_stdin and wanted.scope != "full":
        msg = "--password-stdin works only with --scope full; a token of scope registry needs no password."
        raise UsageError(msg)
    if wanted.file == _STDOUT and output == "json":
        msg = "--file - and --output json can't be together: both write to stdout."
        raise UsageError(msg)
    if wanted.file not in {None, _STDOUT}:
        _check_free(Path(str(wanted.file)))
    needed: dict[str, tuple[object, str]] = {"--label": (wanted.label, "")}
    if wanted.scope == "full":
        needed["--password-stdin"] = (wanted.password_stdin, account.STDIN)
    call.need_all(needed)
    label = wanted.label or call.need("--label", lambda: prompts.text("What is the token for?"))
    client = _client(call, wanted)
    call.remember("polly tokens create", label=label, scope=wanted.scope, expires=wanted.expires, file=wanted.file)
    try:
        with new_token(client, wanted.scope, lifetime, label) as created:
            _hand_out(created, wanted.file, output)
            sys.stdout.flush()
    except RequestError as error:
        if error.status != _UNAUTHORIZED or wanted.scope != "full":
            raise
        msg = "The password is wrong. No token was created."
        raise CommandError(msg) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        is_file = wanted.file not in {None, _STDOUT}
        place, way = (wanted.file, " Name another file.") if is_file else ("stdout", "")
        msg = f"{place} can't be written: {error.strerror}. The token was revoked.{way}"
        raise CommandError(msg) from error
    terminal.success(f"access token {created.id} for {terminal.clean(label)!r}")
    if created.expires_in and created.expires_in < lifetime - _SLACK:
        terminal.say(
            f"It expires before {wanted.expires}, together with your sign-in. For a longer one, use --scope full, or "
            f"first run: polly login --expires {wanted.expires}"
        )
    terminal.say(
        f"It works until {tables.date(created.expires_at)}. To end it sooner: polly tokens revoke {created.id}"
    )


def _check_free(path: Path) -> None:
    """Raise UsageError for a file that has content, which the token would replace, or whose folder does not exist."""
    if not path.parent.is_dir():
        msg = f"--file {str(path)!r} can't be written: there is no folder {path.parent}."
        raise UsageError(msg)
    try:
        taken = path.is_file() and path.stat().st_size > 0
    except OSError:
        return  # writing the token reports it
    if taken:
        msg = f"--file {str(path)!r} exists and is not empty. Name a new file, or delete this one first."
        raise UsageError(msg)


def _client(call: Call, wanted: Wanted) -> Client:
    """Return the client that creates the token: the sign-in's, or for scope full one with the password."""
    session = call.session
    if wanted.scope == "registry":
        return session.client
    email = session.client.me().email
    if wanted.password_stdin:
        password = prompts.line_of_stdin("the password")
    else:
        password = call.need("--password-stdin", lambda: prompts.password("Enter your password"), account.STDIN)
    ca_file = session.stored.ca_file if session.stored else ""
    return Client(session.server, email=email, password=password, ca_file=ca_file)


def _hand_out(created: api_types.TokenCreated, file: str | None, output: str) -> None:
    """Print the token, or write its secret to the file. Raises OSError."""
    if file == _STDOUT:
        process.write_data(f"{created.token}\n")
        return
    if file is not None:
        files.replace(Path(file), f"{created.token}\n")
    shown = msgspec.to_builtins(created)
    if file is not None:
        del shown["token"]
    if output == "json":
        tables.document(shown)
    elif file is None:
        tables.show(_CREATED, [created])


def revoke(call: Call, token_id: str | None, *, yes: bool) -> None:
    """Revoke the access token whose id begins with ``token_id``, and delete Docker's cached tokens that end with it.

    Asks first if the token was chosen from a list, or if it is the one of this sign-in. Raises UsageError if the id is
    ambiguous or nobody can be asked, DeclinedError if the answer is no, and CommandError if there is no such token.
    """
    session = call.session
    items = session.client.tokens()
    given = token_id if token_id is not None else call.need("--id", lambda: _ask(items))
    found = [each for each in items if given and each.id.startswith(given)]
    exact = [each for each in found if each.id == given]
    if len(exact or found) > 1:
        msg = f"--id {given!r} is ambiguous: {', '.join(each.id for each in found)}. Give more characters."
        raise UsageError(msg)
    if not found:
        by_label = [each.id for each in items if given and each.label == given]
        if given.startswith("polly_"):
            msg = "--id takes the id of a token, not the token itself. polly tokens list shows the ids."
            raise UsageError(msg)
        if by_label:
            msg = f"--id takes an id, and {given!r} is the label of: {', '.join(by_label)}."
            raise UsageError(msg)
        msg = f"You have no access token whose id begins with {given!r}. polly tokens list shows your tokens."
        raise CommandError(msg)
    [item] = exact or found
    named = f"{item.id} ({terminal.clean(item.label) or 'no label'})"
    if not yes and (item.current or token_id is None):
        _confirm(call, item, named)
    session.client.revoke_token(item.id)
    call.remember("polly tokens revoke", id=item.id, yes=True)
    left = set() if item.current else {each.id for each in items if item.id not in {each.id, each.parent}}
    _delete_revoked(session, left)
    terminal.success(f"The access token {named} is revoked")
    if item.current:
        terminal.say(f"You were signed in with it here. To sign in again: polly login --server {session.server}")


def _delete_revoked(session: Session, good: set[str]) -> None:
    """Delete Docker's cached tokens that do not work any more, in every profile of this person."""
    credentials.delete_revoked(session.server, session.token, good)
    if session.stored is None:
        return
    for each in profiles.load().by_name.values():
        if profiles.same(each.server, session.server) and each.email == session.stored.email:
            credentials.delete_revoked(each.server, each.token, good)


def _confirm(call: Call, item: api_types.TokenItem, named: str) -> None:
    """Print what the token is used for, and ask whether to revoke it. Raises as ``Call.confirm``."""
    ends = "Programs that use it are signed out."
    if item.current:
        ends = "You are signed in with it on this computer, so this signs you and Docker out."
    terminal.say(f"This revokes the access token {named}, and all that were created with it. {ends}")
    call.confirm("Revoke it?", "No access token was revoked.", "revoke it")


def _ask(items: list[api_types.TokenItem]) -> str:
    """Ask which token to revoke, and return its id. The one of this sign-in is marked, and last."""
    names = [
        f"{each.id}  {terminal.clean(each.label)}{' (this one)' if each.current else ''}"
        for each in sorted(items, key=lambda each: each.current)
    ]
    return prompts.choose("Which access token do you want to revoke?", names).partition(" ")[0]
