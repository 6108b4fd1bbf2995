"""Creating docker repositories, changing them, and listing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.errors import BadRequest, Denied, NameExists, NameInvalid, NameUnknown, OrganisationUnknown
from polly_dockers.registry import repositories
from support.use_cases import ADMIN, NAME, ORG, OUTSIDER, READER, WRITER, audited, create, email, push_image
from support.wire_client import image

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from polly_dockers.context import Context
    from polly_dockers.model import Actor, Repository


async def update(context: Context, actor: Actor, **values: str) -> Repository:
    """Change the repository ``NAME``."""
    given: dict[str, str | None] = {"description": None, "wanted_access": None, "sparse_indexes": None}
    given |= values
    return await repositories.update(
        context,
        actor,
        ORG,
        NAME.name,
        description=given["description"],
        wanted_access=given["wanted_access"],
        sparse_indexes=given["sparse_indexes"],
    )


async def names(context: Context, *, search: str = "", by_push: bool = False) -> list[str]:
    """The names of the organisation's repositories; in the order of their creation, or by newest push."""
    found, _, total = await repositories.page(
        context, READER, ORG, by_push=by_push, newest_first=by_push, limit=10, after=None, search=search
    )
    assert total == len(found)
    return [each.name.name for each in found]


async def test_a_new_repository(context: Context) -> None:
    """A writer creates a private repository, and its totals are zero."""
    await create(context, NAME.name, WRITER)
    made = await repositories.one(context, READER, ORG, NAME.name)
    assert (made.name, made.access, made.created_by) == (NAME, "private", email(WRITER))
    assert (made.tags, made.commits, made.size, made.pushed_at) == (0, 0, 0, None)


async def test_a_name_is_taken_once(context: Context) -> None:
    """A second repository of the same name is refused."""
    await create(context, NAME.name)
    with pytest.raises(NameExists):
        await create(context, NAME.name, WRITER)


@pytest.mark.parametrize("name", ["Team", "a//b", "", "x" * 300])
async def test_a_wrong_name_is_refused(context: Context, name: str) -> None:
    """A text that Docker does not take as a name is refused."""
    with pytest.raises(NameInvalid):
        await create(context, name)


@pytest.mark.parametrize("description", ["", "  ", "x" * 1001])
async def test_a_description_is_needed(context: Context, description: str) -> None:
    """A description has 1 to 1000 characters."""
    with pytest.raises(BadRequest):
        await repositories.create(context, ADMIN, ORG, name="a", description=description, public=False)


@pytest.mark.usefixtures("repository")
async def test_totals_follow_pushes(context: Context) -> None:
    """The totals of a repository count its tags, its commits and its bytes, each blob once."""
    first, second = image("same layer"), image()
    await push_image(context, first, "v1", "latest")
    await push_image(context, second, "latest")
    found = await repositories.one(context, READER, ORG, NAME.name)
    blobs = {*first.blobs, *second.blobs}
    assert (found.tags, found.commits) == (2, 3)
    assert found.size == sum(map(len, blobs)) + len(first.manifest) + len(second.manifest)


@pytest.mark.usefixtures("repository")
async def test_a_writer_changes_the_description(context: Context) -> None:
    """A writer changes the description, and a reader does not."""
    assert (await update(context, WRITER, description="Another.")).description == "Another."
    with pytest.raises(Denied):
        await update(context, READER, description="Mine.")
    with pytest.raises(BadRequest):
        await update(context, WRITER)


async def test_only_an_admin_makes_a_repository_public(open_context: Callable[..., Awaitable[Context]]) -> None:
    """Where the server allows public repositories, an admin makes one public, and a writer does not."""
    context = await open_context(public_repositories="allow")
    await create(context, NAME.name, WRITER)
    with pytest.raises(Denied):
        await update(context, WRITER, wanted_access="public")
    assert (await update(context, ADMIN, wanted_access="public")).access == "public"
    with pytest.raises(Denied):
        await create(context, "other", WRITER, public=True)


@pytest.mark.usefixtures("repository")
async def test_a_server_keeps_repositories_private(context: Context) -> None:
    """Unless the server allows public repositories, no admin can make one public."""
    with pytest.raises(Denied, match="public_repositories"):
        await update(context, ADMIN, wanted_access="public")


async def test_a_reader_learns_the_role_that_is_needed(open_context: Callable[..., Awaitable[Context]]) -> None:
    """To make a repository public, it is admin at once, and not writer first."""
    context = await open_context(public_repositories="allow")
    await create(context, NAME.name, WRITER)
    for refused in (update(context, READER, wanted_access="public"), create(context, "other", READER, public=True)):
        with pytest.raises(Denied, match="you need the role admin, and yours is reader"):
            await refused
    with pytest.raises(Denied, match="You need the role writer"):
        await update(context, READER, wanted_access="private", description="Mine.")


@pytest.mark.usefixtures("repository")
async def test_only_changes_are_in_the_audit_log(context: Context) -> None:
    """What is set already adds no entry, and no word to the entry of another change."""
    before = await repositories.one(context, READER, ORG, NAME.name)
    await update(context, ADMIN, description=before.description, wanted_access="private")
    await update(context, ADMIN, description="Another.", wanted_access="private")
    await update(context, ADMIN, description="Another.")
    assert await audited(context, "repository-update") == ["description: Another."]


async def test_lists_are_sorted_and_searched(context: Context) -> None:
    """Repositories are listed by creation or by newest push, and found by a part of their name."""
    made = [await create(context, name) for name in ("b/app", "a", "c/app")]
    await push_image(context, image(), "v1", name=made[0])
    assert await names(context) == ["b/app", "a", "c/app"]
    assert (await names(context, by_push=True))[0] == "b/app"
    assert await names(context, search="app") == ["b/app", "c/app"]
    assert await names(context, search="x") == []


@pytest.mark.usefixtures("repository")
async def test_an_outsider_learns_nothing(context: Context) -> None:
    """Somebody who is not a member gets the same error whether the organisation exists or not."""
    with pytest.raises(OrganisationUnknown) as here:
        await repositories.one(context, OUTSIDER, ORG, NAME.name)
    with pytest.raises(OrganisationUnknown) as nowhere:
        await repositories.one(context, OUTSIDER, "nobody", NAME.name)
    assert here.value.message.replace(ORG, "nobody") == nowhere.value.message
    with pytest.raises(NameUnknown):
        await repositories.one(context, READER, ORG, "other")
