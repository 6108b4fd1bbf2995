"""Organisations, users, members and access tokens: who is here, and how they sign in."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from polly_dockers import db
from polly_dockers.auth import permissions, refusals
from polly_dockers.auth.passwords import NOBODY, RESERVED
from polly_dockers.db.accounts import AccessToken, Member
from polly_dockers.db.audit import Event
from polly_dockers.db.sqlite import now
from polly_dockers.errors import (
    BadRequest,
    Busy,
    LastAdmin,
    MemberExists,
    MemberUnknown,
    OrganisationExists,
    OrganisationUnknown,
    TokenLimit,
    TokenUnknown,
    TooManyRequests,
    Unauthorized,
)
from polly_dockers.model import Actor, Role, parse_email, parse_slug

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context

log: Final = structlog.get_logger("polly.accounts")

PREFIX: Final = RESERVED
"""What every access token begins with, so that secret scanners find it."""

SECOND: Final = 1_000_000
TOKENS: Final = 1000
"""Access tokens of one user, at most."""
TOUCH: Final = 3600 * SECOND
"""How stale the time of a token's last use may be: a sign-in by it writes no more often."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user with the credential that they showed."""

    actor: Actor
    email: str
    token: AccessToken | None
    """None for a password."""


# --- signing in ------------------------------------------------------------------------------------------------


async def sign_in(context: Context, user: str, secret: str, address: str) -> SignedIn:
    """By an access token (whatever ``user`` says) or by email and password.

    Raises Unauthorized, the same for an unknown account and a wrong password and after the same work, and
    TooManyRequests for an account or an address with too many wrong passwords.
    """
    if secret.startswith(PREFIX):
        return await sign_in_by_token(context, secret, address)
    try:
        email = parse_email(user)
    except BadRequest:
        email = ""
    try:
        async with context.throttles.attempt(context.database, email, address) as attempt:
            found = await context.database.read(db.accounts.user, email)
            right = await context.passwords.verify(found.password_hash if found else NOBODY, secret)
            if not right:
                await attempt.failed(context.database)
    except Busy:  # nothing was checked, so nothing was refused
        raise
    except TooManyRequests:
        refusals.remember(context, email, address)
        raise
    if found is None or not right:
        refusals.remember(context, email, address)
        msg = (
            "Wrong email or password. A lost password is reset by who runs the server "
            "(polly-server user reset-password)."
        )
        raise Unauthorized(msg)

    def note(connection: Connection) -> None:
        attempt.forgive(connection)
        db.audit.append_for_account(connection, Event.sign_in, email, address)

    await context.write_aside("sign-ins to the audit log", note)  # who has the right password comes in all the same
    actor = Actor(user_id=found.id, password_version=found.password_version, grants=None, address=address)
    return SignedIn(actor, found.email, None)


async def sign_in_by_token(context: Context, secret: str, address: str) -> SignedIn:
    """By an access token; raises Unauthorized."""
    token = await context.database.read(db.accounts.token_by_hash, _hash(secret)) if secret.isascii() else None
    if token is None:
        raise permissions.ended()
    if token.last_used_at is None or abs(now() - token.last_used_at) > TOUCH:  # a clock may have been set back
        await context.write_aside("when a token was used", _touch, token, address)
    actor = Actor(user_id=token.user_id, access_token=token.id, grants=None, address=address)
    return SignedIn(actor, token.email, token)


def _touch(connection: Connection, token: AccessToken, address: str) -> None:
    db.accounts.touch_token(connection, token.id)
    _note_token(connection, Event.token_use, token, address)


def _note_token(connection: Connection, event: Event, token: AccessToken, address: str) -> None:
    db.audit.append_for_account(
        connection, event, token.email, address, subject=token.id, detail=token.scope, label=token.label
    )


def _hash(secret: str) -> bytes:
    """Access tokens are random, so one SHA-256 is enough for them."""
    return hashlib.sha256(secret.encode()).digest()


# --- access tokens ---------------------------------------------------------------------------------------------


async def create_token(
    context: Context, caller: SignedIn, *, scope: str, seconds: int, label: str, replaces: str = ""
) -> tuple[AccessToken, str]:
    """A new access token and its secret, which is shown this once.

    A full token gets tokens for the registry only, which end when it does; a password gets either. ``replaces`` is the
    secret of a token of the same user that ends in the same transaction. Raises BadRequest where that is the token
    that asks, and TokenLimit where the user has TOKENS and none is replaced.
    """
    at = now()
    expires_at = at + seconds * SECOND
    if caller.token is not None:
        if scope != "registry":
            msg = "A token of scope full is made with a password only: run polly login."
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

    def add(connection: Connection) -> None:
        if not permissions.alive(connection, caller.actor):
            raise permissions.ended()
        old = db.accounts.token_by_hash(connection, _hash(replaces)) if replaces.isascii() else None
        if old is not None and old.user_id != token.user_id:
            old = None
        if old is None and db.accounts.has_tokens(connection, token.user_id, TOKENS):
            msg = (
                f"You have {TOKENS:,} access tokens, as many as one person may have. "
                "polly tokens revoke ends one, polly password all."
            )
            raise TokenLimit(msg)
        db.accounts.add_token(connection, token, _hash(secret))
        _note_token(connection, Event.token_create, token, caller.actor.address)
        if old is not None:
            if old.id == token.parent_id:
                msg = "A token can't replace the one that the request is made with: ask with the password."
                raise BadRequest(msg)
            db.accounts.replace_token(connection, old, token)
            _note_token(connection, Event.token_revoke, old, caller.actor.address)

    await context.database.write(add)
    return token, secret


async def tokens(context: Context, caller: SignedIn, *, after: tuple[int, str] | None, limit: int) -> list[AccessToken]:
    """Up to ``limit`` of the caller's access tokens that are good now, newest first, behind (created_at, id)."""
    return await context.database.read(db.accounts.token_page, caller.actor.user_id or 0, after=after, limit=limit)


async def revoke_token(context: Context, caller: SignedIn, token_id: str) -> None:
    """Revoke one of the caller's tokens and those made with it; raises TokenUnknown."""

    def revoke(connection: Connection) -> None:
        if not db.accounts.delete_token(connection, caller.actor.user_id or 0, token_id):
            msg = "You have no access token of that id; it may have expired."
            raise TokenUnknown(msg)
        address = caller.actor.address
        db.audit.append_for_account(connection, Event.token_revoke, caller.email, address, subject=token_id)

    await context.database.write(revoke)


async def memberships(context: Context, caller: SignedIn) -> list[tuple[str, Role, int]]:
    """The caller's organisations, by slug, with the role in each and since when."""
    return await context.database.read(db.accounts.memberships, caller.actor.user_id or 0)


async def change_password(context: Context, caller: SignedIn, password: str) -> None:
    """Store another password for the caller; every access token of theirs ends."""
    hashed = await context.passwords.hash(password)

    def change(connection: Connection) -> None:
        if not permissions.alive(connection, caller.actor):
            raise permissions.ended()
        db.accounts.set_password(connection, caller.actor.user_id or 0, hashed)
        db.audit.append_for_account(connection, Event.password_change, caller.email, caller.actor.address)

    await context.database.write(change)


# --- members ---------------------------------------------------------------------------------------------------


async def members(
    context: Context, actor: Actor, organisation: str, *, after: str, newest_first: bool, limit: int
) -> tuple[list[Member], int]:
    """Up to ``limit`` members of the organisation in the order of their emails, and how many there are."""

    def query(connection: Connection) -> tuple[list[Member], int]:
        found, _ = permissions.member(connection, actor, organisation, Role.reader)
        return db.accounts.member_page(connection, found, after=after, newest_first=newest_first, limit=limit)

    return await context.database.read(query)


def put_member(
    connection: Connection,
    organisation_id: int,
    organisation: str,
    email: str,
    role: Role,
    password_hash: str,
    *,
    by: Actor | None,
) -> Member:
    """Insert the member, and the user where there is none; an invitation of theirs is over. Raises MemberExists."""
    known = db.accounts.user(connection, email)
    user_id = known.id if known is not None else db.accounts.add_user(connection, email, password_hash)
    if db.accounts.member(connection, organisation_id, email) is not None:
        raise is_member(email, organisation, operator=by is None)
    db.accounts.add_member(connection, organisation_id, user_id, role)
    db.invitations.delete_for(connection, organisation_id, email)
    db.audit.append(connection, Event.member_add, email, organisation_id=organisation_id, by=by, detail=role.name)
    made = db.accounts.member(connection, organisation_id, email)
    assert made is not None  # noqa: S101 - inserted in this transaction
    return made


def is_member(email: str, organisation: str, *, operator: bool = False) -> MemberExists:
    """The answer to whoever adds or invites a member again, or to who runs the server."""
    command = "polly-server user set-role" if operator else "polly members set-role"
    msg = f"{email} is a member of {organisation} already. {command} changes the role."
    return MemberExists(msg)


async def set_role(context: Context, actor: Actor, organisation: str, email: str, role: Role) -> Member:
    """Give a member another role; raises MemberUnknown, and LastAdmin where no admin would be left."""

    def change(connection: Connection) -> Member:
        found, _ = permissions.member(connection, actor, organisation, Role.admin)
        return change_role(connection, found, organisation, email, role, by=actor)

    return await context.database.write(change)


def change_role(
    connection: Connection, organisation_id: int, organisation: str, email: str, role: Role, *, by: Actor | None
) -> Member:
    """Set a member's role; the member with it. ``by`` None is who runs the server."""
    found = db.accounts.member(connection, organisation_id, email.strip().lower())
    if found is None:
        raise _not_member(connection, organisation_id, organisation, email, by=by)
    if role is not Role.admin:
        _check_admins(connection, organisation_id, organisation, found)
    db.accounts.set_role(connection, organisation_id, found.user_id, role)
    detail = f"{found.role.name} to {role.name}"
    db.audit.append(connection, Event.member_role, found.email, organisation_id=organisation_id, by=by, detail=detail)
    if role is not Role.admin:
        _revoke_invitations_of(connection, organisation_id, found, by=by)
    return Member(found.user_id, found.email, role, found.joined_at)


async def remove_member(context: Context, actor: Actor, organisation: str, email: str) -> None:
    """Remove a member, from their next request on, or an invitation; raises MemberUnknown and LastAdmin."""

    def change(connection: Connection) -> None:
        found, _ = permissions.member(connection, actor, organisation, Role.admin)
        take_out(connection, found, organisation, email, by=actor)

    await context.database.write(change)


def take_out(connection: Connection, organisation_id: int, organisation: str, email: str, *, by: Actor | None) -> None:
    """Remove a member, or revoke the invitation of who is none yet. ``by`` None is who runs the server."""
    email = email.strip().lower()
    found = db.accounts.member(connection, organisation_id, email)
    if found is None:
        if not revoke_invitation(connection, organisation_id, email, by=by):
            raise _not_member(connection, organisation_id, organisation, email, by=by)
        return
    _check_admins(connection, organisation_id, organisation, found)
    db.accounts.remove_member(connection, organisation_id, found.user_id)
    db.audit.append(connection, Event.member_remove, found.email, organisation_id=organisation_id, by=by)
    _revoke_invitations_of(connection, organisation_id, found, by=by)


def revoke_invitation(connection: Connection, organisation_id: int, email: str, *, by: Actor | None) -> bool:
    """Revoke the invitation of an email; False where there is none."""
    if not db.invitations.delete_for(connection, organisation_id, email):
        return False
    db.audit.append(connection, Event.member_uninvite, email, organisation_id=organisation_id, by=by)
    return True


def _revoke_invitations_of(connection: Connection, organisation_id: int, member: Member, *, by: Actor | None) -> None:
    """Revoke what somebody who is an admin no more has invited: else they could come back by a code of theirs."""
    for email in db.invitations.delete_by(connection, organisation_id, member.user_id):
        db.audit.append(
            connection,
            Event.member_uninvite,
            email,
            organisation_id=organisation_id,
            by=by,
            detail=f"invited by {member.email}",
        )


def _check_admins(connection: Connection, organisation_id: int, organisation: str, leaving: Member) -> None:
    """Raise LastAdmin where no admin would be left; who is invited is none yet."""
    if leaving.role is Role.admin and db.accounts.count_admins(connection, organisation_id) == 1:
        msg = f"{leaving.email} is the only admin of {organisation}; make another member admin first."
        raise LastAdmin(msg)


def _not_member(
    connection: Connection, organisation_id: int, organisation: str, email: str, *, by: Actor | None
) -> MemberUnknown:
    if db.invitations.find(connection, organisation_id, email.strip().lower()) is not None:
        next_ = "polly-server user add makes them a member" if by is None else "polly members add invites again"
        msg = f"{email[:100]} was invited to {organisation} and has not joined yet. {next_}."
        return MemberUnknown(msg)
    command = "polly-server user list" if by is None else "polly members list"
    msg = f"{email[:100]} is not a member of {organisation}. {command} shows who is."
    return MemberUnknown(msg)


# --- for who runs the server: no actor, for whoever holds the data folder may do all --------------------------------


def create_organisation(connection: Connection, slug: str, *, create_on_push: bool = False) -> int:
    """Make an organisation; its id. Raises NameInvalid and OrganisationExists."""
    slug = parse_slug(slug)
    if db.accounts.organisation_id(connection, slug) is not None:
        msg = f"There is an organisation {slug} already. polly-server org list shows all."
        raise OrganisationExists(msg)
    made = db.accounts.add_organisation(connection, slug)
    db.audit.append(connection, Event.organisation_create, slug, organisation_id=made, by=None)
    if create_on_push:
        db.accounts.set_create_on_push(connection, made, on=True)
    return made


def organisation_totals(connection: Connection, slug: str) -> str:
    """What an organisation holds, in words. Raises OrganisationUnknown."""
    found = db.accounts.organisation_totals(connection, organisation_of(connection, slug))
    repositories = "1 repository" if found.repositories == 1 else f"{found.repositories} repositories"
    return f"{repositories} and {found.members} member{'' if found.members == 1 else 's'}"


def organisation_of(connection: Connection, slug: str) -> int:
    """The id of an organisation; raises OrganisationUnknown."""
    found = db.accounts.organisation_id(connection, slug)
    if found is None:
        msg = f"There is no organisation {slug[:100]!r}. polly-server org list shows all; org create makes one."
        raise OrganisationUnknown(msg)
    return found
