"""Lists: tags, referrers, and the catalog of repositories."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from polly_dockers.errors import PaginationNumberInvalid
from polly_dockers.model import Digest, RepositoryName
from polly_dockers.oci.manifest import OCI_INDEX
from polly_dockers.registry import history
from polly_dockers.web.authentication import registry_actor
from polly_dockers.web.response import Response, dump

if TYPE_CHECKING:
    from polly_dockers.model import Actor
    from polly_dockers.web.request import Request

MAX_ENTRIES: Final = 10_000
"""Largest number of entries in one response. The header Link leads to the others."""

_INDEX: Final = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":['.encode()
_ID: Final = re.compile(r"[0-9]{1,18}\Z")


def _count(request: Request) -> int:
    """The parameter ``n``, at most MAX_ENTRIES. Raises PaginationNumberInvalid."""
    text = request.query("n")
    if text is None:
        return MAX_ENTRIES
    if not text.isascii() or not text.isdigit():
        msg = f"n is {text[:50]!r}. Give a whole number from 0."
        raise PaginationNumberInvalid(msg)
    return min(int(text.lstrip("0")[:9] or 0), MAX_ENTRIES)


def _link(path: str, n: int, last: str) -> str:
    """The header Link for the next page (RFC 5988). It is relative, because crane refuses one to another host."""
    return f'<{quote(path)}?{urlencode({"n": n, "last": last})}>; rel="next"'


async def tags(request: Request, name: RepositoryName, _reference: str) -> Response:
    """GET of ``tags/list``: the tags of a repository, in alphabetical order."""
    n, last = _count(request), request.query("last") or ""
    found = await history.tags(request.context, await registry_actor(request), name, last=last, limit=n + 1)
    headers = {}
    if len(found) > n > 0:
        headers["Link"] = _link(f"/v2/{name}/tags/list", n, found[n - 1])
    body = dump({"name": name, "tags": found[:n]})
    return Response(body, content_type="application/json", headers=headers)


async def catalog(request: Request, actor: Actor) -> Response:
    """GET of ``_catalog``: the repositories of the user's organisations."""
    n, last = _count(request), request.query("last") or ""
    found = await history.catalog(request.context, actor, last=last, limit=n + 1)
    headers = {}
    if len(found) > n > 0:
        headers["Link"] = _link("/v2/_catalog", n, found[n - 1])
    return Response(dump({"repositories": found[:n]}), content_type="application/json", headers=headers)


async def referrers(request: Request, name: RepositoryName, reference: str) -> Response:
    """GET of ``referrers/<digest>``: an index of the referrers, empty if there are none."""
    digest = Digest.parse(reference)
    given = (value.replace(" ", "+") for key, value in request.queries() if key == "artifactType")
    wanted = dict.fromkeys(given)
    last = request.query("last") or "0"
    if not _ID.match(last):
        msg = f"last is {last[:50]!r}, which is not from the Link of a previous page."
        raise PaginationNumberInvalid(msg)
    found, following = await history.referrers(
        request.context, await registry_actor(request), name, digest, artifact_types=wanted, after=int(last)
    )
    headers = {"Content-Type": OCI_INDEX}
    if following is not None:
        query = urlencode([*(("artifactType", kind) for kind in wanted), ("last", following)])
        headers["Link"] = f'<{quote(f"/v2/{name}/referrers/{digest}")}?{query}>; rel="next"'
    if wanted:
        headers["OCI-Filters-Applied"] = "artifactType"
    return Response(b"".join((_INDEX, b",".join(found), b"]}")), headers=headers)
