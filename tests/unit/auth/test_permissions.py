"""What each role may do in a docker repository, and what others learn of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from polly_dockers import db
from polly_dockers.auth import members, permissions
from polly_dockers.errors import NameUnknown, PollyError, Unauthorized
from polly_dockers.model import ANYBODY, Action, Grants, RepositoryName, Role
from polly_dockers.registry import repositories
from support.use_cases import (
    ADMIN,
    NAME,
    ORG,
    OUTSIDER,
    READER,
    WRITER,
    create,
    email,
    pull_manifest,
    push_image,
)
from support.wire_client import image

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from polly_dockers.context import Context
    from polly_dockers.model import Actor

MISSING = RepositoryName(f"{ORG}/missing")


async def may(context: Context, actor: Actor, name: RepositoryName = NAME) -> set[str]:
    """The actions that a user may do."""
    allowed = set()
    for action in Action:
        try:
            await context.database.read(
                permissions.require_permission, actor, name, action, allow_public=context.allow_public
            )
        except PollyError:
            continue
        allowed.add(action.value)
    return allowed


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("actor", "allowed"),
    [
        (ADMIN, {"pull", "push", "delete"}),
        (WRITER, {"pull", "push"}),
        (READER, {"pull"}),
        (OUTSIDER, set()),
        (ANYBODY, set()),
    ],
    ids=["admin", "writer", "reader", "outsider", "anybody"],
)
async def test_what_each_role_may_do(context: Context, actor: Actor, allowed: set[str]) -> None:
    """A reader pulls, a writer also pushes, an admin also deletes, and nobody else may do anything."""
    assert await may(context, actor) == allowed


@pytest.mark.parametrize("actor", [OUTSIDER, replace(ANYBODY, grants=None)], ids=["outsider", "anybody"])
async def test_anybody_pulls_what_is_public(open_context: Callable[..., Awaitable[Context]], actor: Actor) -> None:
    """A public repository is pulled by anybody and pushed to by members only, until it is private again."""
    context = await open_context(public_repositories="allow")
    await create(context, NAME.name, public=True)
    assert await may(context, actor) == {"pull"}
    await repositories.update(
        context, ADMIN, ORG, NAME.name, description=None, wanted_access="private", sparse_indexes=None
    )
    assert await may(context, actor) == set()


async def test_the_setting_of_the_server_comes_first(open_context: Callable[..., Awaitable[Context]]) -> None:
    """A server that stops allowing public repositories serves none, whatever their access is."""
    context = await open_context(public_repositories="allow")
    await create(context, NAME.name, public=True)
    closed = replace(context, config=replace(context.config, public_repositories="deny"))
    assert await may(context, OUTSIDER) == {"pull"}
    assert await may(closed, OUTSIDER) == set()


@pytest.mark.usefixtures("repository")
async def test_an_outsider_learns_nothing(context: Context) -> None:
    """For somebody who is not a member, a private repository and a missing one give the same error."""
    errors = []
    for name in (NAME, MISSING):
        with pytest.raises(Unauthorized) as caught:
            await pull_manifest(context, "v1", actor=OUTSIDER, name=name)
        errors.append(caught.value.message.replace(name, ""))
    assert errors[0] == errors[1]


async def test_a_member_is_told_that_it_is_missing(context: Context) -> None:
    """The error for a member says that a repository does not exist."""
    with pytest.raises(NameUnknown):
        await pull_manifest(context, "v1", name=MISSING)


@pytest.mark.usefixtures("repository")
async def test_a_reader_who_pushes_is_told_the_role(context: Context) -> None:
    """The error for a reader who pushes names the role that is needed."""
    with pytest.raises(Unauthorized, match="You need the role writer"):
        await push_image(context, image(), "v1", actor=READER)


@pytest.mark.usefixtures("repository")
async def test_a_new_role_holds_at_once(context: Context) -> None:
    """A changed role, and a removed membership, take effect on the next request."""
    await members.set_role(context, ADMIN, ORG, email(WRITER), Role.reader)
    assert await may(context, WRITER) == {"pull"}
    await members.remove(context, ADMIN, ORG, email(WRITER))
    assert await may(context, WRITER) == set()


@pytest.mark.usefixtures("repository")
async def test_a_new_password_ends_older_credentials(context: Context) -> None:
    """A credential of an earlier password is refused."""
    await context.database.write(db.accounts.set_password, WRITER.user_id or 0, "!")
    assert await may(context, WRITER) == set()
    assert await may(context, replace(WRITER, password_version=2)) == {"pull", "push"}


async def test_a_registry_token_only_limits(context: Context, repository: RepositoryName) -> None:
    """A registry token allows what it was made for, and never more than its user may do."""
    found = await repositories.one(context, ADMIN, ORG, repository.name)
    grants = Grants()
    grants.allow(repository, found.id, ["pull", "delete"])
    assert await may(context, replace(ADMIN, grants=grants)) == {"pull", "delete"}
    assert await may(context, replace(READER, grants=grants)) == {"pull"}
    other = await create(context, "other")
    assert await may(context, replace(ADMIN, grants=grants), other) == set()


async def test_a_token_for_a_name_opens_no_repository_of_others(context: Context) -> None:
    """A token that was made before its repository opens only one that its own user creates."""
    grants = Grants()
    grants.allow(NAME, None, ["pull", "push"])
    await create(context, NAME.name, ADMIN)
    assert await may(context, replace(WRITER, grants=grants)) == set()
    assert await may(context, replace(ADMIN, grants=grants)) == {"pull", "push"}
