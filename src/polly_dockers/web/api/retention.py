"""Policies: what holds, and what would go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.registry import retention
from polly_dockers.web import authentication
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.db.retention import Policy
    from polly_dockers.registry.retention import Going, Preview
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response


async def page(request: Request, organisation: str) -> Response:
    """GET …/policy."""
    signed_in = await authentication.by_full_token(request)
    after = params.cursor(request)
    holds, own, following = await retention.read(
        request.context, signed_in.actor, organisation, limit=params.limit(request), after=after[0] if after else ""
    )
    path = f"{request.context.config.registry}/{organisation}"
    items = [api_types.RepositoryPolicy(f"{path}/{name}", _policy(each)) for name, each in own]
    return params.json_response(
        api_types.Policies(_policy(holds), items, params.following(following) if following else None)
    )


async def update(request: Request, organisation: str) -> Response:
    """PUT …/policy[?name=][&preview=true[&as_of=]]."""
    signed_in = await authentication.by_full_token(request)
    wanted = await request.json(api_types.PolicyUpdate)
    holds, seen = await retention.write(
        request.context,
        signed_in.actor,
        organisation,
        request.query("name"),
        retention.parse(wanted.keep, wanted.younger, wanted.newest, wanted.pulled),
        preview=not params.choice(request, "preview", ("false", "true")),
        as_of=params.moment(request, "as_of"),
    )
    return params.json_response(api_types.PolicyChange(_policy(holds), _preview(request, organisation, seen)))


async def preview(request: Request, organisation: str) -> Response:
    """GET …/policy-preview[?name=][&as_of=]."""
    signed_in = await authentication.by_full_token(request)
    holds, seen = await retention.look(
        request.context, signed_in.actor, organisation, request.query("name"), as_of=params.moment(request, "as_of")
    )
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
