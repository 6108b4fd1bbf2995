"""Signing in with a password or an access token, and changing the password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth import access_tokens, permissions, refusals
from polly_dockers.auth.passwords import NOBODY
from polly_dockers.db.audit import Event
from polly_dockers.errors import BadRequest, Unauthorized
from polly_dockers.model import Actor, parse_email

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.accounts import AccessToken


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user and the credential that they signed in with."""

    actor: Actor
    email: str
    token: AccessToken | None
    """None for a password."""


async def sign_in(context: Context, user: str, secret: str, address: str) -> SignedIn:
    """Sign in with an access token (``user`` is then ignored), or with an email address and a password.

    Raises Unauthorized. An unknown account and a wrong password get the same message after the same work. Raises
    TooManyRequests after too many wrong passwords for the account or from the address.
    """
    if secret.startswith(access_tokens.PREFIX):
        return await by_token(context, secret, address)
    try:
        email = parse_email(user)
    except BadRequest:
        email = ""
    async with refusals.attempt(context, email, address) as attempt:
        account = await context.database.read(db.accounts.user, email)
        right = await context.passwords.verify(account.password_hash if account else NOBODY, secret)
        if not right:
            await attempt.failed(context.database)
    if account is None or not right:
        refusals.remember(context, email, address)
        msg = (
            "Wrong email or password. If you lost the password, ask the server's operator to run "
            "polly-server user reset-password."
        )
        raise Unauthorized(msg, known=True)

    def record(connection: Connection) -> None:
        attempt.forgive(connection)
        db.audit.append_for_account(connection, Event.sign_in, email, address)

    await context.write_aside("sign-ins to the audit log", record)  # a full disk keeps nobody out
    actor = Actor(user_id=account.id, password_version=account.password_version, grants=None, address=address)
    return SignedIn(actor, account.email, None)


async def by_token(context: Context, secret: str, address: str) -> SignedIn:
    """Sign in with an access token. Raises Unauthorized."""
    token = await access_tokens.find(context, secret, address)
    actor = Actor(user_id=token.user_id, access_token=token.id, grants=None, address=address)
    return SignedIn(actor, token.email, token)


async def change_password(context: Context, caller: SignedIn, password: str) -> None:
    """Store a new password for the caller, and delete all of their access tokens. Raises BadRequest, Unauthorized."""
    hashed = await context.passwords.hash(password)

    def change(connection: Connection) -> None:
        permissions.require_alive(connection, caller.actor)
        db.accounts.set_password(connection, caller.actor.user_id or 0, hashed)
        db.audit.append_for_account(connection, Event.password_change, caller.email, caller.actor.address)

    await context.database.write(change)
