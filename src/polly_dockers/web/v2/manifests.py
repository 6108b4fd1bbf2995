"""Manifests. A pull returns exactly the bytes and the media type that were pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers.errors import BadRequest
from polly_dockers.model import Digest, RepositoryName, Tag
from polly_dockers.registry import deletion, pull, push
from polly_dockers.web.authentication import registry_actor
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.web.request import Request

MAX_TAGS: Final = 50
"""Largest number of ``tag`` parameters in one PUT. Each has a header in the response, and some clients accept 100."""


def _reference(text: str) -> Digest | Tag:
    """Parse a digest or a tag. A digest has a colon and a tag has none. Raises DigestInvalid or TagInvalid."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


async def get(request: Request, name: RepositoryName, reference: str) -> Response:
    """GET and HEAD of a manifest, in its stored media type whatever Accept says."""
    actor = await registry_actor(request)
    found = await pull.manifest(request.context, actor, name, _reference(reference), largest=request.largest)
    headers = {
        "Docker-Content-Digest": found.digest,
        "ETag": f'"{found.digest}"',
        "Content-Type": found.media_type,
    }
    if request.has_etag(found.digest):
        return Response(status=304, headers=headers)
    return Response(found.body or b"", headers=headers, length=found.size)


async def put(request: Request, name: RepositoryName, reference: str) -> Response:
    """PUT of a manifest by tag or by digest, with further tags in the query."""
    actor = await registry_actor(request)
    target = _reference(reference)
    tags = [Tag.parse(value) for key, value in request.queries() if key == "tag"]
    if len(tags) > MAX_TAGS:
        msg = f"One PUT may set at most {MAX_TAGS} tags, and the query has {len(tags)}."
        raise BadRequest(msg)
    digest: Digest | None
    if isinstance(target, Digest):
        digest = target
    else:
        tags.insert(0, target)
        given = request.query("digest")
        digest = Digest.parse(given) if given is not None else None
    limit = request.context.config.max_manifest_bytes
    pushed = await push.manifest(
        request.context,
        actor,
        name,
        read=lambda: request.read(limit),
        content_type=request.headers.get("content-type", ""),
        digest=digest,
        tags=list(dict.fromkeys(tags)),
    )
    repeatable: list[tuple[str, str]] = [("OCI-Subject", pushed.subject)] if pushed.subject is not None else []
    if not isinstance(target, Tag):
        repeatable += [("OCI-Tag", tag) for tag in pushed.tags]
    headers = {"Location": f"/v2/{name}/manifests/{pushed.digest}", "Docker-Content-Digest": pushed.digest}
    return Response(status=201, headers=headers, repeatable=repeatable)


async def delete(request: Request, name: RepositoryName, reference: str) -> Response:
    """DELETE of a tag or of a manifest."""
    actor = await registry_actor(request)
    await deletion.delete_manifest(request.context, actor, name, _reference(reference))
    return Response(status=202)
