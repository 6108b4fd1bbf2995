"""Rows of invitations: who may join which organisation in which role. Only a hash of the code is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, insert, select

from polly_dockers.db import clock
from polly_dockers.db.schema import invitations, organisations
from polly_dockers.db.sqlite import now
from polly_dockers.model import Role
from polly_dockers.system.durations import SECONDS_PER_DAY

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True)
class Invitation:
    """A valid invitation."""

    organisation_id: int
    organisation: str
    """The slug of the organisation."""
    email: str
    role: Role
    created_at: int
    expires_at: int


_INVITATION: Final = (
    select(
        invitations.c.organisation_id,
        organisations.c.slug,
        invitations.c.email,
        invitations.c.role,
        invitations.c.created_at,
        invitations.c.expires_at,
    )
    .join(organisations, organisations.c.id == invitations.c.organisation_id)
    .where(organisations.c.deleted_at.is_(None))
)


def _made(row: Row[*tuple[Any, ...]]) -> Invitation:
    return Invitation(row.organisation_id, row.slug, row.email, Role(row.role), row.created_at, row.expires_at)


def put(
    connection: Connection,
    organisation: int,
    email: str,
    role: Role,
    *,
    by: int | None,
    code_hash: bytes,
    lifetime: int,
) -> None:
    """Insert an invitation that is valid for ``lifetime`` microseconds; it replaces an older one.

    Invitations that expired more than a day ago are deleted. The day is for a wrong clock, which may be corrected.
    """
    at, expired = now(), clock.ago(connection, SECONDS_PER_DAY)
    mine = invitations.c.organisation_id == organisation
    over = (invitations.c.email == email) | (invitations.c.expires_at <= expired)
    connection.execute(delete(invitations).where(mine, over))
    made = {
        "organisation_id": organisation,
        "email": email,
        "role": int(role),
        "code_hash": code_hash,
        "created_at": at,
        "expires_at": at + lifetime,
        "invited_by": by,
    }
    connection.execute(insert(invitations), made)


def by_code(connection: Connection, code_hash: bytes) -> Invitation | None:
    """The valid invitation whose code has this SHA-256; None if there is none, or its organisation is deleted."""
    query = _INVITATION.where(invitations.c.code_hash == code_hash, invitations.c.expires_at > now())
    row = connection.execute(query).first()
    return _made(row) if row is not None else None


def find(connection: Connection, organisation: int, email: str) -> Invitation | None:
    """The valid invitation of an email to an organisation; None if there is none."""
    same = (invitations.c.organisation_id == organisation) & (invitations.c.email == email)
    row = connection.execute(_INVITATION.where(same, invitations.c.expires_at > now())).first()
    return _made(row) if row is not None else None


def delete_for(connection: Connection, organisation: int, email: str) -> bool:
    """Delete the invitation of an email to an organisation; False if there is no valid one."""
    found = find(connection, organisation, email) is not None
    same = (invitations.c.organisation_id == organisation) & (invitations.c.email == email)
    connection.execute(delete(invitations).where(same))
    return found


def delete_by(connection: Connection, organisation: int, user: int) -> list[str]:
    """Delete a user's invitations to an organisation; returns the emails of the valid ones."""
    mine = (invitations.c.organisation_id == organisation) & (invitations.c.invited_by == user)
    good = select(invitations.c.email).where(mine, invitations.c.expires_at > now()).order_by(invitations.c.email)
    found = list(connection.execute(good).scalars())
    connection.execute(delete(invitations).where(mine))
    return found


def count(connection: Connection, organisation: int) -> int:
    """The number of valid invitations to an organisation."""
    mine = (invitations.c.organisation_id == organisation) & (invitations.c.expires_at > now())
    return connection.execute(select(func.count()).select_from(invitations).where(mine)).scalar_one()


def page(
    connection: Connection, organisation: int, *, after: str, newest_first: bool, limit: int
) -> tuple[list[Invitation], int]:
    """The invitations after an email, in the order of the emails, and how many there are in all.

    With ``newest_first`` the order is reversed.
    """
    query = _INVITATION.where(invitations.c.organisation_id == organisation, invitations.c.expires_at > now())
    if after:
        query = query.where(invitations.c.email < after if newest_first else invitations.c.email > after)
    order = invitations.c.email.desc() if newest_first else invitations.c.email
    rows = connection.execute(query.order_by(order).limit(limit)).all()
    return [_made(row) for row in rows], count(connection, organisation)
