"""Pushing images: what is stored, what becomes a commit, and what is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers import db
from polly_dockers.auth import members
from polly_dockers.errors import DigestInvalid, ManifestBlobUnknown, ManifestInvalid, NameUnknown
from polly_dockers.model import RepositoryName
from polly_dockers.registry import push, repositories
from support.damage import damage_manifest
from support.use_cases import (
    ADMIN,
    NAME,
    ORG,
    READER,
    WRITER,
    commits,
    email,
    index_of,
    pull_manifest,
    push_blob,
    push_image,
    push_manifest,
)
from support.wire_client import OCI_INDEX, descriptor, dumps, image, sha256, sha512

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context

pytestmark = pytest.mark.usefixtures("repository")


async def test_a_push_to_a_tag_is_a_commit(context: Context) -> None:
    """A push to a new tag makes one active commit by the user who pushed."""
    made = image()
    await push_image(context, made, "v1")
    [commit] = await commits(context)
    assert (commit.tag, commit.digest, commit.active) == ("v1", made.digest, True)
    assert commit.pushed_by == email(WRITER)


async def test_overwriting_a_tag_keeps_the_older_commit(context: Context) -> None:
    """After a tag is overwritten, the older image is inactive and can still be pulled by its digest."""
    first, second = image(), image()
    await push_image(context, first, "latest")
    await push_image(context, second, "latest")
    assert [(each.digest, each.active) for each in await commits(context)] == [
        (second.digest, True),
        (first.digest, False),
    ]
    assert await pull_manifest(context, "latest") == second.manifest
    assert await pull_manifest(context, first.digest) == first.manifest


async def test_pushing_the_same_image_again_is_no_commit(context: Context) -> None:
    """A push that leaves a tag where it is makes no commit."""
    made = image()
    await push_image(context, made, "v1")
    await push_image(context, made, "v1")
    assert len(await commits(context)) == 1


@pytest.mark.parametrize("wrong", [b"", b"{}", None], ids=["empty", "short", "one byte"])
async def test_a_push_replaces_damaged_bytes(context: Context, wrong: bytes | None) -> None:
    """33: a manifest whose bytes in the database were damaged gets its right bytes, by tag and by digest; no commit."""
    made = image()
    await push_image(context, made, "v1")
    for tags in (("v1",), ()):
        await context.database.write(damage_manifest, made.digest, wrong)
        assert await pull_manifest(context, "v1") != made.manifest
        await push_manifest(context, made.manifest, *tags, media_type=made.media_type)
        assert await pull_manifest(context, "v1") == made.manifest
    assert len(await commits(context)) == 1


async def test_a_push_replaces_damaged_bytes_of_an_incomplete_image(context: Context) -> None:
    """33: also if the manifest lacks something that it names."""
    await repositories.update(
        context, ADMIN, ORG, NAME.name, description=None, wanted_access=None, sparse_indexes="allow"
    )
    body = dumps(index_of(image()))
    await push_manifest(context, body, "v1", media_type=OCI_INDEX)
    await context.database.write(damage_manifest, sha256(body), b"{}")
    await push_manifest(context, body, "v1", media_type=OCI_INDEX)
    assert await pull_manifest(context, "v1") == body


async def test_a_rollback_is_a_commit(context: Context) -> None:
    """A push that sets a tag back to an older image makes a new commit of that image."""
    first, second = image(), image()
    for made in (first, second, first):
        await push_image(context, made, "v1")
    assert [each.digest for each in await commits(context)] == [first.digest, second.digest, first.digest]


async def test_a_push_by_digest_sets_no_tag(context: Context) -> None:
    """A manifest that is pushed by its digest can be pulled, and makes no commit."""
    made = image()
    await push_image(context, made)
    assert await pull_manifest(context, made.digest) == made.manifest
    assert await commits(context) == []


async def test_a_manifest_keeps_its_sha512_digest(context: Context) -> None:
    """A manifest that is pushed under a sha512 digest is pulled by that digest."""
    made = image()
    for blob in made.blobs:
        await push_blob(context, blob)
    digest = await push_manifest(context, made.manifest, digest=sha512(made.manifest))
    assert digest == sha512(made.manifest)
    assert await pull_manifest(context, digest) == made.manifest


async def test_a_manifest_with_another_digest_is_refused(context: Context) -> None:
    """A manifest whose bytes do not match its digest is not stored."""
    made = image()
    await push_image(context, made)
    other = made.manifest + b" "
    with pytest.raises(DigestInvalid):
        await push_manifest(context, other, digest=made.digest)


async def test_a_manifest_without_its_blobs_is_refused(context: Context) -> None:
    """A manifest is refused while the repository lacks a blob that it names, and the error names the blob."""
    made = image()
    await push_blob(context, made.blobs[0])
    with pytest.raises(ManifestBlobUnknown) as caught:
        await push_manifest(context, made.manifest, "v1")
    assert sha256(made.blobs[1]) in str(caught.value.detail)
    assert await commits(context) == []


async def test_a_manifest_with_a_wrong_size_is_refused(context: Context) -> None:
    """A manifest is refused if it gives a blob another size than the blob has."""
    made = image()
    for blob in made.blobs:
        await push_blob(context, blob)
    wrong = image(layers=[descriptor(made.blobs[1]) | {"size": 1}])
    await push_blob(context, wrong.blobs[0])
    with pytest.raises(ManifestInvalid):
        await push_manifest(context, wrong.manifest, "v1")


async def test_an_index_needs_its_images(context: Context) -> None:
    """An index is refused until all of its images are in the repository."""
    made = image()
    index = dumps(index_of(made))
    with pytest.raises(ManifestBlobUnknown):
        await push_manifest(context, index, "all", media_type=OCI_INDEX)
    await push_image(context, made)
    await push_manifest(context, index, "all", media_type=OCI_INDEX)
    assert await pull_manifest(context, "all") == index


async def test_large_manifests_are_stored_one_at_a_time(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps the writer busy for long, so of one process only one waits for it at a time."""
    waiting, most = [0], [0]
    write = context.database.write

    async def counted(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - the types of the database
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        try:
            return await write(*args, **kwargs)
        finally:
            waiting[0] -= 1

    made = [image(annotations={"note": f"{number}" + "x" * push.LARGE}) for number in range(4)]
    for each in made:
        for blob in each.blobs:
            await push_blob(context, blob)
    monkeypatch.setattr(context.database, "write", counted)
    await asyncio.gather(*(push_manifest(context, each.manifest, f"v{at}") for at, each in enumerate(made)))
    assert most == [1]
    assert len(await commits(context)) == len(made)


async def test_a_sparse_index_may_lack_images(context: Context) -> None:
    """Where the repository allows sparse indexes, an index may name an image that is not there."""
    await repositories.update(
        context, ADMIN, ORG, NAME.name, description=None, wanted_access=None, sparse_indexes="allow"
    )
    index = dumps(index_of(image()))
    await push_manifest(context, index, "all", media_type=OCI_INDEX)
    assert await pull_manifest(context, "all") == index


async def test_a_push_to_a_missing_repository_names_the_command(context: Context) -> None:
    """A push to a repository that does not exist is refused with the command that creates it."""
    with pytest.raises(NameUnknown, match="polly dockers create --name other"):
        await push_image(context, image(), "v1", name=RepositoryName(f"{ORG}/other"))


async def test_create_on_push(context: Context) -> None:
    """Where the organisation allows it, a push creates the repository, and its member may pull from it."""
    name = RepositoryName(f"{ORG}/made/by/push")
    await context.database.write(_allow_create_on_push)
    made = image()
    await push_image(context, made, "v1", name=name)
    assert await pull_manifest(context, "v1", actor=READER, name=name) == made.manifest


def _allow_create_on_push(connection: Connection) -> None:
    db.accounts.set_create_on_push(connection, members.require_organisation(connection, ORG), on=True)
