"""Blobs: pull, push in one request or several, mount, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.errors import BlobUnknown, DigestInvalid
from polly_dockers.model import Digest, RepositoryName
from polly_dockers.registry import deletion, pull, uploads
from polly_dockers.web import blob_response, ranges
from polly_dockers.web.authentication import registry_actor
from polly_dockers.web.errors import upload_headers
from polly_dockers.web.response import PLAIN, Response

if TYPE_CHECKING:
    from polly_dockers.web.request import Request


async def get(request: Request, name: RepositoryName, reference: str) -> Response:
    """GET and HEAD of a blob, with Range and If-None-Match."""
    actor = await registry_actor(request)
    digest = Digest.parse(reference)
    found = await pull.blob(request.context, actor, name, digest)
    headers = {
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Content-Type": PLAIN,
    }
    if request.has_etag(digest):
        return Response(status=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers, length=found.size)
    changed = request.headers.get("if-range") not in {None, headers["ETag"]}
    requested = None if changed else ranges.parse(request.headers.get("range"), found.size)
    parts = ranges.whole(found.size) if requested is None else ranges.multipart(requested, found.size)
    blob = await pull.open_blob(request.context, found)
    return await blob_response.respond(request, blob, parts, status=200 if requested is None else 206, headers=headers)


async def start(request: Request, name: RepositoryName, _reference: str) -> Response:
    """POST: start an upload, push a whole blob (``digest``), or mount one (``mount``, ``from``)."""
    actor, context = await registry_actor(request), request.context
    given, mount = request.query("digest"), request.query("mount")
    if given is not None:
        digest = Digest.parse(given)
        await uploads.push(context, actor, name, digest, request.stream())
        return _created(name, digest)
    if mount is not None:
        mounted = await uploads.mount(context, actor, name, mount, request.query("from"))
        if mounted is not None:
            return _created(name, mounted)
    upload = await uploads.start(context, actor, name)
    return Response(status=202, headers=upload_headers(name, upload.id, 0))


async def status(request: Request, name: RepositoryName, reference: str) -> Response:
    """GET of an upload: how many bytes have arrived."""
    upload = await uploads.find(request.context, await registry_actor(request), name, reference)
    return Response(status=204, headers=upload_headers(name, upload.id, upload.size))


async def append(request: Request, name: RepositoryName, reference: str) -> Response:
    """PATCH: append the body to an upload."""
    actor = await registry_actor(request)
    upload = await uploads.append(request.context, actor, name, reference, request.stream(), request.content_range())
    return Response(status=202, headers=upload_headers(name, upload.id, upload.size))


async def finish(request: Request, name: RepositoryName, reference: str) -> Response:
    """PUT: append the body, which may be empty, and finish the upload as the blob of that digest."""
    actor = await registry_actor(request)
    given = request.query("digest")
    if given is None:
        msg = "The PUT that finishes an upload needs the digest of the blob: ?digest=sha256:…"
        raise DigestInvalid(msg)
    digest = Digest.parse(given)
    await uploads.finish(request.context, actor, name, reference, digest, request.stream(), request.content_range())
    return _created(name, digest)


async def cancel(request: Request, name: RepositoryName, reference: str) -> Response:
    """DELETE of an upload: cancel it."""
    await uploads.cancel(request.context, await registry_actor(request), name, reference)
    return Response(status=204)


async def delete(request: Request, name: RepositoryName, reference: str) -> Response:
    """DELETE of a blob."""
    actor = await registry_actor(request)
    try:
        digest = Digest.parse(reference)
    except DigestInvalid as error:  # the specification has no 400 for this request (end-10)
        raise BlobUnknown(error.message) from error
    await deletion.delete_blob(request.context, actor, name, digest)
    return Response(status=202)


def _created(name: RepositoryName, digest: Digest) -> Response:
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return Response(status=201, headers=headers)
