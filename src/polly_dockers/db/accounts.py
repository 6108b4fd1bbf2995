"""Rows of organisations, users, members and access tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, insert, select, tuple_, update

from polly_dockers.db import clock
from polly_dockers.db.journal import records
from polly_dockers.db.schema import access_tokens, members, organisations, users
from polly_dockers.db.sqlite import now
from polly_dockers.model import Role
from polly_dockers.system.durations import SECONDS_PER_DAY

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True)
class User:
    """A user, identified by their email."""

    id: int
    email: str
    password_hash: str
    password_version: int
    created_at: int


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token without its secret; only a hash of that is stored."""

    id: str
    user_id: int
    email: str
    scope: str
    label: str
    created_at: int
    expires_at: int
    last_used_at: int | None
    parent_id: str | None = None
    """The access token that this one was made with. If that is revoked or expires, so does this."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an organisation."""

    user_id: int
    email: str
    role: Role
    joined_at: int


def add_organisation(connection: Connection, slug: str) -> int:
    """Insert an organisation; returns its id."""
    at = now()
    made = insert(organisations).values(slug=slug, created_at=at).returning(organisations.c.id)
    number = int(connection.execute(made).scalar_one())
    records.add(connection, records.OrganisationSet(number, slug, create_on_push=False, created_at=at))
    return number


def organisation_id(connection: Connection, slug: str) -> int | None:
    """The id of an organisation; None if there is none of that slug."""
    return connection.execute(select(organisations.c.id).where(organisations.c.slug == slug)).scalar_one_or_none()


def count_with(connection: Connection, password_hash: str) -> int:
    """The number of accounts that have this hash of a password."""
    query = select(func.count()).select_from(users).where(users.c.password_hash == password_hash)
    return int(connection.execute(query).scalar_one())


def has_organisations(connection: Connection) -> bool:
    """Whether there is any organisation, also a deleted one."""
    return connection.execute(select(organisations.c.id).limit(1)).first() is not None


def set_create_on_push(connection: Connection, organisation: int, *, on: bool) -> bool:
    """Set whether a push to a missing repository creates it; returns False if that is set already."""
    query = select(organisations.c.create_on_push).where(organisations.c.id == organisation)
    if bool(connection.execute(query).scalar_one()) == on:
        return False
    _change_organisation(connection, organisation, create_on_push=int(on))
    return True


def set_policy(connection: Connection, organisation: int, policy: str | None) -> None:
    """Set the retention policy of repositories that have none of their own; as text (``retention.Policy.text``)."""
    _change_organisation(connection, organisation, policy=policy)


def _change_organisation(connection: Connection, organisation: int, **values: int | str | None) -> None:
    changed = update(organisations).where(organisations.c.id == organisation).values(**values)
    row = connection.execute(changed.returning(organisations)).one()
    records.add(
        connection,
        records.OrganisationSet(row.id, row.slug, bool(row.create_on_push), row.created_at, row.policy),
    )


def organisation_list(connection: Connection) -> list[Row[*tuple[Any, ...]]]:
    """Rows (slug, members, created_at, create_on_push) of all organisations, in the order of their slugs."""
    query = (
        select(
            organisations.c.slug,
            func.count(members.c.user_id).label("members"),
            organisations.c.created_at,
            organisations.c.create_on_push,
        )
        .select_from(organisations.outerjoin(members))
        .where(organisations.c.deleted_at.is_(None))
        .group_by(organisations.c.id)
        .order_by(organisations.c.slug)
    )
    return list(connection.execute(query).all())


def organisation_totals(connection: Connection, organisation: int) -> Row[*tuple[Any, ...]]:
    """A row (repositories, members): how many of each an organisation has."""
    people = select(func.count()).where(members.c.organisation_id == organisation)
    return connection.execute(
        select(organisations.c.repositories, people.scalar_subquery().label("members")).where(
            organisations.c.id == organisation
        )
    ).one()


_USER: Final = select(users.c.id, users.c.email, users.c.password_hash, users.c.password_version, users.c.created_at)
_USER_BY_EMAIL: Final = _USER.where(users.c.email == bindparam("email"))


def user(connection: Connection, email: str) -> User | None:
    """The user with an email; None if there is none."""
    row = connection.execute(_USER_BY_EMAIL, {"email": email}).first()
    return User(*row) if row is not None else None


def add_user(connection: Connection, email: str, password_hash: str) -> int:
    """Insert a user; returns the id."""
    at = now()
    made = insert(users).values(email=email, password_hash=password_hash, created_at=at).returning(users.c.id)
    number = int(connection.execute(made).scalar_one())
    records.add(connection, records.UserMade(number, email, at))
    return number


def set_password(connection: Connection, user_id: int, password_hash: str) -> None:
    """Set a new password. Sign-ins with the old one end."""
    connection.execute(
        update(users)
        .where(users.c.id == user_id)
        .values(password_hash=password_hash, password_version=users.c.password_version + 1)
    )
    connection.execute(delete(access_tokens).where(access_tokens.c.user_id == user_id))


def memberships(connection: Connection, user_id: int) -> list[tuple[str, Role, int]]:
    """The organisations of a user in the order of their slugs, with the role and the time of joining."""
    query = (
        select(organisations.c.slug, members.c.role, members.c.joined_at)
        .join(members, members.c.organisation_id == organisations.c.id)
        .where(members.c.user_id == user_id, organisations.c.deleted_at.is_(None))
        .order_by(organisations.c.slug)
    )
    return [(slug, Role(role), at) for slug, role, at in connection.execute(query)]


def user_list(connection: Connection, organisation: int | None) -> list[Row[*tuple[Any, ...]]]:
    """Rows (email, password_hash, slug, role), one for each user and organisation, in that order.

    Of one organisation, or of all (None); a user of none has a row without slug and role.
    """
    live = members.join(organisations, organisations.c.id == members.c.organisation_id)
    query = (
        select(users.c.email, users.c.password_hash, organisations.c.slug, members.c.role)
        .select_from(users.outerjoin(live, (members.c.user_id == users.c.id) & organisations.c.deleted_at.is_(None)))
        .order_by(users.c.email, organisations.c.slug)
    )
    if organisation is not None:
        query = query.where(members.c.organisation_id == organisation)
    return list(connection.execute(query).all())


_MEMBER: Final = select(users.c.id, users.c.email, members.c.role, members.c.joined_at).join(
    members, members.c.user_id == users.c.id
)


def member(connection: Connection, organisation: int, email: str) -> Member | None:
    """The member with an email; None if there is none."""
    query = _MEMBER.where(members.c.organisation_id == organisation, users.c.email == email)
    row = connection.execute(query).first()
    return Member(row.id, row.email, Role(row.role), row.joined_at) if row is not None else None


def member_page(
    connection: Connection, organisation: int, *, after: str, newest_first: bool, limit: int
) -> tuple[list[Member], int]:
    """The members after an email, in the order of their emails, and how many there are in all.

    With ``newest_first`` the order is reversed.
    """
    query = _MEMBER.where(members.c.organisation_id == organisation)
    if after:
        query = query.where(users.c.email < after if newest_first else users.c.email > after)
    order = users.c.email.desc() if newest_first else users.c.email
    rows = connection.execute(query.order_by(order).limit(limit)).all()
    total = select(func.count()).select_from(members).where(members.c.organisation_id == organisation)
    found = [Member(row.id, row.email, Role(row.role), row.joined_at) for row in rows]
    return found, connection.execute(total).scalar_one()


def add_member(connection: Connection, organisation: int, user_id: int, role: Role) -> None:
    """Insert a member."""
    made = {"organisation_id": organisation, "user_id": user_id, "role": int(role), "joined_at": now()}
    connection.execute(insert(members), made)


def set_role(connection: Connection, organisation: int, user_id: int, role: Role) -> None:
    """Change the role of a member."""
    same = (members.c.organisation_id == organisation) & (members.c.user_id == user_id)
    connection.execute(update(members).where(same).values(role=int(role)))


def remove_member(connection: Connection, organisation: int, user_id: int) -> None:
    """Remove a user from an organisation."""
    same = (members.c.organisation_id == organisation) & (members.c.user_id == user_id)
    connection.execute(delete(members).where(same))


def count_admins(connection: Connection, organisation: int) -> int:
    """The number of admins of an organisation."""
    query = select(func.count()).select_from(members)
    same = (members.c.organisation_id == organisation) & (members.c.role == int(Role.admin))
    return connection.execute(query.where(same)).scalar_one()


_TOKEN: Final = select(
    access_tokens.c.id,
    access_tokens.c.user_id,
    users.c.email,
    access_tokens.c.scope,
    access_tokens.c.label,
    access_tokens.c.created_at,
    access_tokens.c.expires_at,
    access_tokens.c.last_used_at,
    access_tokens.c.parent_id,
).join(users, users.c.id == access_tokens.c.user_id)
_TOKEN_BY_HASH: Final = _TOKEN.where(
    access_tokens.c.secret_hash == bindparam("secret_hash"), access_tokens.c.expires_at > bindparam("now")
)


def has_tokens(connection: Connection, user_id: int, count: int) -> bool:
    """Whether the user has as many access tokens as the limit; if so, expired ones are deleted and it counts again."""
    mine = access_tokens.c.user_id == user_id
    some = select(func.count()).select_from(select(access_tokens.c.id).where(mine).limit(count).subquery())
    if connection.execute(some).scalar_one() < count:
        return False
    connection.execute(delete(access_tokens).where(mine, access_tokens.c.expires_at <= now()))
    return connection.execute(some).scalar_one() >= count


def add_token(connection: Connection, token: AccessToken, secret_hash: bytes) -> None:
    """Insert an access token, and delete those of the user that expired more than a day ago.

    They are kept for a day because a wrong clock may be corrected.
    """
    at = clock.ago(connection, SECONDS_PER_DAY)
    gone = (access_tokens.c.user_id == token.user_id) & (access_tokens.c.expires_at <= at)
    connection.execute(delete(access_tokens).where(gone))
    connection.execute(
        insert(access_tokens),
        {
            "id": token.id,
            "user_id": token.user_id,
            "parent_id": token.parent_id,
            "scope": token.scope,
            "secret_hash": secret_hash,
            "label": token.label,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
        },
    )


def token_by_hash(connection: Connection, secret_hash: bytes) -> AccessToken | None:
    """The valid access token whose secret has this SHA-256; None if there is none."""
    row = connection.execute(_TOKEN_BY_HASH, {"secret_hash": secret_hash, "now": now()}).first()
    return AccessToken(*row) if row is not None else None


def token_page(connection: Connection, user_id: int, *, after: tuple[int, str] | None, limit: int) -> list[AccessToken]:
    """The user's valid access tokens, newest first, after the one with (created_at, id)."""
    query = _TOKEN.where(access_tokens.c.user_id == user_id, access_tokens.c.expires_at > now())
    place = tuple_(access_tokens.c.created_at, access_tokens.c.id)
    if after is not None:
        query = query.where(place < tuple_(*after))
    rows = connection.execute(query.order_by(*(column.desc() for column in place)).limit(limit))
    return [AccessToken(*row) for row in rows]


def touch_token(connection: Connection, token_id: str) -> None:
    """Record that the token is used now."""
    connection.execute(update(access_tokens).where(access_tokens.c.id == token_id).values(last_used_at=now()))


def replace_token(connection: Connection, old: AccessToken, new: AccessToken) -> None:
    """Revoke the old token. Tokens made with it now belong to the new one, and expire no later than that."""
    children = update(access_tokens).where(access_tokens.c.parent_id == old.id, access_tokens.c.id != new.id)
    connection.execute(children.values(parent_id=new.id))
    late = update(access_tokens).where(access_tokens.c.parent_id == new.id, access_tokens.c.expires_at > new.expires_at)
    connection.execute(late.values(expires_at=new.expires_at))
    delete_token(connection, old.user_id, old.id)


def delete_token(connection: Connection, user_id: int, token_id: str) -> bool:
    """Revoke a token and all that were made with it; False if the user has no token of that id."""
    same = (access_tokens.c.id == token_id) & (access_tokens.c.user_id == user_id)
    return connection.execute(delete(access_tokens).where(same)).rowcount == 1


def delete_tokens(connection: Connection, user_id: int | None) -> int:
    """Delete all access tokens of one user, or of all; returns how many."""
    query = delete(access_tokens)
    return connection.execute(query if user_id is None else query.where(access_tokens.c.user_id == user_id)).rowcount
