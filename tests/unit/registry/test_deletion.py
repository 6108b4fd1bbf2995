"""Deleting tags, commits and docker repositories, and restoring them from the trash."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from polly_dockers.db import schema
from polly_dockers.errors import (
    BlobUnknown,
    Denied,
    DigestAmbiguous,
    ManifestUnknown,
    NameExists,
    NameUnknown,
    NotInTrash,
    TagExists,
    Unsupported,
)
from polly_dockers.model import Digest, RepositoryName, Tag
from polly_dockers.registry import deletion, history, pull
from support.memory_blob_store import MemoryBlobStore
from support.use_cases import (
    ADMIN,
    NAME,
    ORG,
    READER,
    WRITER,
    collect,
    commits,
    create,
    delete,
    email,
    index_of,
    pull_manifest,
    push_blob,
    push_image,
    push_manifest,
    restore,
)
from support.wire_client import OCI_INDEX, Image, descriptor, dumps, image, sha256

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from polly_dockers.context import Context
    from polly_dockers.model import Actor
    from support.use_cases import Clock

pytestmark = pytest.mark.usefixtures("repository")


async def gone(context: Context, reference: str, error: type[Exception] = ManifestUnknown) -> None:
    """A reader cannot pull it."""
    with pytest.raises(error):
        await pull_manifest(context, reference)


async def test_a_deleted_tag_leaves_its_commits(context: Context) -> None:
    """A deleted tag cannot be pulled; its commits stay, inactive, and are pulled by digest."""
    made = image()
    await push_image(context, made, "v1")
    await delete(context, tag="v1")
    await gone(context, "v1")
    assert [each.active for each in await commits(context)] == [False]
    assert await pull_manifest(context, made.digest) == made.manifest


async def test_a_deleted_commit_takes_its_tags_along(context: Context) -> None:
    """A deleted commit is pulled neither by its digest nor by its tags, and other tags stay."""
    made, other = image(), image()
    await push_image(context, made, "v1", "latest")
    await push_image(context, other, "v2")
    item = await delete(context, commit=made.digest)
    assert set(item.tags) == {"v1", "latest"}
    for reference in ("v1", "latest", made.digest):
        await gone(context, reference)
    assert await pull_manifest(context, "v2") == other.manifest


async def test_a_commit_is_deleted_by_the_beginning_of_itssha256(context: Context) -> None:
    """The beginning of a digest names the one commit that begins so, and no commit of another beginning."""
    made = image()
    await push_image(context, made, "v1")
    other = "0" * 6 if not made.digest.startswith("sha256:000000") else "1" * 6
    with pytest.raises(ManifestUnknown):
        await delete(context, commit=other)
    item = await delete(context, commit=made.digest.removeprefix("sha256:")[:8])
    assert item.name == made.digest


async def test_an_ambiguous_beginning_is_refused(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several commits begin with the same digits, the error names them, and nothing is deleted."""
    made = [image(), image()]
    for each in made:
        await push_image(context, each, each.digest[7:13])
    found = sorted(each.digest for each in made)
    monkeypatch.setattr("polly_dockers.db.deleted.manifests_from", lambda *_: found)
    with pytest.raises(DigestAmbiguous) as caught:
        await delete(context, commit=made[0].digest[:13])
    assert caught.value.detail == {"candidates": found}
    assert len(await commits(context)) == 2


async def test_a_preview_deletes_nothing(context: Context) -> None:
    """A preview shows what would be deleted, and deletes nothing."""
    made = image()
    await push_image(context, made, "v1")
    item = await delete(context, commit=made.digest, preview=True)
    assert (item.name, item.tags) == (made.digest, ("v1",))
    assert await pull_manifest(context, "v1") == made.manifest
    assert (await deletion.page(context, READER, ORG, limit=10, after=None))[0] == []


@pytest.mark.parametrize("what", ["tag", "commit", "repository"])
async def test_a_preview_only_reads(context: Context, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A preview shows what the deletion then returns, and does not need the writer, which others wait for."""
    made = image()
    await push_image(context, made, "v1", "latest")
    await push_image(context, image(), "v1")
    tag, commit = ("v1" if what == "tag" else None), (made.digest[:20] if what == "commit" else None)
    await history.update_totals(context)
    with monkeypatch.context() as patched:
        patched.setattr(context.database, "write", None)
        seen = await delete(context, tag=tag, commit=commit, preview=True)
        with pytest.raises(ManifestUnknown):
            await delete(context, tag="other", preview=True)
        with pytest.raises(Denied):
            await delete(context, WRITER, tag=tag, commit=commit, preview=True)
    item = await delete(context, tag=tag, commit=commit)
    assert replace(seen, id=item.id, deleted_at=item.deleted_at, repository=item.repository) == item


async def test_a_part_of_an_index_is_kept(context: Context) -> None:
    """An image of an index cannot be deleted before the index is."""
    made = image()
    await push_image(context, made)
    index = dumps(index_of(made))
    digest = await push_manifest(context, index, "all", media_type=OCI_INDEX)
    with pytest.raises(Denied, match=digest):
        await delete(context, commit=made.digest)
    await delete(context, commit=digest)
    await delete(context, commit=made.digest)


async def test_a_deleted_repository_is_gone_at_once(context: Context) -> None:
    """Nothing of a deleted repository can be pulled, and its name is free."""
    made = image()
    await push_image(context, made, "v1")
    await delete(context)
    await gone(context, "v1", NameUnknown)
    await create(context, NAME.name)
    await gone(context, made.digest)


@pytest.mark.parametrize("what", ["tag", "commit", "repository"])
async def test_what_was_deleted_is_restored(context: Context, what: str) -> None:
    """A tag, a commit or a repository is as it was before, once it is restored."""
    first, second = image(), image()
    await push_image(context, first, "v1")
    await push_image(context, second, "v1", "latest")
    before = await commits(context)
    tag, commit = ("v1" if what == "tag" else None), (second.digest if what == "commit" else None)
    await delete(context, tag=tag, commit=commit)
    await restore(context, tag=tag, commit=commit)
    assert await commits(context) == before
    assert await pull_manifest(context, "v1") == second.manifest
    with pytest.raises(NotInTrash):
        await restore(context, tag=tag, commit=commit)


async def test_a_repository_is_restored_under_another_name(context: Context) -> None:
    """A repository whose name was taken meanwhile is restored under a new one."""
    made = image()
    await push_image(context, made, "v1")
    await delete(context)
    await create(context, NAME.name)
    with pytest.raises(NameExists):
        await restore(context)
    await restore(context, new_name="team/old")
    assert await pull_manifest(context, "v1", name=RepositoryName(f"{ORG}/team/old")) == made.manifest


async def test_a_tag_that_was_pushed_again_is_not_overwritten(context: Context) -> None:
    """A tag that was pushed again after it was deleted stays where it is."""
    first, second = image(), image()
    await push_image(context, first, "v1")
    await delete(context, tag="v1")
    await push_image(context, second, "v1")
    with pytest.raises(TagExists):
        await restore(context, tag="v1")
    assert await pull_manifest(context, "v1") == second.manifest


async def test_pushing_deleted_content_again_needs_no_restore(context: Context) -> None:
    """An image that was deleted can be pushed again."""
    made = image()
    await push_image(context, made, "v1")
    await delete(context, commit=made.digest)
    await push_image(context, made, "v2")
    assert await pull_manifest(context, "v2") == made.manifest
    await gone(context, "v1")


async def test_a_member_is_told_of_the_trash(context: Context) -> None:
    """The error for a member who pulls what was deleted says who deleted it and how to restore it."""
    await push_image(context, image(), "v1")
    await delete(context, tag="v1")
    with pytest.raises(ManifestUnknown) as caught:
        await pull_manifest(context, "v1")
    assert email(ADMIN) in caught.value.message
    assert f"polly dockers restore --name {NAME.name} --tag v1" in caught.value.message


async def test_the_trash_lists_what_was_deleted(context: Context) -> None:
    """The trash lists what was deleted, newest first, with who deleted it."""
    made = image()
    await push_image(context, made, "v1", "v2")
    await delete(context, tag="v2")
    await delete(context, commit=made.digest)
    items, following, total = await deletion.page(context, READER, ORG, limit=10, after=None)
    assert [(each.kind, each.name, each.deleted_by) for each in items] == [
        ("commit", made.digest, email(ADMIN)),
        ("tag", "v2", email(ADMIN)),
    ]
    assert (following, total) == (None, 2)


async def test_the_trash_is_kept_for_its_days(context: Context, clock: Clock) -> None:
    """What was deleted is restored within trash_days, and is gone for good after them."""
    made, other = image(), image()
    await push_image(context, made, "v1")
    await push_image(context, other, "v2")
    await delete(context, commit=made.digest)
    clock.advance(days=29)
    assert (await collect(context)).purged == 0
    await delete(context, commit=other.digest)
    clock.advance(days=2)
    assert (await collect(context)).purged == 1
    with pytest.raises(NotInTrash):
        await restore(context, commit=made.digest)
    await restore(context, commit=other.digest)
    assert await pull_manifest(context, "v2") == other.manifest


async def test_the_bytes_of_a_purged_image_are_freed(context: Context, clock: Clock) -> None:
    """After an image is purged, its blobs go too, and blobs that another image names stay."""
    gone_image = image("only here")
    kept = Image(*_with_layer(gone_image))
    await push_image(context, gone_image, "v1")
    await push_image(context, kept, "v2")
    await delete(context, commit=gone_image.digest)
    for days in (31, 2, 1):
        clock.advance(days=days)
        await collect(context)
    found = await pull.blob(context, READER, NAME, Digest(sha256(gone_image.blobs[1])))
    assert found.size == len(gone_image.blobs[1])
    assert await pull_manifest(context, "v2") == kept.manifest
    assert not any(sha256(gone_image.blobs[0])[7:] in key for key in _keys(context))


@pytest.mark.parametrize("actor", [READER, WRITER])
async def test_only_an_admin_deletes(context: Context, actor: Actor) -> None:
    """Readers and writers can delete and restore nothing."""
    made = image()
    await push_image(context, made, "v1")
    for tag, commit in ((None, None), ("v1", None), (None, made.digest)):
        with pytest.raises(Denied):
            await delete(context, actor, tag=tag, commit=commit)
    await delete(context, tag="v1")
    with pytest.raises(Denied):
        await restore(context, actor, tag="v1")


async def test_the_audit_log_names_few_tags(context: Context) -> None:
    """An image may have thousands of tags, and a page of the log is read on the event loop."""
    names = [f"t{number:02}" for number in range(deletion.NAMED + 5)]
    await push_image(context, made := image(), *names)
    assert (await delete(context, commit=made.digest)).tags == tuple(names)
    query = sqlalchemy.select(schema.audit.c.detail).where(schema.audit.c.event == "delete")
    detail = await context.database.read(lambda connection: connection.execute(query).scalar_one())
    assert detail == f"with the tags {' '.join(names[: deletion.NAMED])} and 5 more"


async def test_a_server_may_forbid_deleting(open_context: Callable[..., Awaitable[Context]]) -> None:
    """With manifest_delete and blob_delete set to deny, the registry protocol deletes nothing; polly still can."""
    context = await open_context(manifest_delete="deny", blob_delete="deny")
    await create(context, NAME.name)
    made = image()
    await push_image(context, made, "v1")
    for reference in (Tag("v1"), Digest(made.digest)):
        with pytest.raises(Unsupported):
            await deletion.delete_manifest(context, ADMIN, NAME, reference)
    with pytest.raises(Unsupported):
        await deletion.delete_blob(context, ADMIN, NAME, Digest(sha256(made.blobs[0])))
    assert (await delete(context, tag="v1")).name == "v1"


async def test_a_blob_in_use_is_kept(context: Context) -> None:
    """A blob that a manifest names cannot be deleted, and one that none names can."""
    made = image()
    await push_image(context, made, "v1")
    with pytest.raises(Denied):
        await deletion.delete_blob(context, ADMIN, NAME, Digest(sha256(made.blobs[0])))
    unused = await push_blob(context, b"unused")
    await deletion.delete_blob(context, ADMIN, NAME, unused)
    with pytest.raises(BlobUnknown):
        await pull.blob(context, READER, NAME, unused)


def _keys(context: Context) -> list[str]:
    assert isinstance(context.blobs, MemoryBlobStore)
    return list(context.blobs.blobs)


def _with_layer(other: Image) -> tuple[bytes, str, tuple[bytes, ...]]:
    """Another image with the same layer."""
    made = image(layers=[descriptor(other.blobs[1])])
    return made.manifest, made.media_type, (made.blobs[0], other.blobs[1])
