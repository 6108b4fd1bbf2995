"""The lists of a repository: commits, tags, referrers, and the catalogue of a user's repositories."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers import db
from polly_dockers.errors import TagInvalid, TagUnknown, Unauthorized
from polly_dockers.model import Digest, RepositoryName
from polly_dockers.registry import history
from support.use_cases import (
    NAME,
    ORG,
    OTHER_ORG,
    OUTSIDER,
    READER,
    commits,
    create,
    delete,
    index_of,
    push_image,
    push_manifest,
    restore,
)
from support.wire_client import OCI_INDEX, OCI_MANIFEST, descriptor, dumps, image

if TYPE_CHECKING:
    from polly_dockers.context import Context

pytestmark = pytest.mark.usefixtures("repository")


async def test_commits_come_in_pages(context: Context) -> None:
    """Pages of commits follow one another, newest or oldest first, and count all commits."""
    pushed = [await push_image(context, image(), "v1") for _ in range(5)]
    for newest_first, wanted in ((True, pushed[::-1]), (False, pushed)):
        found: list[str] = []
        after: int | None = None
        while True:
            page, after, total = await history.commits(
                context, READER, NAME, tag=None, newest_first=newest_first, limit=2, after=after
            )
            found += [each.digest for each in page]
            assert total == 5
            if after is None:
                break
        assert found == wanted


async def test_commits_of_one_tag(context: Context) -> None:
    """The commits of one tag are those of no other tag."""
    first, second = image(), image()
    await push_image(context, first, "v1")
    await push_image(context, second, "v2")
    assert [each.digest for each in await commits(context, "v1")] == [first.digest]


async def test_commits_of_a_tag_that_never_was(context: Context) -> None:
    """A tag that nothing was pushed to is an error, and so is a text that is not a valid tag."""
    with pytest.raises(TagUnknown):
        await commits(context, "v1")
    with pytest.raises(TagInvalid):
        await commits(context, "no tag")


async def test_commits_of_a_tag_that_are_in_the_trash(context: Context) -> None:
    """The error says that they are there, and which command restores the last one."""
    made = image()
    await push_image(context, made, "v1")
    await delete(context, commit=made.digest)
    with pytest.raises(TagUnknown, match=r"in the trash.*polly dockers restore --name team/app --tag v1$"):
        await commits(context, "v1")
    await restore(context, tag="v1")
    assert [each.digest for each in await commits(context, "v1")] == [made.digest]


async def test_commits_in_the_trash_that_no_tag_had(context: Context) -> None:
    """If the tag moved to another manifest and was purged, the error's command names the digest."""
    made, later = image(), image()
    await push_image(context, made, "v1")
    await push_image(context, later, "v1")
    await delete(context, commit=made.digest)
    item = await delete(context, commit=later.digest)
    await context.database.write(db.trash.claim, item)
    with pytest.raises(TagUnknown, match=rf"in the trash.*restore --name team/app --commit {made.digest}$"):
        await commits(context, "v1")


async def test_a_commit_names_the_platform(context: Context) -> None:
    """A commit of an image has the platform of its config, and one of an index those of its entries."""
    made = image()
    await push_image(context, made, "one")
    index: dict[str, Any] = index_of(made)
    index["manifests"][0]["platform"] = {"os": "linux", "architecture": "arm64"}
    await push_manifest(context, dumps(index), "all", media_type=OCI_INDEX)
    [both, one] = await commits(context)
    assert one.platforms == ("linux/amd64",)
    assert both.platforms == ("linux/arm64",)


async def test_active_commits_are_the_tags(context: Context) -> None:
    """The list of tags has each tag once, with its newest commit."""
    await push_image(context, image(), "v1")
    second, third = image(), image()
    await push_image(context, second, "v1")
    await push_image(context, third, "v2")
    page, _, total = await history.active_commits(context, READER, NAME, newest_first=True, limit=10, after=None)
    assert [(each.tag, each.digest) for each in page] == [("v2", third.digest), ("v1", second.digest)]
    assert total == 2


async def test_tags_come_in_their_order(context: Context) -> None:
    """The registry protocol lists tags in the order of their bytes, after a given one."""
    for tag in ("b", "B", "a", "_"):
        await push_image(context, image(), tag)
    assert await history.tags(context, READER, NAME, last="", limit=10) == ["B", "_", "a", "b"]
    assert await history.tags(context, READER, NAME, last="_", limit=1) == ["a"]


async def test_referrers_are_found_by_their_subject(context: Context) -> None:
    """What names an image as its subject is found, all of it or by its artifact type."""
    made = image()
    await push_image(context, made, "v1")
    subject = descriptor(made.manifest, OCI_MANIFEST)
    signature = image(subject=subject, artifactType="application/x.signature")
    bill = image(subject=subject, artifactType="application/x.sbom")
    for each in (signature, bill):
        await push_image(context, each)

    async def found(*types: str) -> set[str]:
        items, after = await history.referrers(
            context, READER, NAME, Digest(made.digest), artifact_types=types, after=0
        )
        assert after is None
        return {json.loads(item)["digest"] for item in items}

    assert await found() == {signature.digest, bill.digest}
    assert await found("application/x.sbom") == {bill.digest}
    assert await found("application/x.other") == set()


async def test_a_page_of_referrers_looks_at_few(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a filter a page may be empty although another follows, so that each page reads a limited number of rows."""
    monkeypatch.setattr(history, "REFERRERS", 2)
    made = image()
    await push_image(context, made, "v1")
    subject = descriptor(made.manifest, OCI_MANIFEST)
    pushed = [image(subject=subject, artifactType=f"application/x.{kind}") for kind in "aaaaab"]
    for each in pushed:
        await push_image(context, each)
    pages: list[list[str]] = []
    after: int | None = 0
    while after is not None:
        found, after = await history.referrers(
            context, READER, NAME, Digest(made.digest), artifact_types=["application/x.b"], after=after
        )
        pages.append([json.loads(item)["digest"] for item in found])
    assert pages == [[], [], [pushed[-1].digest]]


async def test_a_large_fallback_tag_is_not_read(context: Context) -> None:
    """It would be parsed for each list. Manifests whose subject is the digest are listed anyway."""
    made, other = image(), image()
    await push_image(context, made, "v1")
    signature = image(subject=descriptor(made.manifest, OCI_MANIFEST))
    for each in (other, signature):
        await push_image(context, each)
    small = index_of(other, signature)
    large = small | {"annotations": {"a": "x" * history.FALLBACK}}
    listed = []
    for document in (small, large):
        await push_manifest(context, dumps(document), made.digest.replace(":", "-"), media_type=OCI_INDEX)
        found, _ = await history.referrers(context, READER, NAME, Digest(made.digest), artifact_types=[], after=0)
        listed.append({json.loads(item)["digest"] for item in found})
    assert listed == [{other.digest, signature.digest}, {signature.digest}]


async def test_referrers_of_the_fallback_tag(context: Context) -> None:
    """An entry that an older client keeps under the tag of a digest counts as a referrer."""
    made, signature = image(), image()
    await push_image(context, made, "v1")
    await push_image(context, signature)
    index = dumps(index_of(signature))
    await push_manifest(context, index, made.digest.replace(":", "-"), media_type=OCI_INDEX)
    [item], _ = await history.referrers(context, READER, NAME, Digest(made.digest), artifact_types=(), after=0)
    assert json.loads(item)["digest"] == signature.digest


async def test_the_catalogue_is_that_of_the_user(context: Context) -> None:
    """The catalogue lists the repositories of the user's organisations, and takes a token for it."""
    await create(context, "b")
    await create(context, "other", OUTSIDER, org=OTHER_ORG)
    reader = replace(READER, catalog=True)
    assert await history.catalog(context, reader, last="", limit=10) == [f"{ORG}/b", NAME]
    assert await history.catalog(context, reader, last=f"{ORG}/b", limit=10) == [NAME]
    with pytest.raises(Unauthorized):
        await history.catalog(context, READER, last="", limit=10)


async def test_a_missing_repository_has_no_referrers(context: Context) -> None:
    """For a member, a repository that does not exist has no referrers."""
    digest = Digest(image().digest)
    name = RepositoryName(f"{ORG}/other")
    found = await history.referrers(context, READER, name, digest, artifact_types=(), after=0)
    assert found == ([], None)
