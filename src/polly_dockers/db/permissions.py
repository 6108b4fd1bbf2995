"""The query of rights: one row with an organisation, a repository of it, and what a user is there.

``db.pull`` joins what is pulled to the same query, so that a pull takes one query in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, literal_column, or_, select

from polly_dockers.db.schema import access_tokens, members, organisations, repositories, signing_keys, users
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.model import Actor, RepositoryName

ALIVE: Final = case(
    (
        and_(
            or_(bindparam("kid").is_(None), signing_keys.c.kid.is_not(None)),
            or_(
                bindparam("user_id").is_(None),
                access_tokens.c.id.is_not(None),
                and_(bindparam("token").is_(None), users.c.password_version == bindparam("password_version")),
            ),
        ),
        literal_column("1"),
    ),
    else_=literal_column("0"),
).label("alive")
"""1 where the caller's credential and the signing key of their registry token are still valid."""
COLUMNS: Final = (
    organisations.c.id.label("organisation_id"),
    organisations.c.create_on_push,
    repositories.c.id.label("repository_id"),
    repositories.c.access,
    repositories.c.sparse_indexes,
    repositories.c.created_by,
    members.c.role,
    ALIVE,
)
FROM: Final = (
    organisations.outerjoin(
        repositories,
        and_(repositories.c.organisation_id == organisations.c.id, repositories.c.name == bindparam("name")),
    )
    .outerjoin(
        members,
        and_(
            members.c.organisation_id == organisations.c.id,
            members.c.user_id == bindparam("user_id"),
        ),
    )
    .outerjoin(users, users.c.id == bindparam("user_id"))
    .outerjoin(
        access_tokens,
        and_(
            access_tokens.c.id == bindparam("token"),
            access_tokens.c.user_id == bindparam("user_id"),
            access_tokens.c.expires_at > bindparam("now"),
        ),
    )
    .outerjoin(signing_keys, signing_keys.c.kid == bindparam("kid"))
)
WHERE: Final = organisations.c.slug == bindparam("organisation")

_RIGHTS: Final = Statement(select(*COLUMNS).select_from(FROM).where(WHERE))
_ALIVE: Final = Statement(
    select(ALIVE)
    .select_from(
        users.outerjoin(
            access_tokens,
            and_(
                access_tokens.c.id == bindparam("token"),
                access_tokens.c.user_id == users.c.id,
                access_tokens.c.expires_at > bindparam("now"),
            ),
        ).outerjoin(signing_keys, signing_keys.c.kid == bindparam("kid"))
    )
    .where(users.c.id == bindparam("user_id"))
)


def parameters(actor: Actor, name: RepositoryName, **more: object) -> dict[str, object]:
    """The parameters of COLUMNS, FROM and WHERE for a caller and a repository, and ``more``."""
    return {"organisation": name.organisation, "name": name.name, **_credential(actor), **more}


def _credential(actor: Actor) -> dict[str, object]:
    return {
        "user_id": actor.user_id,
        "token": actor.access_token,
        "password_version": actor.password_version,
        "kid": actor.kid,
        "now": now(),
    }


def find(connection: Connection, actor: Actor, name: RepositoryName) -> Any:  # noqa: ANN401 - a named tuple
    """The row of COLUMNS; None if there is no such organisation.

    ``repository_id`` is None if there is no such repository, and ``role`` if the caller is not a member.
    """
    return _RIGHTS.first(connection, parameters(actor, name))


def find_in_organisation(connection: Connection, actor: Actor, organisation: str) -> Any:  # noqa: ANN401
    """As ``find``, for no repository: the row has the organisation and the caller's role in it."""
    return _RIGHTS.first(connection, {"organisation": organisation, "name": "", **_credential(actor)})


def alive(connection: Connection, actor: Actor) -> bool:
    """Whether the caller's credential is still valid."""
    row = _ALIVE.first(connection, _credential(actor))
    return row is not None and bool(row.alive)
