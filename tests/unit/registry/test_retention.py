"""Policies: what a rule keeps, what it moves to the trash, and what a preview says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.db.retention import Policy
from polly_dockers.errors import BadRequest, Denied, ManifestUnknown
from polly_dockers.registry import retention
from polly_dockers.system.durations import SECONDS_PER_DAY as DAY
from support.use_cases import (
    ADMIN,
    NAME,
    ORG,
    READER,
    WRITER,
    audited,
    collect,
    commits,
    create,
    index_of,
    pull_manifest,
    push_image,
    push_manifest,
    restore,
)
from support.wire_client import OCI_INDEX, OCI_MANIFEST, descriptor, dumps, image

if TYPE_CHECKING:
    from polly_dockers.context import Context
    from polly_dockers.model import Actor
    from support.use_cases import Clock

pytestmark = pytest.mark.usefixtures("repository")

NEWEST = Policy(newest=1)


async def keep(
    context: Context, policy: Policy | None, name: str | None = None, *, actor: Actor = ADMIN
) -> retention.Preview:
    """Set the policy of the organisation, or of one repository; what would go now."""
    _, preview = await retention.write(context, actor, ORG, name, policy, preview=False)
    return preview


async def push_three(context: Context) -> list[str]:
    """Push three images to one tag, and let the leases of their blobs end; their digests, oldest first."""
    return [await push_image(context, image(), "v1") for _ in range(3)]


async def test_without_a_policy_everything_is_kept(context: Context, clock: Clock) -> None:
    """Without a policy, commits of any age are kept."""
    pushed = await push_three(context)
    clock.advance(days=4000)
    assert (await collect(context)).expired == 0
    assert [each.digest for each in await commits(context)] == pushed[::-1]


async def test_a_policy_that_is_set_already_adds_no_entry(context: Context) -> None:
    """The audit log has one entry for each change of an organisation's policy, or of a repository's own."""
    await keep(context, Policy())
    await keep(context, None, NAME.name)
    for policy, name in ((NEWEST, None), (NEWEST, NAME.name), (None, NAME.name), (Policy(), None)):
        await keep(context, policy, name)
        await keep(context, policy, name)
    assert await audited(context, "policy-update") == ["keep newest 1", "keep newest 1", "inherit", "keep everything"]


async def test_the_newest_commits_of_each_tag_are_kept(context: Context, clock: Clock) -> None:
    """With the rule newest, so many commits of each tag stay, and the older ones are moved to the trash."""
    first, second, third = await push_three(context)
    other = await push_image(context, image(), "v2")
    await keep(context, Policy(newest=2))
    clock.advance(days=2)
    assert (await collect(context)).expired == 1
    assert {each.digest for each in await commits(context)} == {second, third, other}
    with pytest.raises(ManifestUnknown, match="by a policy"):
        await pull_manifest(context, first)


async def test_young_commits_are_kept(context: Context, clock: Clock) -> None:
    """With the rule younger, a commit goes once it is older and no tag has it."""
    await push_image(context, image(), "v1")
    clock.advance(days=8)
    young = await push_image(context, image(), "v1")
    active = await push_image(context, image(), "v1")
    await keep(context, Policy(younger=7 * DAY))
    assert (await collect(context)).expired == 1
    clock.advance(days=30)
    assert [each.digest for each in await commits(context)] == [active, young]
    assert (await collect(context)).expired == 1
    assert [each.digest for each in await commits(context)] == [active]


async def test_what_was_pulled_lately_is_kept(context: Context, clock: Clock) -> None:
    """With the rule pulled, a commit that was pulled lately stays."""
    first, _, third = await push_three(context)
    await keep(context, Policy(pulled=7 * DAY))
    clock.advance(days=10)
    await pull_manifest(context, first)
    assert (await collect(context)).expired == 1
    assert [each.digest for each in await commits(context)] == [third, first]


async def test_an_active_index_keeps_its_images(context: Context, clock: Clock) -> None:
    """An image stays while an index that stays names it, and so does a referrer of an image that stays."""
    made = image()
    await push_image(context, made, "one")
    signature = image(subject=descriptor(made.manifest, OCI_MANIFEST))
    await push_image(context, signature)
    await push_manifest(context, dumps(index_of(made)), "all", media_type=OCI_INDEX)
    await push_image(context, image(), "one")
    await keep(context, NEWEST)
    clock.advance(days=10)
    assert (await collect(context)).expired == 0
    assert await pull_manifest(context, made.digest) == made.manifest
    assert await pull_manifest(context, signature.digest) == signature.manifest


async def test_a_repository_has_a_policy_of_its_own(context: Context, clock: Clock) -> None:
    """The policy of a repository takes the place of the organisation's until it inherits again."""
    await push_three(context)
    await keep(context, NEWEST)
    await keep(context, Policy(), NAME.name)
    clock.advance(days=10)
    assert (await collect(context)).expired == 0
    own = await retention.read(context, READER, ORG, limit=10, after="")
    assert own[:2] == (NEWEST, [(NAME.name, Policy())])
    preview = await keep(context, None, NAME.name)
    assert preview.manifests == 2
    assert (await collect(context)).expired == 2


async def test_a_preview_is_what_goes(context: Context, clock: Clock) -> None:
    """A preview names what would go and changes nothing; then exactly that goes."""
    first, second, _ = await push_three(context)
    clock.advance(days=10)
    holds, preview = await retention.write(context, ADMIN, ORG, None, NEWEST, preview=True)
    assert holds == NEWEST
    assert [each.digest for each in preview.items] == [second, first]
    assert (preview.manifests, preview.commits, preview.complete) == (2, 2, True)
    assert (await collect(context)).expired == 0
    await keep(context, NEWEST)
    assert (await collect(context)).expired == 2


async def test_a_preview_of_a_later_moment(context: Context, clock: Clock) -> None:
    """A preview as of a later moment names what goes until then."""
    await push_three(context)
    later = Policy(younger=30 * DAY)
    at = (await commits(context))[0].pushed_at
    for days, number in ((29, 0), (31, 2)):
        moment = at + days * DAY * 1_000_000
        _, preview = await retention.write(context, ADMIN, ORG, None, later, preview=True, as_of=moment)
        assert preview.manifests == number
    with pytest.raises(BadRequest):
        await retention.write(context, ADMIN, ORG, None, later, preview=False, as_of=at)
    clock.advance(days=400)
    with pytest.raises(BadRequest):
        await retention.preview(context, ADMIN, ORG, None, as_of=at)


async def test_what_a_policy_took_is_restored(context: Context, clock: Clock) -> None:
    """What a policy moved to the trash can be restored, and then counts as pulled at that moment."""
    first, *_ = await push_three(context)
    await keep(context, Policy(pulled=7 * DAY))
    clock.advance(days=10)
    assert (await collect(context)).expired == 2
    await restore(context, commit=first)
    assert (await collect(context)).expired == 0
    assert first in [each.digest for each in await commits(context)]


@pytest.mark.parametrize("actor", [READER, WRITER])
async def test_only_an_admin_sets_a_policy(context: Context, actor: Actor) -> None:
    """Members see policies, and only admins set or preview them."""
    for preview in (True, False):
        with pytest.raises(Denied):
            await retention.write(context, actor, ORG, None, NEWEST, preview=preview)
    assert (await retention.read(context, actor, ORG, limit=10, after=""))[0] == Policy()


@pytest.mark.parametrize(
    ("keep", "younger", "newest", "pulled"),
    [
        ("rules", None, None, None),
        ("everything", DAY, None, None),
        ("inherit", None, 1, None),
        ("rules", DAY - 1, None, None),
        ("rules", None, 0, None),
        ("rules", None, 1001, None),
        ("rules", None, None, 101 * 366 * DAY),
    ],
)
def test_rules_have_bounds(keep: str, younger: int | None, newest: int | None, pulled: int | None) -> None:
    """A policy without a rule, or with a rule out of its bounds, is refused."""
    with pytest.raises(BadRequest):
        retention.parse(keep, younger, newest, pulled)


async def test_an_organisation_cannot_inherit(context: Context) -> None:
    """Only a repository can inherit a policy."""
    await create(context, "other")
    with pytest.raises(BadRequest):
        await keep(context, None)
