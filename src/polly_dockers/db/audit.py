"""Rows of the audit log: who did what from where, written in the transaction that did it; and the chain of hashes.

An entry is appended and never changed. Some seconds later it is sealed. It gets its position in the chain, and a hash
over itself and the previous hash. So an entry that was altered, removed or inserted is noticed. Sealing is a separate
step, so that pushes do not wait for each other's hash. The newest seal is also in the journal, so that a log that lost
its last entries is noticed too.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, update

from polly_dockers.db.journal import records, state
from polly_dockers.db.journal.records import Sealed
from polly_dockers.db.schema import audit, audit_start, members, organisations, users
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.system.durations import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Row
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

    from polly_dockers.model import Actor

SCANNED: Final = 2000
"""The most entries that are read for one page: some milliseconds."""
AT_ONCE: Final = 500
"""The most entries that one transaction seals."""
DROPPED: Final = 2000
"""The most entries that one transaction drops."""
START: Final = bytes(32)
"""The previous hash of the first entry."""
OPERATOR: Final = "polly-server"
"""The author of what was done by polly-server commands."""
POLICY: Final = "policy"
"""The author of what a retention policy did."""


class Event(enum.StrEnum):
    """Kinds of entries."""

    sign_in = "sign-in"
    sign_in_refused = "sign-in-refused"
    password_change = "password-change"  # noqa: S105 - no password
    token_create = "token-create"  # noqa: S105 - no password
    token_use = "token-use"  # noqa: S105 - no password
    token_revoke = "token-revoke"  # noqa: S105 - no password
    push = "push"
    delete = "delete"
    expire = "expire"
    restore = "restore"
    purge = "purge"
    repository_create = "repository-create"
    repository_update = "repository-update"
    policy_update = "policy-update"
    member_add = "member-add"
    member_invite = "member-invite"
    member_uninvite = "member-uninvite"
    member_accept = "member-accept"
    member_role = "member-role"
    member_remove = "member-remove"
    organisation_create = "organisation-create"
    organisation_update = "organisation-update"
    key_rotate = "key-rotate"
    audit_drop = "audit-drop"


TOKEN_EVENTS: Final = (Event.token_create, Event.token_use, Event.token_revoke)


_COLUMNS: Final = (
    audit.c.id,
    audit.c.at,
    audit.c.organisation_id,
    audit.c.event,
    audit.c.by,
    audit.c.address,
    audit.c.subject,
    audit.c.detail,
)
_ADD: Final = Statement(
    insert(audit).returning(audit.c.id),
    *("at", "organisation_id", "event", "by", "address", "subject", "detail"),
)
_EMAIL: Final = Statement(select(users.c.email).where(users.c.id == bindparam("user_id")))


def append(
    connection: Connection,
    event: Event,
    subject: str,
    *,
    organisation_id: int | None,
    by: Actor | None,
    detail: str = "",
) -> None:
    """Append an entry by a signed-in user; ``by`` is None for the operator of the server."""
    email, address = OPERATOR, ""
    if by is not None:
        found = _EMAIL.first(connection, {"user_id": by.user_id})
        email, address = found.email if found is not None else "", by.address
    append_as(connection, event, subject, organisation_id=organisation_id, by=email, address=address, detail=detail)


def append_as(
    connection: Connection,
    event: Event,
    subject: str,
    *,
    organisation_id: int | None,
    by: str,
    address: str,
    detail: str,
) -> None:
    """Append an entry; ``by`` is an email, OPERATOR or POLICY."""
    values: dict[str, Any] = {
        "at": now(),
        "organisation_id": organisation_id,
        "event": event.value,
        "by": by,
        "address": address,
        "subject": subject,
        "detail": detail,
    }
    records.add(connection, records.Audited(_ADD.first(connection, values).id, **values))


def append_for_account(
    connection: Connection,
    event: Event,
    email: str,
    address: str,
    *,
    by: str | None = None,
    subject: str = "",
    detail: str = "",
    label: str = "",
) -> None:
    """Append an entry about an account to each of its organisations, or a single one if it has none.

    ``by`` is who did it, if not the account itself. ``label`` is the account's name for one of its tokens. A label may
    give one organisation's business away to another, so it is only written for an account with one organisation.
    """
    query = (
        select(members.c.organisation_id)
        .join(users, users.c.id == members.c.user_id)
        .join(organisations, organisations.c.id == members.c.organisation_id)
        .where(users.c.email == email, organisations.c.deleted_at.is_(None))
        .order_by(members.c.organisation_id)
    )
    concerned = list(connection.execute(query).scalars()) or [None]
    if label and len(concerned) == 1:
        detail = f"{detail}: {label}"
    for organisation_id in concerned:
        append_as(
            connection, event, subject, organisation_id=organisation_id, by=by or email, address=address, detail=detail
        )


def may_have_set(connection: Connection, organisation_id: int, setting: str) -> bool:
    """Whether a repository of the organisation may ever have had a setting, such as ``access: public``.

    True if an update to it is in the log, and if entries of the log were dropped.
    """
    mine = (audit.c.organisation_id == organisation_id) & (audit.c.event == Event.repository_update.value)
    query = select(audit.c.id).where(mine, audit.c.detail.contains(setting, autoescape=True)).limit(1)
    return start(connection).position > 0 or connection.execute(query).first() is not None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter for entries; the default matches all."""

    event: str | None = None
    token_events: bool = True
    """Whether to include entries about access tokens, of which machines write very many."""
    by: str | None = None
    """The email of a user, OPERATOR or POLICY."""
    path: str | None = None
    """The path of a repository, without the host: entries about it and about anything in it."""
    since: int | None = None
    until: int | None = None
    """An exclusive limit, in microseconds."""


EVERYTHING: Final = Wanted()
_NEVER: Final = (1 << 63) - 1


def page(
    connection: Connection,
    organisation_id: int | None,
    *,
    wanted: Wanted = EVERYTHING,
    newest_first: bool = True,
    after: int | None = None,
    limit: int,
) -> tuple[list[records.Audited], int | None]:
    """A keyset page of an organisation's entries, or of all entries, and the cursor of the next page.

    At most SCANNED entries are read. So a page may have fewer than ``limit`` entries, or none, although more follow.
    """
    query = select(*_COLUMNS)
    if organisation_id is not None:
        query = query.where(audit.c.organisation_id == organisation_id)
    if wanted.event is not None:
        query = query.where(audit.c.event == wanted.event)
    if wanted.since is not None:
        query = query.where(audit.c.id >= _first_since(wanted.since - DAY))
    if wanted.until is not None:
        query = query.where(audit.c.id <= _last_until(wanted.until + DAY))
    if after is not None:
        query = query.where(audit.c.id < after if newest_first else audit.c.id > after)
    looked = query.order_by(audit.c.id.desc() if newest_first else audit.c.id).limit(SCANNED).subquery()
    chosen = select(looked).where(*_narrowed(looked.c, wanted))
    rows = connection.execute(chosen.order_by(looked.c.id.desc() if newest_first else looked.c.id).limit(limit + 1))
    found = [records.Audited(*row) for row in rows]
    if len(found) > limit:
        return found[:limit], found[limit - 1].id
    ends = select(func.count(), func.min(looked.c.id) if newest_first else func.max(looked.c.id))
    count, last = connection.execute(ends).one()
    return found, last if count == SCANNED else None


def _first_since(at: int) -> ColumnElement[int]:
    """The id of the first entry of that time or later.

    Ids are in the order of writing. Times come from a clock that may be set back, so callers allow a day more.
    """
    found = select(audit.c.id).where(audit.c.at >= at).order_by(audit.c.at).limit(1)
    return func.coalesce(found.scalar_subquery(), _NEVER)


def _last_until(at: int) -> ColumnElement[int]:
    """The id of the last entry of that time or earlier; see ``_first_since``."""
    found = select(audit.c.id).where(audit.c.at <= at).order_by(audit.c.at.desc()).limit(1)
    return func.coalesce(found.scalar_subquery(), 0)


def _narrowed(columns: ReadOnlyColumnCollection[str, Any], wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if not wanted.token_events:
        yield columns.event.not_in(TOKEN_EVENTS)
    if wanted.by is not None:
        yield columns.by == wanted.by
    if wanted.path is not None:
        inside = (
            and_(columns.subject >= wanted.path + mark, columns.subject < wanted.path + behind)
            for mark, behind in (":;", "@A")
        )
        yield or_(columns.subject == wanted.path, *inside)
    if wanted.since is not None:
        yield columns.at >= wanted.since
    if wanted.until is not None:
        yield columns.at < wanted.until


# --- the chain -------------------------------------------------------------------------------------------------


_encode: Final = msgspec.json.Encoder().encode


def _hash(before: bytes, position: int, row: Row[*tuple[Any, ...]]) -> bytes:
    entry = [position, row.at, row.organisation_id, row.event, row.by, row.address, row.subject, row.detail]
    return hashlib.sha256(before + _encode(entry)).digest()


def unsealed(connection: Connection) -> bool:
    """Whether there are entries to seal."""
    return connection.execute(select(audit.c.id).where(audit.c.position.is_(None)).limit(1)).first() is not None


def count_unsealed(connection: Connection) -> int:
    """How many entries are not in the chain yet."""
    return connection.execute(select(func.count()).where(audit.c.position.is_(None))).scalar_one()


def seal(connection: Connection) -> int:
    """Sealed up to AT_ONCE entries; returns how many."""
    rows = connection.execute(
        select(*_COLUMNS).where(audit.c.position.is_(None)).order_by(audit.c.id).limit(AT_ONCE)
    ).all()
    last = head(connection)
    position, before = (last.position, last.hash) if last is not None else (0, START)
    for row in rows:
        position += 1
        before = _hash(before, position, row)
        connection.execute(update(audit).where(audit.c.id == row.id).values(position=position, hash=before))
    if rows:
        records.add(connection, Sealed(position, before))
    return len(rows)


def start(connection: Connection) -> Sealed:
    """The seal before the first entry: that of the last dropped entry, or position 0."""
    row = connection.execute(select(audit_start.c.position, audit_start.c.hash)).first()
    return Sealed(row.position, row.hash) if row is not None else Sealed(0, START)


def head(connection: Connection) -> Sealed | None:
    """The newest seal, also that of a dropped entry; None if nothing was ever sealed."""
    query = select(audit.c.position, audit.c.hash).where(audit.c.position.is_not(None))
    row = connection.execute(query.order_by(audit.c.position.desc()).limit(1)).first()
    found = Sealed(row.position, row.hash) if row is not None else start(connection)
    return found if found.position else None


def sealed(connection: Connection, position: int) -> Sealed | None:
    """The seal at a position; None if there is none, or if its entry was dropped and is not the last dropped one."""
    begin = start(connection)
    if position and position == begin.position:
        return begin
    row = connection.execute(select(audit.c.position, audit.c.hash).where(audit.c.position == position)).first()
    return Sealed(row.position, row.hash) if row is not None else None


def oldest(connection: Connection) -> int | None:
    """When the first sealed entry was written, in microseconds since 1970; None if there is none."""
    query = select(audit.c.at).where(audit.c.position.is_not(None)).order_by(audit.c.position).limit(1)
    return connection.execute(query).scalar_one_or_none()


def drop(connection: Connection, before: int) -> int:
    """Drop the first entries that are older than a time, at most DROPPED; returns how many.

    Only sealed entries from the beginning are dropped. The seal of the last one becomes the start of the chain.
    """
    query = select(audit.c.id, audit.c.at, audit.c.position, audit.c.hash).where(audit.c.position.is_not(None))
    rows = connection.execute(query.order_by(audit.c.position).limit(DROPPED)).all()
    old = list(itertools.takewhile(lambda row: row.at < before, rows))
    if old:
        put_start(connection, records.AuditStart(old[-1].id, old[-1].position, old[-1].hash))
        state.add_stale(connection, len(old))
    return len(old)


def put_start(connection: Connection, begin: records.AuditStart) -> None:
    """Drop all entries up to an id, and record it in the journal. The chain then begins after its seal."""
    connection.execute(delete(audit).where(audit.c.id <= begin.id))
    connection.execute(delete(audit_start))
    connection.execute(insert(audit_start).values(position=begin.position, hash=begin.hash))
    records.add(connection, begin)


def broken(connection: Connection, after: Sealed, limit: int = AT_ONCE) -> tuple[Sealed | None, int | None]:
    """Verify the next ``limit`` entries after a seal; returns (last verified seal, first broken position).

    The seal is None at the end of the chain, and the position is None if nothing is broken. Entries that were dropped
    meanwhile are skipped.
    """
    begin = start(connection)
    after = after if after.position >= begin.position else begin
    query = select(*_COLUMNS, audit.c.position, audit.c.hash).where(audit.c.position > after.position)
    rows = connection.execute(query.order_by(audit.c.position).limit(limit)).all()
    position, before = after.position, after.hash
    for row in rows:
        position += 1
        before = _hash(before, position, row)
        if row.position != position or row.hash != before:
            return None, position
    return (Sealed(position, before), None) if rows else (None, None)
