"""Who may do what: every decision about a repository or an organisation is made here, and nowhere else.

Rights are read with the rows on every request, so that removing a member, revoking a token or making a repository
private takes effect on the next one. A registry token only limits what its user may do; it never adds to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, literal_column, or_, select

from polly_dockers import db
from polly_dockers.db.schema import access_tokens, members, organisations, repositories, signing_keys, users
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.errors import Denied, NameUnknown, OrganisationUnknown, Unauthorized
from polly_dockers.model import BITS, ROLE_FOR, Action, Actor, RepositoryName, Role

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

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
)
COLUMNS: Final = (
    organisations.c.id.label("organisation_id"),
    organisations.c.create_on_push,
    repositories.c.id.label("repository_id"),
    repositories.c.access,
    repositories.c.sparse_indexes,
    repositories.c.created_by,
    members.c.role,
    ALIVE.label("alive"),
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
RIGHTS: Final = Statement(select(*COLUMNS).select_from(FROM).where(WHERE))


@dataclass(frozen=True, slots=True)
class Reached:
    """A repository that the caller may work on, in the way that was asked for."""

    organisation_id: int
    repository_id: int
    name: RepositoryName
    user_id: int
    """0 for nobody, who only pulls."""
    sparse_indexes: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """A repository that is not there, in an organisation whose member asks to push: it may be made on the way."""

    organisation_id: int
    user_id: int
    create_on_push: bool


def parameters(actor: Actor, name: RepositoryName, **more: object) -> dict[str, object]:
    """What the columns and joins above are bound to, and more."""
    return {
        "organisation": name.organisation,
        "name": name.name,
        "user_id": actor.user_id,
        "token": actor.access_token,
        "password_version": actor.password_version,
        "kid": actor.kid,
        "now": now(),
        **more,
    }


def reach(
    connection: Connection, actor: Actor, name: RepositoryName, action: Action, *, public: bool = False
) -> Reached:
    """The repository, for the action; ``public`` is the server's setting public_repositories.

    Raises Unauthorized for what is forbidden and what does not exist alike, NameUnknown for a member.
    """
    return found(RIGHTS.first(connection, parameters(actor, name)), actor, name, action, public=public)


def found(
    row: Row[*tuple[Any, ...]] | None, actor: Actor, name: RepositoryName, action: Action, *, public: bool
) -> Reached:
    """As ``reach``, for a row that holds COLUMNS."""
    reached = look(row, actor, name, action, public=public)
    if isinstance(reached, Absent):
        raise missing(name, action)
    return reached


def look(
    row: Row[*tuple[Any, ...]] | None, actor: Actor, name: RepositoryName, action: Action, *, public: bool
) -> Reached | Absent:
    """As ``found``; a repository that is not there is handed back for its member to be told or to make."""
    if actor.grants is not None:
        repository_id = row.repository_id if row is not None else None
        mine = row is None or repository_id is None or actor.user_id == row.created_by
        granted = actor.grants.bits(name, repository_id, mine=mine)
        if not granted & BITS[action]:
            raise forbidden(name, action, row.role if granted and row is not None and row.alive else None)
    if row is not None and not row.alive:
        raise ended()
    if row is None or not _may(row, action, public=public):
        raise forbidden(name, action, row.role if row is not None else None)
    if row.repository_id is None:
        return Absent(row.organisation_id, actor.user_id or 0, bool(row.create_on_push))
    return Reached(
        row.organisation_id, row.repository_id, name, actor.user_id or 0, sparse_indexes=row.sparse_indexes == "allow"
    )


def _may(row: Row[*tuple[Any, ...]], action: Action, *, public: bool) -> bool:
    if row.role is not None and row.role >= ROLE_FOR[action]:
        return True
    return public and action is Action.pull and row.access == "public"


def grantable(
    connection: Connection, actor: Actor, name: RepositoryName, *, public: bool
) -> tuple[int | None, frozenset[str]]:
    """The repository's id and what the user may do with it, for a registry token; nothing: an empty set."""
    row = RIGHTS.first(connection, parameters(actor, name))
    if row is None or not row.alive:
        return None, frozenset()
    actions = frozenset(action.value for action in Action if _may(row, action, public=public))
    return row.repository_id, actions


def may_pull(connection: Connection, actor: Actor, name: RepositoryName, *, public: bool) -> int | None:
    """The id of a repository that the caller may pull from, as ``reach`` has it; else None."""
    try:
        reached = look(RIGHTS.first(connection, parameters(actor, name)), actor, name, Action.pull, public=public)
    except Unauthorized:
        return None
    return reached.repository_id if isinstance(reached, Reached) else None


def member(connection: Connection, actor: Actor, organisation: str, least: Role) -> tuple[int, Role]:
    """The organisation's id and the caller's role in it.

    Raises Unauthorized for a token that has ended, OrganisationUnknown where the caller is no member, Denied
    where the role is lower than ``least``.
    """
    name = RepositoryName(f"{organisation}/")
    row = RIGHTS.first(connection, parameters(actor, name))
    if row is not None and not row.alive:
        raise ended()
    if row is None or row.role is None:
        msg = (
            f"You are not a member of an organisation {organisation[:100]!r}. polly org list shows yours; "
            "choose another by --org NAME, or for good: polly org use NAME."
        )
        raise OrganisationUnknown(msg)
    role = Role(row.role)
    if role < least:
        way = "An admin can change that: polly members set-role."
        able = [each for each in db.accounts.memberships(connection, actor.user_id or 0) if each[1] >= least]
        if able:
            slug, other, _ = able[0]
            way = f"You are {other.name} of {slug}: --org {slug}, or for good: polly org use {slug}."
        msg = f"This takes the role {least.name} in {organisation}, and you are a {role.name}. {way}"
        raise Denied(msg)
    return row.organisation_id, role


_ALIVE: Final = Statement(
    select(ALIVE.label("alive"))
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


def alive(connection: Connection, actor: Actor) -> bool:
    """Whether the credential that the caller goes back to is good now."""
    bound = {
        "user_id": actor.user_id,
        "token": actor.access_token,
        "password_version": actor.password_version,
        "kid": actor.kid,
        "now": now(),
    }
    row = _ALIVE.first(connection, bound)
    return row is not None and bool(row.alive)


def scope(name: RepositoryName, action: Action) -> str:
    """What a token for the action is asked for (distribution: docs/spec/auth/scope.md)."""
    actions = {Action.pull: "pull", Action.push: "pull,push", Action.delete: "delete"}[action]
    return f"repository:{name}:{actions}"


def forbidden(name: RepositoryName, action: Action, role: int | None = None) -> Unauthorized:
    """The answer for what is forbidden and for what does not exist; ``role`` is that of a member, who is told more."""
    verb = {Action.pull: "pull from", Action.push: "push to", Action.delete: "delete in"}[action]
    if role is not None and role < ROLE_FOR[action]:
        msg = (
            f"You may not {verb} {name}: you are a {Role(role).name} of {name.organisation}, and that takes the role "
            f"{ROLE_FOR[action].name}. An admin can change it: polly members set-role."
        )
        return Unauthorized(msg, scope=scope(name, action), reason="insufficient_scope", known=True)
    msg = f"You may not {verb} {name}, or it does not exist. polly whoami shows your organisations and roles."
    return Unauthorized(msg, scope=scope(name, action), reason="insufficient_scope")


def ended() -> Unauthorized:
    """The answer for a credential that was revoked, changed, or has expired."""
    msg = "Your sign-in has ended or was revoked."
    return Unauthorized(msg, reason="invalid_token")


def missing(name: RepositoryName, action: Action) -> NameUnknown:
    """The answer to a member for a repository that is not there."""
    return NameUnknown(_missing(name, action), detail={"name": name})


def _missing(name: RepositoryName, action: Action) -> str:
    if action is Action.push:
        return (
            f"There is no docker repository {name} yet. Make it first: polly dockers create --name {name.name} "
            '--description "what it is for"; one that was deleted comes back by '
            f"polly dockers restore --name {name.name}"
        )
    return (
        f"There is no docker repository {name}. polly dockers list --all shows those of {name.organisation}, "
        "polly dockers trash what was deleted."
    )
