"""The route table of /api/v1. An entry gives both the routing and the description in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from polly_dockers import __version__, api_types
from polly_dockers.model import ROLE_FOR, Action, Role
from polly_dockers.web import errors
from polly_dockers.web.api import account, audit, invitations, members, openapi, params, repositories, retention, trash
from polly_dockers.web.api.routing import ANYONE, EITHER, OPTIONAL, PASSWORD, Route, Table
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.web.request import Request

PRODUCT: Final = "polly-docker-repository"
_ORG: Final = "/organisations/{org}"


async def respond(request: Request) -> Response:
    """Respond to a request below /api/. Raises the errors of the handlers, NotFound and Unsupported."""
    request.check_path()
    parts = request.path.rstrip("/").split("/")[2:]
    if not parts or parts[0] != "v1":
        raise errors.not_found(request)
    return await _TABLE.respond(request, parts[1:])


async def server(request: Request) -> Response:
    """GET /api/v1."""
    config = request.context.config
    public_repositories: Literal["allow", "deny"] = "allow" if config.public_repositories == "allow" else "deny"
    info = api_types.ServerInfo(PRODUCT, __version__, config.registry, config.url, public_repositories)
    return params.json_response(info)


async def document(_request: Request) -> Response:
    """GET /api/v1/openapi.json."""
    return Response(openapi.document(_TABLE.routes), content_type="application/json")


# Each route is to be read as a row of a table.
# fmt: off
_TABLE: Final = Table((
    Route("GET", "", server, "What this server is", response=api_types.ServerInfo, sign_in=ANYONE),
    Route("GET", "/openapi.json", document, "This document", sign_in=ANYONE, documented=False),
    Route("GET", "/tokens", account.tokens, "Your access tokens",
          query=(params.LIMIT, params.CURSOR), response=api_types.Tokens),
    Route("POST", "/tokens", account.create_token, "Create an access token",
          body=api_types.TokenRequest, response=api_types.TokenCreated, status=201, sign_in=EITHER, errors=(409,)),
    Route("DELETE", "/tokens/{id}", account.revoke_token, "Revoke an access token, or the current one", status=204),
    Route("GET", "/me", account.me, "The signed-in user", response=api_types.Me),
    Route("PUT", "/me/password", account.change_password, "Change your password",
          body=api_types.PasswordChange, status=204, sign_in=PASSWORD),
    Route("GET", f"{_ORG}/repositories", repositories.page, "Docker repositories",
          query=(*params.PAGE, repositories.SORT, repositories.SEARCH), response=api_types.Repositories),
    Route("POST", f"{_ORG}/repositories", repositories.create, "Create a docker repository",
          body=api_types.RepositoryCreate, response=api_types.RepositoryItem, status=201, role=Role.writer,
          errors=(409,)),
    Route("GET", f"{_ORG}/repository", repositories.one, "A docker repository",
          query=(params.NAME,), response=api_types.RepositoryItem),
    Route("PATCH", f"{_ORG}/repository", repositories.update, "Change a docker repository",
          query=(params.NAME,), body=api_types.RepositoryUpdate, response=api_types.RepositoryItem, role=Role.writer),
    Route("DELETE", f"{_ORG}/repository", trash.delete,
          "Move a docker repository, a tag or a commit to the trash; with preview, return what would be deleted",
          query=(params.NAME, params.TAG, trash.COMMIT, params.PREVIEW), response=api_types.TrashItem,
          role=ROLE_FOR[Action.delete]),
    Route("GET", f"{_ORG}/trash", trash.page, "The items in the trash",
          query=(params.LIMIT, params.CURSOR), response=api_types.Trash),
    Route("POST", f"{_ORG}/trash", trash.restore, "Restore an item from the trash",
          body=api_types.Restore, response=api_types.TrashItem, role=ROLE_FOR[Action.delete], errors=(409,)),
    Route("GET", f"{_ORG}/policy", retention.page, "The policies: what is kept",
          query=(params.LIMIT, params.CURSOR), response=api_types.Policies),
    Route("PUT", f"{_ORG}/policy", retention.update,
          "Set the policy of all docker repositories or of one; with preview, return what it would delete",
          query=(params.OPTIONAL_NAME, params.PREVIEW, params.AS_OF), body=api_types.PolicyUpdate,
          response=api_types.PolicyChange, role=Role.admin),
    Route("GET", f"{_ORG}/policy-preview", retention.preview,
          "What the current policies delete, now or at a later time",
          query=(params.OPTIONAL_NAME, params.AS_OF), response=api_types.PolicyChange, role=Role.admin),
    Route("GET", f"{_ORG}/audit", audit.page, "The audit log",
          query=(*params.PAGE, *audit.FILTERS), response=api_types.Audit, role=Role.admin),
    Route("GET", f"{_ORG}/commits", repositories.commits, "Commits of a docker repository",
          query=(params.REPOSITORY, params.TAG, *params.PAGE), response=api_types.Commits),
    Route("GET", f"{_ORG}/tags", repositories.tags, "Tags of a docker repository, each with its active commit",
          query=(params.REPOSITORY, *params.PAGE), response=api_types.Tags),
    Route("POST", "/invitation", invitations.accept,
          "Accept an invitation by its code, signed in or with email and password",
          body=api_types.InvitationAccept, response=api_types.InvitationAccepted, sign_in=OPTIONAL,
          errors=(404, 409)),
    Route("GET", f"{_ORG}/invitations", invitations.page, "Invitations that have not been accepted yet",
          query=params.PAGE_BY_EMAIL, response=api_types.Invitations),
    Route("POST", f"{_ORG}/invitations", invitations.create, "Invite a person",
          body=api_types.InvitationCreate, response=api_types.InvitationCreated, status=201, role=Role.admin,
          errors=(409,)),
    Route("DELETE", f"{_ORG}/invitations", invitations.revoke, "Revoke an invitation",
          query=(params.EMAIL,), status=204, role=Role.admin),
    Route("GET", f"{_ORG}/members", members.page, "Members", query=params.PAGE_BY_EMAIL, response=api_types.Members),
    Route("PATCH", f"{_ORG}/members", members.update, "Change a member's role",
          query=(params.EMAIL,), body=api_types.MemberUpdate, response=api_types.MemberItem, role=Role.admin,
          errors=(409,)),
    Route("DELETE", f"{_ORG}/members", members.remove, "Remove a member",
          query=(params.EMAIL,), status=204, role=Role.admin, errors=(409,)),
))
# fmt: on
