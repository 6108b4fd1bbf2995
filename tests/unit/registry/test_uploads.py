"""Uploading blobs: in one request, in chunks, and by mounting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.errors import BlobUploadUnknown, ClientGone, DigestInvalid, RangeInvalid, SizeInvalid
from polly_dockers.model import Digest, RepositoryName
from polly_dockers.registry import pull, uploads
from support.use_cases import ADMIN, NAME, OTHER_ORG, OUTSIDER, READER, WRITER, Body, create, push_blob
from support.wire_client import sha256

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from polly_dockers.context import Context

pytestmark = pytest.mark.usefixtures("repository")

DATA = b"twelve bytes"
DIGEST = Digest(sha256(DATA))


async def stored(context: Context, digest: Digest = DIGEST, name: RepositoryName = NAME) -> bytes:
    """The bytes of a blob, as a reader pulls them."""
    found = await pull.blob(context, READER, name, digest)
    blob = await pull.open_blob(context, found)
    try:
        return await blob.read(0, blob.size)
    finally:
        blob.close()


async def test_a_blob_in_one_request(context: Context) -> None:
    """A blob that is pushed in one request is pulled byte for byte."""
    await push_blob(context, DATA)
    assert await stored(context) == DATA


async def test_a_blob_in_chunks(context: Context) -> None:
    """A blob that is appended in chunks is the same as one that is pushed whole."""
    upload = await uploads.start(context, WRITER, NAME)
    begun = await uploads.append(context, WRITER, NAME, upload.id, Body(DATA[:5]), (0, 4))
    assert begun.size == 5
    await uploads.finish(context, WRITER, NAME, upload.id, DIGEST, Body(DATA[5:]), (5, 11))
    assert await stored(context) == DATA


async def test_a_chunk_out_of_order_is_refused(context: Context) -> None:
    """A chunk that does not begin where the upload ends is refused, and the upload stays as it is."""
    upload = await uploads.start(context, WRITER, NAME)
    await uploads.append(context, WRITER, NAME, upload.id, Body(DATA[:5]), None)
    with pytest.raises(RangeInvalid):
        await uploads.append(context, WRITER, NAME, upload.id, Body(DATA[7:]), (7, 11))
    assert (await uploads.find(context, WRITER, NAME, upload.id)).size == 5


async def test_a_chunk_of_another_length_is_refused(context: Context) -> None:
    """A chunk with fewer bytes than its range is refused, and nothing of it is kept."""
    upload = await uploads.start(context, WRITER, NAME)
    body = Body(DATA[:3])
    body.length = None  # a chunked request
    with pytest.raises(SizeInvalid):
        await uploads.append(context, WRITER, NAME, upload.id, body, (0, 4))
    assert (await uploads.find(context, WRITER, NAME, upload.id)).size == 0


async def test_a_blob_with_another_digest_is_refused(context: Context) -> None:
    """Bytes that do not match their digest make no blob, and the upload can be finished with the right digest."""
    upload = await uploads.start(context, WRITER, NAME)
    with pytest.raises(DigestInvalid):
        await uploads.finish(context, WRITER, NAME, upload.id, Digest(sha256(b"other")), Body(DATA), None)
    await uploads.finish(context, WRITER, NAME, upload.id, DIGEST, Body(DATA), None)
    assert await stored(context) == DATA


async def test_a_broken_connection_keeps_what_arrived(context: Context) -> None:
    """The bytes that arrived before a connection broke are kept, so that the client can go on after them."""

    class Broken(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield DATA[:5]
            raise ClientGone

    upload = await uploads.start(context, WRITER, NAME)
    with pytest.raises(ClientGone):
        await uploads.append(context, WRITER, NAME, upload.id, Broken(), None)
    assert (await uploads.find(context, WRITER, NAME, upload.id)).size == 5
    await uploads.finish(context, WRITER, NAME, upload.id, DIGEST, Body(DATA[5:]), None)
    assert await stored(context) == DATA


async def test_an_upload_belongs_to_its_user(context: Context) -> None:
    """Another member who knows the id of an upload can neither see nor finish it."""
    upload = await uploads.start(context, WRITER, NAME)
    with pytest.raises(BlobUploadUnknown):
        await uploads.find(context, ADMIN, NAME, upload.id)
    with pytest.raises(BlobUploadUnknown):
        await uploads.finish(context, ADMIN, NAME, upload.id, DIGEST, Body(DATA), None)


async def test_an_upload_belongs_to_its_repository(context: Context) -> None:
    """The id of an upload is of no use in another repository."""
    upload = await uploads.start(context, WRITER, NAME)
    other = await create(context, "other")
    with pytest.raises(BlobUploadUnknown):
        await uploads.find(context, WRITER, other, upload.id)


async def test_a_cancelled_upload_is_gone(context: Context) -> None:
    """An upload can be cancelled once."""
    upload = await uploads.start(context, WRITER, NAME)
    await uploads.cancel(context, WRITER, NAME, upload.id)
    with pytest.raises(BlobUploadUnknown):
        await uploads.cancel(context, WRITER, NAME, upload.id)


@pytest.mark.parametrize("given", [True, False])
async def test_a_blob_is_mounted(context: Context, *, given: bool) -> None:
    """A blob of another repository of the organisation is mounted without its bytes, from a named source or any."""
    await push_blob(context, DATA)
    other = await create(context, "other")
    assert await uploads.mount(context, WRITER, other, DIGEST, NAME if given else None) == DIGEST
    assert await stored(context, name=other) == DATA


async def test_a_blob_of_others_is_not_mounted(context: Context) -> None:
    """A blob in an organisation of which the user is not a member cannot be mounted."""
    await push_blob(context, DATA)
    other = RepositoryName(f"{OTHER_ORG}/app")
    await create(context, "app", OUTSIDER, org=OTHER_ORG)
    assert await uploads.mount(context, OUTSIDER, other, DIGEST, NAME) is None
    assert await uploads.mount(context, OUTSIDER, other, DIGEST, None) is None
