"""Who may do what in a repository or an organisation. ``registry.repositories`` decides who may make one public.

Rights are read from the database on every request. So removing a member, revoking a token or making a repository
private takes effect on the next request. A registry token limits what its user may do; it never adds to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polly_dockers import db
from polly_dockers.errors import Denied, NameUnknown, OrganisationUnknown, Unauthorized
from polly_dockers.model import BITS, ROLE_FOR, Action, Actor, RepositoryName, Role

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Permitted:
    """A repository in which the caller may do what they asked for."""

    organisation_id: int
    repository_id: int
    name: RepositoryName
    user_id: int
    """0 for somebody who is not signed in, who can only pull."""
    sparse_indexes: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """A repository that does not exist, in an organisation in which the caller has the role for the action."""

    organisation_id: int
    user_id: int
    create_on_push: bool


def require_permission(
    connection: Connection, actor: Actor, name: RepositoryName, action: Action, *, allow_public: bool = False
) -> Permitted:
    """The repository, if the caller may do the action in it. With ``allow_public``, anyone may pull public ones.

    Raises Unauthorized both for what is forbidden and for what does not exist, and NameUnknown for a member.
    """
    return require_in_row(db.permissions.find(connection, actor, name), actor, name, action, allow_public=allow_public)


def require_in_row(row: Any, actor: Actor, name: RepositoryName, action: Action, *, allow_public: bool) -> Permitted:  # noqa: ANN401 - a named tuple
    """As ``require_permission``, for a row that has the columns of ``db.permissions``."""
    permitted = require_or_absent_in_row(row, actor, name, action, allow_public=allow_public)
    if isinstance(permitted, Absent):
        raise repository_missing(name, action)
    return permitted


def require_or_absent_in_row(
    row: Any,  # noqa: ANN401 - a named tuple
    actor: Actor,
    name: RepositoryName,
    action: Action,
    *,
    allow_public: bool = False,
) -> Permitted | Absent:
    """Permitted if the caller may do the action, Absent if a member asks for a repository that does not exist.

    Raises Unauthorized.
    """
    if actor.grants is not None:
        repository_id = row.repository_id if row is not None else None
        mine = row is None or repository_id is None or actor.user_id == row.created_by
        granted = actor.grants.bits(name, repository_id, mine=mine)
        if not granted & BITS[action]:
            raise forbidden(name, action, row.role if granted and row is not None and row.alive else None)
    if row is not None and not row.alive:
        raise credential_ended()
    if row is None or not _may(row, action, allow_public=allow_public):
        raise forbidden(name, action, row.role if row is not None else None)
    if row.repository_id is None:
        return Absent(row.organisation_id, actor.user_id or 0, bool(row.create_on_push))
    return Permitted(
        row.organisation_id, row.repository_id, name, actor.user_id or 0, sparse_indexes=row.sparse_indexes == "allow"
    )


def _may(row: Any, action: Action, *, allow_public: bool) -> bool:  # noqa: ANN401 - a named tuple
    if row.role is not None and row.role >= ROLE_FOR[action]:
        return True
    return allow_public and action is Action.pull and row.access == "public"


def require_or_absent(connection: Connection, actor: Actor, name: RepositoryName, action: Action) -> Permitted | Absent:
    """As ``require_permission``, but returns Absent where a member asks for a repository that does not exist."""
    return require_or_absent_in_row(db.permissions.find(connection, actor, name), actor, name, action)


def find_actions(
    connection: Connection, actor: Actor, name: RepositoryName, *, allow_public: bool
) -> tuple[int | None, frozenset[str]]:
    """The repository's id (None: it does not exist) and the actions that a registry token may allow the user."""
    row = db.permissions.find(connection, actor, name)
    if row is None or not row.alive:
        return None, frozenset()
    actions = frozenset(action.value for action in Action if _may(row, action, allow_public=allow_public))
    return row.repository_id, actions


def find_pullable(connection: Connection, actor: Actor, name: RepositoryName, *, allow_public: bool) -> int | None:
    """The id of a repository, if it exists and the user may pull from it, whatever their token names; else None."""
    repository_id, actions = find_actions(connection, actor, name, allow_public=allow_public)
    return repository_id if Action.pull in actions else None


def require_role(connection: Connection, actor: Actor, organisation: str, least: Role) -> tuple[int, Role]:
    """The organisation's id and the caller's role in it.

    Raises Unauthorized if the caller's credential is no longer valid, OrganisationUnknown if they are not a member,
    and Denied if their role is lower than ``least``.
    """
    row = db.permissions.find_in_organisation(connection, actor, organisation)
    if row is not None and not row.alive:
        raise credential_ended()
    if row is None or row.role is None:
        msg = (
            f"You are not a member of an organisation {organisation[:100]!r}. polly org list shows your organisations. "
            "Choose one with --org NAME, or as the default: polly org use NAME."
        )
        raise OrganisationUnknown(msg)
    role = Role(row.role)
    if role < least:
        way = "An admin can change it: polly members set-role."
        able = [each for each in db.accounts.memberships(connection, actor.user_id or 0) if each[1] >= least]
        if able:
            slug, other, _ = able[0]
            way = f"You are {other.name} of {slug}: use --org {slug}, or make it the default: polly org use {slug}."
        msg = f"You need the role {least.name} in {organisation}, and yours is {role.name}. {way}"
        raise Denied(msg)
    return row.organisation_id, role


def require_member(connection: Connection, actor: Actor, name: RepositoryName) -> int:
    """The id of a repository, for members of its organisation. Raises OrganisationUnknown and NameUnknown."""
    require_role(connection, actor, name.organisation, Role.reader)
    return require_permission(connection, actor, name, Action.pull).repository_id


def require_alive(connection: Connection, actor: Actor) -> None:
    """Raise Unauthorized if the caller's credential is no longer valid."""
    if not db.permissions.alive(connection, actor):
        raise credential_ended()


def scope(name: RepositoryName, action: Action) -> str:
    """The scope of a registry token that allows the action (distribution: docs/spec/auth/scope.md)."""
    actions = {Action.pull: "pull", Action.push: "pull,push", Action.delete: "delete"}[action]
    return f"repository:{name}:{actions}"


def forbidden(name: RepositoryName, action: Action, role: int | None = None) -> Unauthorized:
    """The error both for what is forbidden and for what does not exist. A member, who has a ``role``, is told more."""
    verb = {Action.pull: "pull from", Action.push: "push to", Action.delete: "delete in"}[action]
    if role is not None and role < ROLE_FOR[action]:
        msg = (
            f"You may not {verb} {name}. You need the role {ROLE_FOR[action].name} in {name.organisation}, and yours "
            f"is {Role(role).name}. An admin can change it: polly members set-role."
        )
        return Unauthorized(msg, scope=scope(name, action), reason="insufficient_scope", known=True)
    msg = f"You may not {verb} {name}, or it does not exist. polly whoami shows your organisations and roles."
    return Unauthorized(msg, scope=scope(name, action), reason="insufficient_scope")


def credential_ended() -> Unauthorized:
    """The error for a credential that was revoked or changed, or has expired."""
    msg = "This sign-in is not valid: it has expired or was revoked, or the token is wrong."
    return Unauthorized(msg, reason="invalid_token")


def repository_missing(name: RepositoryName, action: Action) -> NameUnknown:
    """The error for a member who asks for a repository that does not exist."""
    if action is Action.push:
        msg = (
            f"There is no docker repository {name}. Create it first: polly dockers create --name {name.name} "
            '--description "what it is for". If it was deleted, restore it: '
            f"polly dockers restore --name {name.name}"
        )
    else:
        msg = (
            f"There is no docker repository {name}. polly dockers list --all shows those of {name.organisation}, "
            "polly dockers trash those that were deleted."
        )
    return NameUnknown(msg, detail={"name": name})
