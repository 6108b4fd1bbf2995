"""Policies: which one applies, and what it would delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.registry import retention
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.db.retention import Policy
    from polly_dockers.registry.retention import Going, Preview
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response


async def page(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/policy."""
    after, limit = (params.cursor_parts(request) or [""])[0], params.LIMIT.read(request)
    holds, own, following = await retention.read(
        request.context, signed_in.actor, organisation, limit=limit, after=after
    )
    path = f"{request.context.config.registry}/{organisation}"
    items = [api_types.RepositoryPolicy(f"{path}/{name}", _policy(each)) for name, each in own]
    return params.json_response(
        api_types.Policies(_policy(holds), items, params.next_cursor(following) if following else None)
    )


async def update(request: Request, signed_in: SignedIn, organisation: str, wanted: api_types.PolicyUpdate) -> Response:
    """PUT …/policy[?name=][&preview=true[&as_of=]]."""
    holds, seen = await retention.write(
        request.context,
        signed_in.actor,
        organisation,
        params.OPTIONAL_NAME.read(request),
        retention.parse(wanted.keep, wanted.younger, wanted.newest, wanted.pulled),
        preview=params.PREVIEW.read(request) == "true",
        as_of=params.AS_OF.read(request),
    )
    return params.json_response(api_types.PolicyChange(_policy(holds), _preview(request, organisation, seen)))


async def preview(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/policy-preview[?name=][&as_of=]."""
    name, as_of = params.OPTIONAL_NAME.read(request), params.AS_OF.read(request)
    holds, seen = await retention.preview(request.context, signed_in.actor, organisation, name, as_of=as_of)
    return params.json_response(api_types.PolicyChange(_policy(holds), _preview(request, organisation, seen)))


def _policy(found: Policy) -> api_types.Policy:
    return api_types.Policy("everything" if found.everything else "rules", found.younger, found.newest, found.pulled)


def _preview(request: Request, organisation: str, seen: Preview) -> api_types.PolicyPreview:
    path = f"{request.context.config.registry}/{organisation}"
    items = [_item(path, each) for each in seen.items]
    return api_types.PolicyPreview(seen.manifests, seen.commits, seen.size, seen.complete, items, params.time(seen.at))


def _item(path: str, each: Going) -> api_types.PolicyPreviewItem:
    place = f"{path}/{each.repository}@{each.digest}"
    return api_types.PolicyPreviewItem(place, list(each.tags), params.time(each.pushed_at), each.size)
