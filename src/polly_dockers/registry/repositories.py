"""Creating, changing and listing repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.db.audit import Event
from polly_dockers.errors import BadRequest, Denied, NameExists
from polly_dockers.model import Action, Actor, Repository, RepositoryName, Role, check_length
from polly_dockers.registry.history import update_totals

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context

MAX_DESCRIPTION: Final = 1000
"""Characters."""


def _check_description(text: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_DESCRIPTION:
        msg = f"The description has {len(text)} characters; it must have 1 to {MAX_DESCRIPTION}."
        raise BadRequest(msg)
    return text


def _check_public(context: Context, wanted: str | None, role: Role) -> None:
    """Raise Denied if ``wanted`` is public, and the caller is not an admin or the server does not allow it."""
    if wanted != "public":
        return
    if not context.allow_public:
        msg = "Repositories cannot be public on this server: its setting public_repositories is deny."
        raise Denied(msg)
    if role < Role.admin:
        msg = (
            f"To make a repository public, you need the role admin, and yours is {role.name}. polly members list shows "
            "the admins."
        )
        raise Denied(msg)


async def create(
    context: Context, actor: Actor, organisation: str, *, name: str, description: str, public: bool
) -> Repository:
    """Create a repository. For writers.

    Raises NameInvalid, NameExists, BadRequest for the description, Denied, and OrganisationUnknown.
    """
    description = _check_description(description)

    def change(connection: Connection) -> Repository:
        _, role = permissions.require_role(connection, actor, organisation, Role.reader)
        _check_public(context, "public" if public else None, role)  # before the lower role that others need
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.writer)
        full = RepositoryName.of(organisation, name)
        check_length(context.config.registry, full)
        made = db.repositories.add(
            connection,
            organisation_id=organisation_id,
            name=full.name,
            description=description,
            access="public" if public else "private",
            user_id=actor.user_id or 0,
        )
        if made is None:
            msg = f"There is already a docker repository {full}. polly dockers list --search {full.name} shows it."
            raise NameExists(msg)
        detail = "public" if public else "private"
        db.audit.append(
            connection, Event.repository_create, full, organisation_id=organisation_id, by=actor, detail=detail
        )
        return db.repositories.one(connection, made)

    return await context.database.write(change)


async def update(
    context: Context,
    actor: Actor,
    organisation: str,
    name: str,
    *,
    description: str | None,
    wanted_access: str | None,
    sparse_indexes: str | None,
) -> Repository:
    """Change the settings that are given. Only admins change the access. Raises as ``create``, and NameUnknown.

    What is set already is not changed, and is not in the audit log.
    """
    full = RepositoryName.of(organisation, name)
    values: dict[str, str] = {}
    if description is not None:
        values["description"] = _check_description(description)
    if wanted_access is not None:
        values["access"] = wanted_access
    if sparse_indexes is not None:
        values["sparse_indexes"] = sparse_indexes
    if not values:
        msg = "There is nothing to change: give description, access or sparse_indexes."
        raise BadRequest(msg)

    def change(connection: Connection) -> Repository:
        _, role = permissions.require_role(connection, actor, organisation, Role.reader)
        permitted = permissions.require_permission(connection, actor, full, Action.pull)
        before = db.repositories.one(connection, permitted.repository_id)
        if wanted_access is not None:
            if wanted_access != before.access and role < Role.admin:
                msg = f"To change the access of a repository, you need the role admin, and yours is {role.name}."
                raise Denied(msg)
            _check_public(context, wanted_access, role)
        permissions.require_role(connection, actor, organisation, Role.writer)
        changed = {key: value for key, value in values.items() if getattr(before, key) != value}
        if not changed:
            return before
        db.repositories.change(connection, permitted.repository_id, **changed)
        db.audit.append(
            connection,
            Event.repository_update,
            full,
            organisation_id=permitted.organisation_id,
            by=actor,
            detail=", ".join(f"{key}: {value}" for key, value in changed.items()),
        )
        return db.repositories.one(connection, permitted.repository_id)

    await update_totals(context)
    return await context.database.write(change)


async def one(context: Context, actor: Actor, organisation: str, name: str) -> Repository:
    """A repository, for members of its organisation. Raises OrganisationUnknown and NameUnknown."""
    full = RepositoryName.of(organisation, name)

    def query(connection: Connection) -> Repository:
        return db.repositories.one(connection, permissions.require_member(connection, actor, full))

    await update_totals(context)
    return await context.database.read(query)


async def page(
    context: Context,
    actor: Actor,
    organisation: str,
    *,
    by_push: bool,
    newest_first: bool,
    limit: int,
    after: tuple[int, int] | None,
    search: str,
) -> tuple[list[Repository], tuple[int, int] | None, int | None]:
    """A page of the organisation's repositories, the cursor of the next page, and how many match. For members.

    A page of a search may be short or empty although another follows, and the number of matches may be unknown (None).
    """

    def query(connection: Connection) -> tuple[list[Repository], tuple[int, int] | None, int | None]:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.reader)
        return db.repositories.page(
            connection,
            organisation_id,
            by_push=by_push,
            newest_first=newest_first,
            limit=limit,
            after=after,
            search=search,
        )

    await update_totals(context)
    return await context.database.read(query)
