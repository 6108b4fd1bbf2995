"""The description of /api/v1 as OpenAPI 3.1, made from the types of ``wire``."""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from polly_dockers import __version__, api_types
from polly_dockers.db.audit import Event

_ORG: Final = {"name": "org", "in": "path", "required": True, "schema": {"type": "string"}}
_PAGE: Final = (
    ("limit", False, {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
    ("order", False, {"type": "string", "enum": ["newest", "oldest"]}),
    ("cursor", False, {"type": "string"}),
)
_TEXT: Final = {"type": "string"}
_TIME: Final = {"type": "string", "format": "date-time"}
_FULL: Final[tuple[dict[str, list[str]], ...]] = ({"token": []},)
_PASSWORD: Final[tuple[dict[str, list[str]], ...]] = ({"password": []},)

_Parameter = tuple[str, bool, dict[str, Any]]


def _operation(
    summary: str,
    answers: dict[int, type | None],
    *,
    errors: tuple[int, ...] = (),
    body: type | None = None,
    query: tuple[_Parameter, ...] = (),
    path: tuple[dict[str, Any], ...] = (),
    security: tuple[dict[str, list[str]], ...] = _FULL,
) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, shape in answers.items():
        content = {"content": {"application/json": {"schema": _ref(shape)}}} if shape is not None else {}
        responses[str(status)] = {"description": summary, **content}
    refused = (400, *((401, 429) if security else ()), *errors)
    for status in sorted(refused):
        responses[str(status)] = {
            "description": "An error; its message says what to do.",
            "content": {"application/json": {"schema": _ref(api_types.Errors)}},
        }
    operation: dict[str, Any] = {"summary": summary, "responses": responses, "security": list(security)}
    parameters = [
        *path,
        *({"name": name, "in": "query", "required": needed, "schema": schema} for name, needed, schema in query),
    ]
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _ref(shape: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _paths() -> dict[str, Any]:
    org = (_ORG,)
    name, email = (("name", True, _TEXT),), (("email", True, _TEXT),)
    sort = ("sort", False, {"type": "string", "enum": ["created", "pushed"]})
    return {
        "/api/v1": {"get": _operation("What this server is", {200: api_types.ServerInfo}, security=())},
        "/api/v1/tokens": {
            "get": _operation("Your access tokens", {200: api_types.Tokens}, query=(_PAGE[0], _PAGE[2])),
            "post": _operation(
                "Make an access token",
                {201: api_types.TokenCreated},
                body=api_types.TokenRequest,
                errors=(409, 413),
                security=(*_PASSWORD, *_FULL),
            ),
        },
        "/api/v1/tokens/{id}": {
            "delete": _operation(
                "Revoke an access token, or the current one",
                {204: None},
                errors=(404,),
                path=({"name": "id", "in": "path", "required": True, "schema": _TEXT},),
            )
        },
        "/api/v1/me": {"get": _operation("Who is asking", {200: api_types.Me})},
        "/api/v1/me/password": {
            "put": _operation(
                "Change your password", {204: None}, body=api_types.PasswordChange, errors=(413,), security=_PASSWORD
            )
        },
        "/api/v1/organisations/{org}/repositories": {
            "get": _operation(
                "Docker repositories",
                {200: api_types.Repositories},
                errors=(404,),
                query=(*_PAGE, sort, ("search", False, _TEXT)),
                path=org,
            ),
            "post": _operation(
                "Make a docker repository",
                {201: api_types.RepositoryItem},
                body=api_types.RepositoryCreate,
                errors=(403, 404, 409, 413),
                path=org,
            ),
        },
        "/api/v1/organisations/{org}/repository": {
            "get": _operation(
                "A docker repository", {200: api_types.RepositoryItem}, errors=(404,), query=name, path=org
            ),
            "patch": _operation(
                "Change a docker repository",
                {200: api_types.RepositoryItem},
                body=api_types.RepositoryUpdate,
                errors=(403, 404, 413),
                query=name,
                path=org,
            ),
            "delete": _operation(
                "Put a docker repository, a tag or a commit into the trash, or with preview tell what would go",
                {200: api_types.TrashItem},
                errors=(403, 404),
                query=(
                    *name,
                    ("tag", False, _TEXT),
                    ("commit", False, _TEXT),
                    ("preview", False, {"type": "string", "enum": ["false", "true"]}),
                ),
                path=org,
            ),
        },
        "/api/v1/organisations/{org}/trash": {
            "get": _operation(
                "What was deleted", {200: api_types.Trash}, errors=(404,), query=(_PAGE[0], _PAGE[2]), path=org
            ),
            "post": _operation(
                "Restore what was deleted",
                {200: api_types.TrashItem},
                body=api_types.Restore,
                errors=(403, 404, 409, 413),
                path=org,
            ),
        },
        "/api/v1/organisations/{org}/policy": {
            "get": _operation(
                "What is kept", {200: api_types.Policies}, errors=(404,), query=(_PAGE[0], _PAGE[2]), path=org
            ),
            "put": _operation(
                "Set what is kept, in all docker repositories or in one, or with preview tell what would go",
                {200: api_types.PolicyChange},
                body=api_types.PolicyUpdate,
                errors=(403, 404, 413),
                query=(
                    ("name", False, _TEXT),
                    ("preview", False, {"type": "string", "enum": ["false", "true"]}),
                    ("as_of", False, _TIME),
                ),
                path=org,
            ),
        },
        "/api/v1/organisations/{org}/policy-preview": {
            "get": _operation(
                "What goes by the policies that are set, now or at a later moment",
                {200: api_types.PolicyChange},
                errors=(403, 404),
                query=(("name", False, _TEXT), ("as_of", False, _TIME)),
                path=org,
            )
        },
        "/api/v1/organisations/{org}/audit": {
            "get": _operation(
                "The audit log",
                {200: api_types.Audit},
                errors=(403, 404),
                query=(
                    *_PAGE,
                    ("event", False, {"type": "string", "enum": [each.value for each in Event]}),
                    ("token_events", False, {"type": "string", "enum": ["show", "hide"]}),
                    ("by", False, _TEXT),
                    ("name", False, _TEXT),
                    ("since", False, _TIME),
                    ("until", False, _TIME),
                ),
                path=org,
            )
        },
        "/api/v1/organisations/{org}/commits": {
            "get": _operation(
                "Commits of a docker repository",
                {200: api_types.Commits},
                errors=(404,),
                query=(("repository", True, _TEXT), ("tag", False, _TEXT), *_PAGE),
                path=org,
            )
        },
        "/api/v1/organisations/{org}/tags": {
            "get": _operation(
                "Tags of a docker repository, each with its active commit",
                {200: api_types.Tags},
                errors=(404,),
                query=(("repository", True, _TEXT), *_PAGE),
                path=org,
            )
        },
        "/api/v1/invitation": {
            "post": _operation(
                "Redeem the code of an invitation, signed in, or with email and password",
                {200: api_types.InvitationAccepted},
                body=api_types.InvitationAccept,
                errors=(404, 409, 413),
                security=({}, *_FULL),
            )
        },
        "/api/v1/organisations/{org}/invitations": {
            "get": _operation("Who was invited", {200: api_types.Invitations}, errors=(404,), query=_PAGE, path=org),
            "post": _operation(
                "Invite somebody",
                {201: api_types.InvitationCreated},
                body=api_types.InvitationCreate,
                errors=(403, 404, 409, 413),
                path=org,
            ),
            "delete": _operation("Revoke an invitation", {204: None}, errors=(403, 404), query=email, path=org),
        },
        "/api/v1/organisations/{org}/members": {
            "get": _operation("Members", {200: api_types.Members}, errors=(404,), query=_PAGE, path=org),
            "patch": _operation(
                "Change a member's role",
                {200: api_types.MemberItem},
                body=api_types.MemberUpdate,
                errors=(403, 404, 409, 413),
                query=email,
                path=org,
            ),
            "delete": _operation("Remove a member", {204: None}, errors=(403, 404, 409), query=email, path=org),
        },
    }


_SHAPES: Final = (
    api_types.Audit,
    api_types.Commits,
    api_types.Errors,
    api_types.InvitationAccept,
    api_types.InvitationAccepted,
    api_types.InvitationCreate,
    api_types.InvitationCreated,
    api_types.Invitations,
    api_types.Me,
    api_types.MemberItem,
    api_types.MemberUpdate,
    api_types.Members,
    api_types.PasswordChange,
    api_types.Policies,
    api_types.Policy,
    api_types.PolicyChange,
    api_types.PolicyPreview,
    api_types.PolicyPreviewItem,
    api_types.PolicyUpdate,
    api_types.Repositories,
    api_types.RepositoryCreate,
    api_types.RepositoryItem,
    api_types.RepositoryPolicy,
    api_types.RepositoryUpdate,
    api_types.Restore,
    api_types.ServerInfo,
    api_types.Tags,
    api_types.TokenCreated,
    api_types.TokenRequest,
    api_types.Tokens,
    api_types.Trash,
    api_types.TrashItem,
)


@functools.cache
def document() -> bytes:
    """The document, as JSON."""
    _, components = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Polly Docker Repository",
                "version": __version__,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": _paths(),
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer", "description": "An access token of scope full."},
                    "password": {"type": "http", "scheme": "basic", "description": "Email and password."},
                },
            },
        }
    )
