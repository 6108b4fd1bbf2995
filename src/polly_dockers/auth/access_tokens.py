"""Access tokens: the long-lived secrets of a user, stored as hashes. ``polly`` and CI jobs sign in with them."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.db.accounts import AccessToken
from polly_dockers.db.audit import Event
from polly_dockers.db.sqlite import now
from polly_dockers.errors import BadRequest, TokenLimit, TokenUnknown
from polly_dockers.password_rules import RESERVED
from polly_dockers.system.durations import HOUR, SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.context import Context

PREFIX: Final = RESERVED
"""Every access token begins with this, so that secret scanners recognise it."""

MAX_TOKENS: Final = 1000
"""Access tokens that one user may have at a time."""
USE_INTERVAL: Final = HOUR
"""Microseconds between two records of a token's last use: signing in more often writes nothing."""


async def find(context: Context, secret: str, address: str) -> AccessToken:
    """The valid access token with this secret. Its use from ``address`` is recorded. Raises Unauthorized."""
    token = await context.database.read(db.accounts.token_by_hash, _hash(secret)) if secret.isascii() else None
    if token is None:
        raise permissions.credential_ended()
    if token.last_used_at is None or abs(now() - token.last_used_at) > USE_INTERVAL:  # the clock may have been set back
        await context.write_aside("when a token was used", _record_use, token, address)
    return token


def _record_use(connection: Connection, token: AccessToken, address: str) -> None:
    db.accounts.touch_token(connection, token.id)
    _append_to_audit(connection, Event.token_use, token, address)


def _append_to_audit(connection: Connection, event: Event, token: AccessToken, address: str) -> None:
    db.audit.append_for_account(
        connection, event, token.email, address, subject=token.id, detail=token.scope, label=token.label
    )


def _hash(secret: str) -> bytes:
    """The hash to store. Access tokens are random, so one SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).digest()


async def create(
    context: Context, caller: SignedIn, *, scope: str, seconds: int, label: str, replaces: str = ""
) -> tuple[AccessToken, str]:
    """Create an access token. Returns it and its secret, which is not stored.

    A caller with a password gets a token of either scope. A caller with a full token gets the scope ``registry`` only,
    and the new token expires no later than theirs. ``replaces`` is the secret of another token of the same user, which
    is revoked in the same transaction.

    Raises BadRequest if ``replaces`` is the token of this request, and TokenLimit if the user has MAX_TOKENS already.
    """
    at = now()
    expires_at = at + seconds * SECOND
    if caller.token is not None:
        if scope != "registry":
            msg = "Only a password can create an access token of scope full. Run polly login."
            raise BadRequest(msg)
        expires_at = min(expires_at, caller.token.expires_at)
    token = AccessToken(
        id=secrets.token_hex(8),
        user_id=caller.actor.user_id or 0,
        email=caller.email,
        scope=scope,
        label=label,
        created_at=at,
        expires_at=expires_at,
        last_used_at=None,
        parent_id=caller.token.id if caller.token else None,
    )
    secret = PREFIX + secrets.token_urlsafe(32)
    await context.database.write(_insert, caller, token, _hash(secret), replaces)
    return token, secret


def _insert(connection: Connection, caller: SignedIn, token: AccessToken, hashed: bytes, replaces: str) -> None:
    permissions.require_alive(connection, caller.actor)
    old = db.accounts.token_by_hash(connection, _hash(replaces)) if replaces.isascii() else None
    if old is not None and old.user_id != token.user_id:
        old = None
    if old is None and db.accounts.has_tokens(connection, token.user_id, MAX_TOKENS):
        msg = (
            f"You have {MAX_TOKENS:,} access tokens, the most that one user may have. "
            "polly tokens revoke revokes one of them; polly password revokes all."
        )
        raise TokenLimit(msg)
    db.accounts.add_token(connection, token, hashed)
    _append_to_audit(connection, Event.token_create, token, caller.actor.address)
    if old is not None:
        if old.id == token.parent_id:
            msg = "A request cannot replace the access token that it is made with. Use the password instead."
            raise BadRequest(msg)
        db.accounts.replace_token(connection, old, token)
        _append_to_audit(connection, Event.token_revoke, old, caller.actor.address)


async def page(context: Context, caller: SignedIn, *, after: tuple[int, str] | None, limit: int) -> list[AccessToken]:
    """Up to ``limit`` of the caller's valid access tokens, newest first, after (created_at, id) of one of them."""
    return await context.database.read(db.accounts.token_page, caller.actor.user_id or 0, after=after, limit=limit)


async def revoke(context: Context, caller: SignedIn, token_id: str) -> None:
    """Revoke one of the caller's access tokens, and the tokens created with it. Raises TokenUnknown."""

    def delete(connection: Connection) -> None:
        if not db.accounts.delete_token(connection, caller.actor.user_id or 0, token_id):
            msg = "You have no access token with this id; it may have expired. polly tokens list shows yours."
            raise TokenUnknown(msg)
        address = caller.actor.address
        db.audit.append_for_account(connection, Event.token_revoke, caller.email, address, subject=token_id)

    await context.database.write(delete)
