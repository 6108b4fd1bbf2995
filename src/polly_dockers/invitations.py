"""Invitations: an admin makes a code for an email, and who has both joins the organisation with it, once.

The admin chooses no password and makes no account: until the code is redeemed there is nothing but the invitation, and
what the admin is answered is the same for every email. A code is bound to its organisation and its email, random, good
for LIFETIME, kept as a hash, and can be revoked; it ends when who made it is an admin no more. Wrong codes count as
wrong passwords do.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING, Final

from polly_dockers import access, accounts, passwords, refusals
from polly_dockers.db import accounts as account_rows
from polly_dockers.db import audit as audit_rows
from polly_dockers.db import invitations as rows
from polly_dockers.db.audit import Event
from polly_dockers.errors import (
    BadRequest,
    Busy,
    InvitationUnknown,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from polly_dockers.model import Actor, Role, parse_email

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from polly_dockers.accounts import SignedIn
    from polly_dockers.db.accounts import User
    from polly_dockers.db.invitations import Invitation
    from polly_dockers.registry import Registry
    from polly_dockers.throttles import Attempt

PREFIX: Final = "invite-"
"""What every code begins with, so that people and secret scanners know what it is."""
LIFETIME: Final = 7 * 86_400 * 1_000_000
PENDING: Final = 1000
"""Invitations of an organisation that wait to be redeemed, at most."""


def _new_code() -> str:
    """A code of 160 random bits, in letters and digits that survive being read out."""
    return PREFIX + base64.b32encode(secrets.token_bytes(20)).decode().lower()


def _hash(code: str) -> bytes:
    """Codes are random, so one SHA-256 is enough for them."""
    return hashlib.sha256(code.strip().encode("utf-8", "replace")).digest()


async def invite(
    registry: Registry, actor: Actor, organisation: str, *, email: str, role: Role
) -> tuple[Invitation, str]:
    """An invitation and its code, which is shown this once; one that the email had before is revoked. For admins.

    Raises MemberExists for a member, and BadRequest where PENDING invitations wait. The answer and the work are the
    same whether the email has an account or not.
    """
    email = parse_email(email)
    code = _new_code()

    def change(connection: Connection) -> Invitation:
        found, _ = access.member(connection, actor, organisation, Role.admin)
        if account_rows.member(connection, found, email) is not None:
            raise accounts.is_member(email, organisation)
        if rows.count(connection, found) >= PENDING:
            msg = f"{PENDING} invitations to {organisation} wait already. Revoke some: polly members invitations."
            raise BadRequest(msg)
        rows.put(connection, found, email, role, by=actor.user_id, code_hash=_hash(code), lifetime=LIFETIME)
        audit_rows.note(connection, Event.member_invite, email, organisation_id=found, by=actor, detail=role.name)
        made = rows.find(connection, found, email)
        assert made is not None  # noqa: S101 - inserted in this transaction
        return made

    return await registry.database.write(change), code


async def pending(
    registry: Registry, actor: Actor, organisation: str, *, after: str, newest_first: bool, limit: int
) -> tuple[list[Invitation], int]:
    """Up to ``limit`` invitations in the order of their emails, and how many wait. For members."""

    def query(connection: Connection) -> tuple[list[Invitation], int]:
        found, _ = access.member(connection, actor, organisation, Role.reader)
        return rows.page(connection, found, after=after, newest_first=newest_first, limit=limit)

    return await registry.database.read(query)


async def revoke(registry: Registry, actor: Actor, organisation: str, email: str) -> None:
    """Revoke an invitation; raises InvitationUnknown. For admins."""

    def change(connection: Connection) -> None:
        found, _ = access.member(connection, actor, organisation, Role.admin)
        if not accounts.revoke_invitation(connection, found, email.strip().lower(), by=actor):
            msg = f"No invitation of {email[:100]} to {organisation} waits. polly members invitations lists them."
            raise InvitationUnknown(msg)

    await registry.database.write(change)


async def accept(registry: Registry, caller: SignedIn, code: str, address: str) -> Invitation:
    """Redeem a code for who is signed in; the invitation. Raises InvitationUnknown, and TooManyRequests."""

    def who(connection: Connection) -> int:
        if not access.alive(connection, caller.actor):
            raise access.ended()
        return caller.actor.user_id or 0

    try:
        async with registry.throttles.attempt(registry.database, caller.email, address) as attempt:
            found = await _find(registry, attempt, code, caller.email)
    except Busy:  # nothing was checked, so nothing was refused
        raise
    except TooManyRequests:
        refusals.remember(registry, caller.email, address)
        raise
    if found is None:
        raise _unknown(registry, caller.email, address)
    return await registry.database.write(_join, attempt, code, caller.email, address, who)


async def accept_with_password(registry: Registry, code: str, email: str, password: str, address: str) -> Invitation:
    """Redeem a code with the password of the account, or with that of a new account, which is made then.

    Nothing is checked of the password before the code has turned out to be right, and then first whether any account
    takes it: a password that is none must not tell whether there is an account. Raises InvitationUnknown, Unauthorized
    for another password than the account has, BadRequest for one that no account takes, and TooManyRequests after too
    many wrong codes and passwords.
    """
    email = parse_email(email)
    hashed, known = "", None
    try:
        async with registry.throttles.attempt(registry.database, email, address) as attempt:
            found = await _find(registry, attempt, code, email)
            if found is not None:
                passwords.checked(password)
                known = await registry.database.read(account_rows.user, email)
                if known is None:
                    hashed = await registry.passwords.hash(password)
                else:
                    await _check(registry, attempt, known, password)
    except Busy:  # as above
        raise
    except (TooManyRequests, Unauthorized):
        refusals.remember(registry, email, address)
        raise
    if found is None:
        raise _unknown(registry, email, address)

    def who(connection: Connection) -> int:
        now_known = account_rows.user(connection, email)
        if now_known is None and known is None:
            return account_rows.add_user(connection, email, hashed)
        if now_known is None or known is None or now_known.password_version != known.password_version:
            msg = f"The account of {email} was changed meanwhile; try again."
            raise Unavailable(msg)
        return now_known.id

    return await registry.database.write(_join, attempt, code, email, address, who)


async def _find(registry: Registry, attempt: Attempt, code: str, email: str) -> Invitation | None:
    found = await registry.database.read(rows.by_code, _hash(code))
    if found is None or found.email != email:
        await attempt.failed(registry.database)
        return None
    return found


async def _check(registry: Registry, attempt: Attempt, known: User, password: str) -> None:
    if not await registry.passwords.verify(known.password_hash, password):
        await attempt.failed(registry.database)
        msg = (
            f"{known.email} has an account on this server, with another password. Give the password of that account; a "
            "lost one is reset by the server's operator (polly-server user reset-password)."
        )
        raise Unauthorized(msg)


def _join(
    connection: Connection, attempt: Attempt, code: str, email: str, address: str, who: Callable[[Connection], int]
) -> Invitation:
    found = rows.by_code(connection, _hash(code))
    if found is None or found.email != email:
        raise _not_valid(email)
    if account_rows.member(connection, found.organisation_id, email) is not None:
        raise accounts.is_member(email, found.organisation)
    user_id = who(connection)
    account_rows.add_member(connection, found.organisation_id, user_id, found.role)
    rows.delete_for(connection, found.organisation_id, email)
    attempt.forgive(connection)
    by = Actor(user_id=user_id, address=address)
    audit_rows.note(
        connection, Event.member_accept, email, organisation_id=found.organisation_id, by=by, detail=found.role.name
    )
    return found


def _unknown(registry: Registry, email: str, address: str) -> InvitationUnknown:
    refusals.remember(registry, email, address)
    return _not_valid(email)


def _not_valid(email: str) -> InvitationUnknown:
    msg = (
        f"This code is not valid for {email}: it is mistyped or for another email, was used or revoked, or has "
        "expired. Ask the admin who invited you for a new one: polly members add."
    )
    return InvitationUnknown(msg)
