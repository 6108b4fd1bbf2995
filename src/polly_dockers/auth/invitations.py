"""Invitations: an admin creates a code for an email address, and the person with that address joins with it, once.

The admin creates no account and chooses no password, and gets the same response whether the email has an account or
not. A code is random, belongs to one organisation and one email, and is stored as a hash. It expires after LIFETIME,
when it is revoked, or when its creator is no longer an admin. Wrong codes count like wrong passwords.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.auth import members, passwords, permissions, refusals
from polly_dockers.db.audit import Event
from polly_dockers.errors import BadRequest, InvitationUnknown, Unauthorized, Unavailable
from polly_dockers.model import Actor, Role, parse_email
from polly_dockers.system.durations import DAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.auth.throttles import Attempt
    from polly_dockers.context import Context
    from polly_dockers.db.accounts import User
    from polly_dockers.db.invitations import Invitation

PREFIX: Final = "invite-"
"""Every code begins with this, so that people and secret scanners recognise it."""
LIFETIME: Final = 7 * DAY
MAX_PENDING: Final = 1000
"""Open invitations of an organisation, at most."""


def _new_code() -> str:
    """A code of 160 random bits, in lower-case letters and digits that can be read aloud."""
    return PREFIX + base64.b32encode(secrets.token_bytes(20)).decode().lower()


def _hash(code: str) -> bytes:
    """The hash to store. Codes are random, so one SHA-256 is enough."""
    return hashlib.sha256(code.strip().encode("utf-8", "replace")).digest()


async def invite(
    context: Context, actor: Actor, organisation: str, *, email: str, role: Role
) -> tuple[Invitation, str]:
    """Create an invitation; returns it and its code, which is not stored. For admins.

    An earlier invitation of the email is replaced. Response and work are the same whether the email has an account or
    not. Raises MemberExists, and BadRequest if there are MAX_PENDING open invitations.
    """
    email = parse_email(email)
    code = _new_code()

    def change(connection: Connection) -> Invitation:
        org_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        if db.accounts.member(connection, org_id, email) is not None:
            raise members.already_member(email, organisation)
        if db.invitations.count(connection, org_id) >= MAX_PENDING:
            msg = (
                f"{MAX_PENDING} invitations to {organisation} are open, the most that are allowed. Revoke some: "
                "polly members invitations lists them."
            )
            raise BadRequest(msg)
        db.invitations.put(connection, org_id, email, role, by=actor.user_id, code_hash=_hash(code), lifetime=LIFETIME)
        db.audit.append(connection, Event.member_invite, email, organisation_id=org_id, by=actor, detail=role.name)
        made = db.invitations.find(connection, org_id, email)
        assert made is not None  # noqa: S101 - inserted in this transaction
        return made

    return await context.database.write(change), code


async def pending(
    context: Context, actor: Actor, organisation: str, *, after: str, newest_first: bool, limit: int
) -> tuple[list[Invitation], int]:
    """Up to ``limit`` open invitations in the order of their emails, and how many there are. For members."""

    def query(connection: Connection) -> tuple[list[Invitation], int]:
        org_id, _ = permissions.require_role(connection, actor, organisation, Role.reader)
        return db.invitations.page(connection, org_id, after=after, newest_first=newest_first, limit=limit)

    return await context.database.read(query)


async def revoke(context: Context, actor: Actor, organisation: str, email: str) -> None:
    """Revoke an invitation. For admins. Raises InvitationUnknown."""

    def change(connection: Connection) -> None:
        org_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        if not members.revoke_invitation(connection, org_id, email.strip().lower(), by=actor):
            msg = (
                f"There is no open invitation of {email[:100]} to {organisation}. "
                "polly members invitations lists the open ones."
            )
            raise InvitationUnknown(msg)

    await context.database.write(change)


async def accept(context: Context, caller: SignedIn, code: str, address: str) -> Invitation:
    """Redeem a code for a signed-in user; returns the invitation. Raises InvitationUnknown and TooManyRequests."""

    def who(connection: Connection) -> int:
        permissions.require_alive(connection, caller.actor)
        return caller.actor.user_id or 0

    async with refusals.attempt(context, caller.email, address) as attempt:
        found = await _find(context, attempt, code, caller.email)
    if found is None:
        raise _unknown(context, caller.email, address)
    return await context.database.write(_join, attempt, code, caller.email, address, who)


async def accept_with_password(context: Context, code: str, email: str, password: str, address: str) -> Invitation:
    """Redeem a code with the password of the account, or with the password of a new account, which is then created.

    The password is not checked before the code was right. Then it is first checked whether the password is allowed at
    all, so that a password that is not allowed does not reveal whether there is an account.

    Raises InvitationUnknown, Unauthorized if the account has another password, BadRequest for a password that is not
    allowed, and TooManyRequests after too many wrong codes and passwords.
    """
    email = parse_email(email)
    hashed, known = "", None
    async with refusals.attempt(context, email, address) as attempt:
        found = await _find(context, attempt, code, email)
        if found is not None:
            passwords.checked(password)
            known = await context.database.read(db.accounts.user, email)
            if known is None:
                hashed = await context.passwords.hash(password)
            else:
                await _check(context, attempt, known, password)
    if found is None:
        raise _unknown(context, email, address)

    def who(connection: Connection) -> int:
        now_known = db.accounts.user(connection, email)
        if now_known is None and known is None:
            return db.accounts.add_user(connection, email, hashed)
        if now_known is None or known is None or now_known.password_version != known.password_version:
            msg = f"The account of {email} was changed at the same time. Try again."
            raise Unavailable(msg)
        return now_known.id

    return await context.database.write(_join, attempt, code, email, address, who)


async def _find(context: Context, attempt: Attempt, code: str, email: str) -> Invitation | None:
    found = await context.database.read(db.invitations.by_code, _hash(code))
    if found is None or found.email != email:
        await attempt.failed(context.database)
        return None
    return found


async def _check(context: Context, attempt: Attempt, known: User, password: str) -> None:
    if not await context.passwords.verify(known.password_hash, password):
        await attempt.failed(context.database)
        msg = (
            f"{known.email} already has an account on this server, with another password. If it is yours, give its "
            "password. If you did not create it, somebody else did, who was invited by that email. Then, or if you "
            "lost the password, ask the server's operator to run polly-server user reset-password. The code stays "
            "valid."
        )
        raise Unauthorized(msg)


def _join(
    connection: Connection, attempt: Attempt, code: str, email: str, address: str, who: Callable[[Connection], int]
) -> Invitation:
    found = db.invitations.by_code(connection, _hash(code))
    if found is None or found.email != email:
        raise _not_valid(email)
    if db.accounts.member(connection, found.organisation_id, email) is not None:
        raise members.already_member(email, found.organisation)
    user_id = who(connection)
    db.accounts.add_member(connection, found.organisation_id, user_id, found.role)
    db.invitations.delete_for(connection, found.organisation_id, email)
    attempt.forgive(connection)
    by = Actor(user_id=user_id, address=address)
    db.audit.append(
        connection, Event.member_accept, email, organisation_id=found.organisation_id, by=by, detail=found.role.name
    )
    return found


def _unknown(context: Context, email: str, address: str) -> InvitationUnknown:
    refusals.remember(context, email, address)
    return _not_valid(email)


def _not_valid(email: str) -> InvitationUnknown:
    msg = (
        f"This code is not valid for {email}. It may be mistyped, for another email, used, revoked or expired. Ask the "
        "admin who invited you to run polly members add again, and to give you the new code."
    )
    return InvitationUnknown(msg)
