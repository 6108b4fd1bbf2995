"""Blobs on the wire: pull, push in one request or many, mount, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.errors import BlobUnknown, DigestInvalid
from polly_dockers.model import Digest, RepositoryName
from polly_dockers.registry import pull, removal, uploads
from polly_dockers.web import blob_response, ranges
from polly_dockers.web.authentication import registry_actor
from polly_dockers.web.errors import upload_headers
from polly_dockers.web.response import PLAIN, Answer

if TYPE_CHECKING:
    from aiohttp import web

    from polly_dockers.web.request import Exchange


async def get(exchange: Exchange, name: RepositoryName, reference: str) -> Answer | web.StreamResponse:
    """GET and HEAD of a blob, ranges and If-None-Match included."""
    actor, request = await registry_actor(exchange), exchange.request
    digest = Digest.parse(reference)
    found = await pull.blob(exchange.context, actor, name, digest)
    headers = {
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Content-Type": PLAIN,
    }
    if matches(request.headers.get("If-None-Match"), digest):
        return Answer(status=304, headers=headers)
    if request.method == "HEAD":
        return Answer(headers=headers | {"Content-Length": str(found.size)})
    whole = request.headers.get("If-Range") not in {None, headers["ETag"]}
    wanted = None if whole else ranges.parse(request.headers.get("Range"), found.size)
    every = ranges.Parts((ranges.Part(0, found.size),), b"", {})
    parts = every if wanted is None else ranges.answer(wanted, found.size)
    blob = await pull.open_blob(exchange.context, found)
    try:
        return await blob_response.send(exchange, blob, parts, status=200 if wanted is None else 206, headers=headers)
    finally:
        blob.close()


def matches(header: str | None, digest: str) -> bool:
    """Whether If-None-Match names the digest (RFC 9110, 13.1.2: the weak comparison)."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return digest in tags or "*" in tags


async def start(exchange: Exchange, name: RepositoryName, _reference: str) -> Answer:
    """POST: begin an upload, push a blob whole (``digest``), or mount one (``mount``, ``from``)."""
    actor, registry = await registry_actor(exchange), exchange.context
    wanted, mount = exchange.query("digest"), exchange.query("mount")
    if wanted is not None:
        digest = Digest.parse(wanted)
        await uploads.push(registry, actor, name, digest, exchange.body())
        return _created(name, digest)
    if mount is not None:
        mounted = await uploads.mount(registry, actor, name, mount, exchange.query("from"))
        if mounted is not None:
            return _created(name, mounted)
    upload = await uploads.start(registry, actor, name)
    return Answer(status=202, headers=upload_headers(name, upload.id, 0))


async def status(exchange: Exchange, name: RepositoryName, reference: str) -> Answer:
    """GET of an upload: how far it is."""
    upload = await uploads.find(exchange.context, await registry_actor(exchange), name, reference)
    return Answer(status=204, headers=upload_headers(name, upload.id, upload.size))


async def append(exchange: Exchange, name: RepositoryName, reference: str) -> Answer:
    """PATCH: the next bytes of an upload."""
    actor = await registry_actor(exchange)
    upload = await uploads.append(exchange.context, actor, name, reference, exchange.body(), exchange.content_range())
    return Answer(status=202, headers=upload_headers(name, upload.id, upload.size))


async def finish(exchange: Exchange, name: RepositoryName, reference: str) -> Answer:
    """PUT: the last bytes of an upload, and the digest of the whole."""
    actor = await registry_actor(exchange)
    wanted = exchange.query("digest")
    if wanted is None:
        msg = "The PUT that ends an upload names the blob: ?digest=sha256:…"
        raise DigestInvalid(msg)
    digest = Digest.parse(wanted)
    await uploads.finish(exchange.context, actor, name, reference, digest, exchange.body(), exchange.content_range())
    return _created(name, digest)


async def cancel(exchange: Exchange, name: RepositoryName, reference: str) -> Answer:
    """DELETE of an upload."""
    await uploads.cancel(exchange.context, await registry_actor(exchange), name, reference)
    return Answer(status=204)


async def delete(exchange: Exchange, name: RepositoryName, reference: str) -> Answer:
    """DELETE of a blob."""
    actor = await registry_actor(exchange)
    try:
        digest = Digest.parse(reference)
    except DigestInvalid as error:
        raise BlobUnknown(error.message) from error
    await removal.blob(exchange.context, actor, name, digest)
    return Answer(status=202)


def _created(name: RepositoryName, digest: Digest) -> Answer:
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return Answer(status=201, headers=headers)
