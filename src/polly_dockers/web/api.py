"""/api/v1: what the commands speak. docs/api.md says it in words, ``openapi`` for machines."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final

from polly_dockers import __version__, accounts, history, repositories, trash, wire
from polly_dockers.errors import BadRequest, NotFound, Unsupported
from polly_dockers.model import RepositoryName, Role, parse_slug
from polly_dockers.web import openapi, signin
from polly_dockers.web.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from polly_dockers.accounts import SignedIn
    from polly_dockers.db.accounts import AccessToken, Member
    from polly_dockers.db.trash import Item
    from polly_dockers.model import Commit, Repository
    from polly_dockers.web.exchange import Exchange

PRODUCT: Final = "polly-docker-repository"
LIMIT: Final = 100
MAX_LIMIT: Final = 1000
YEAR: Final = 31_536_000
"""Seconds that an access token is good, at most."""
MAX_LABEL: Final = 200
MAX_CURSOR: Final = 600

_COUNT: Final = re.compile(r"[0-9]{1,9}\Z")


async def answer(exchange: Exchange) -> Answer:
    """Answer a request below /api/."""
    exchange.check_path()
    parts = exchange.path.rstrip("/").split("/")[2:]
    if not parts or parts[0] != "v1":
        msg = "The interface is at /api/v1; /api/v1/openapi.json describes it."
        raise NotFound(msg)
    handlers, arguments = _route(parts[1:])
    handler = handlers.get(exchange.request.method)
    if handler is None:
        msg = f"{exchange.request.method} is not for this address; it takes {', '.join(handlers)}."
        raise Unsupported(msg)
    return await handler(exchange, *arguments)


def _route(parts: list[str]) -> tuple[Mapping[str, Callable[..., Awaitable[Answer]]], list[str]]:
    if len(parts) == 3 and parts[0] == "organisations" and parts[2] in _IN_ORGANISATION:  # noqa: PLR2004 - as written
        return _IN_ORGANISATION[parts[2]], [parse_slug(parts[1])]
    if len(parts) == 2 and parts[0] == "tokens":  # noqa: PLR2004 - as written
        return {"DELETE": revoke_token}, [parts[1]]
    handlers = _FLAT.get("/".join(parts))
    if handlers is None:
        msg = "There is nothing at this address; /api/v1/openapi.json describes what there is."
        raise NotFound(msg)
    return handlers, []


def _json(value: Any, status: int = 200) -> Answer:  # noqa: ANN401 - any shape of wire
    return Answer(
        status=status,
        body=wire.encode(value),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _time(microseconds: int) -> str:
    at = dt.datetime.fromtimestamp(microseconds / 1_000_000, dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- pages -----------------------------------------------------------------------------------------------------


def _limit(exchange: Exchange) -> int:
    text = exchange.query("limit")
    if text is None:
        return LIMIT
    if not _COUNT.match(text) or not 1 <= int(text) <= MAX_LIMIT:
        msg = f"limit is {text[:50]!r}: give a whole number from 1 to {MAX_LIMIT}."
        raise BadRequest(msg)
    return int(text)


def _choice(exchange: Exchange, name: str, choices: tuple[str, str]) -> bool:
    """Whether the parameter is the first of two choices, which it is when it is not given."""
    text = exchange.query(name)
    if text is not None and text not in choices:
        msg = f"{name} is {text[:50]!r}: choose {choices[0]} or {choices[1]}."
        raise BadRequest(msg)
    return text != choices[1]


def _cursor(exchange: Exchange) -> list[str]:
    """The parts of the cursor, none without one; raises BadRequest."""
    text = exchange.query("cursor")
    if not text:
        return []
    if len(text) > MAX_CURSOR:
        raise _bad_cursor()
    try:
        return base64.urlsafe_b64decode(text.encode("ascii") + b"==").decode("utf-8").split("\0")
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error


def _key(exchange: Exchange) -> tuple[int, int] | None:
    parts = _cursor(exchange)
    if not parts:
        return None
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):  # noqa: PLR2004
        raise _bad_cursor()
    return int(parts[0]), int(parts[1])


def _bad_cursor() -> BadRequest:
    return BadRequest("The cursor is none that this list gave: take next from the page before, or leave it out.")


def _next(*parts: object) -> str:
    return base64.urlsafe_b64encode("\0".join(map(str, parts)).encode()).decode().rstrip("=")


# --- the server, tokens, the caller ---------------------------------------------------------------------------


async def server(exchange: Exchange) -> Answer:
    """GET /api/v1."""
    config = exchange.registry.config
    return _json(wire.ServerInfo(PRODUCT, __version__, config.registry, config.url))


async def document(_exchange: Exchange) -> Answer:
    """GET /api/v1/openapi.json."""
    return Answer(openapi.document(), content_type="application/json")


def _token_item(token: AccessToken, caller: SignedIn) -> wire.TokenItem:
    return wire.TokenItem(
        id=token.id,
        label=token.label,
        scope="full" if token.scope == "full" else "registry",
        created_at=_time(token.created_at),
        expires_at=_time(token.expires_at),
        last_used_at=_time(token.last_used_at) if token.last_used_at is not None else None,
        current=caller.token is not None and caller.token.id == token.id,
    )


async def create_token(exchange: Exchange) -> Answer:
    """POST /api/v1/tokens."""
    caller = await signin.by_password(exchange) if signin.basic(exchange) else await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.TokenRequest)
    if not 60 <= wanted.expires_in <= YEAR:  # noqa: PLR2004 - said in the message
        msg = f"expires_in is {wanted.expires_in}: give seconds from 60 to {YEAR} (a year)."
        raise BadRequest(msg)
    if len(wanted.label) > MAX_LABEL or not wanted.label.isprintable():
        msg = f"The label is to have at most {MAX_LABEL} printable characters."
        raise BadRequest(msg)
    token, secret = await accounts.create_token(
        exchange.registry, caller, scope=wanted.scope, seconds=wanted.expires_in, label=wanted.label
    )
    return _json(wire.TokenCreated(token.id, secret, wanted.scope, _time(token.expires_at), caller.email), 201)


async def tokens(exchange: Exchange) -> Answer:
    """GET /api/v1/tokens."""
    caller = await signin.by_full_token(exchange)
    found = await accounts.tokens(exchange.registry, caller)
    return _json(wire.Tokens([_token_item(token, caller) for token in found]))


async def revoke_token(exchange: Exchange, token_id: str) -> Answer:
    """DELETE /api/v1/tokens/{id}."""
    caller = await signin.by_full_token(exchange)
    this = caller.token.id if caller.token is not None else ""
    await accounts.revoke_token(exchange.registry, caller, {"current": this}.get(token_id, token_id))
    return Answer(status=204)


async def me(exchange: Exchange) -> Answer:
    """GET /api/v1/me."""
    caller = await signin.by_full_token(exchange)
    found = await accounts.memberships(exchange.registry, caller)
    assert caller.token is not None  # noqa: S101 - by_full_token
    items = [wire.MembershipItem(slug, role.name) for slug, role in found]  # type: ignore[arg-type]
    return _json(wire.Me(caller.email, items, _token_item(caller.token, caller)))


async def change_password(exchange: Exchange) -> Answer:
    """PUT /api/v1/me/password."""
    caller = await signin.by_password(exchange)
    await accounts.change_password(exchange.registry, caller, (await exchange.json(wire.PasswordChange)).password)
    return Answer(status=204)


# --- repositories and commits ---------------------------------------------------------------------------------


def _repository_item(exchange: Exchange, found: Repository) -> wire.RepositoryItem:
    return wire.RepositoryItem(
        name=found.name.name,
        path=f"{exchange.registry.config.registry}/{found.name}",
        description=found.description,
        access="public" if found.access == "public" else "private",
        sparse_indexes="allow" if found.sparse_indexes == "allow" else "deny",
        tags=found.tags,
        commits=found.commits,
        size=found.size,
        created_by=found.created_by,
        created_at=_time(found.created_at),
        pushed_at=_time(found.pushed_at) if found.pushed_at is not None else None,
    )


def _required(exchange: Exchange, name: str) -> str:
    value = exchange.query(name)
    if not value:
        msg = f"The query lacks {name}."
        raise BadRequest(msg)
    return value


async def repository_page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/repositories."""
    caller = await signin.by_full_token(exchange)
    found, key, total = await repositories.page(
        exchange.registry,
        caller.actor,
        organisation,
        by_push=not _choice(exchange, "sort", ("created", "pushed")),
        newest_first=_choice(exchange, "order", ("newest", "oldest")),
        limit=_limit(exchange),
        after=_key(exchange),
        search=(exchange.query("search") or "")[:200],
    )
    items = [_repository_item(exchange, item) for item in found]
    return _json(wire.Repositories(items, total, _next(*key) if key else None))


async def create_repository(exchange: Exchange, organisation: str) -> Answer:
    """POST …/repositories."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.RepositoryCreate)
    made = await repositories.create(
        exchange.registry,
        caller.actor,
        organisation,
        name=wanted.name,
        description=wanted.description,
        public=wanted.access == "public",
    )
    return _json(_repository_item(exchange, made), 201)


async def repository(exchange: Exchange, organisation: str) -> Answer:
    """GET …/repository?name=."""
    caller = await signin.by_full_token(exchange)
    found = await repositories.one(exchange.registry, caller.actor, organisation, _required(exchange, "name"))
    return _json(_repository_item(exchange, found))


async def update_repository(exchange: Exchange, organisation: str) -> Answer:
    """PATCH …/repository?name=."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.RepositoryUpdate)
    found = await repositories.update(
        exchange.registry,
        caller.actor,
        organisation,
        _required(exchange, "name"),
        description=wanted.description,
        wanted_access=wanted.access,
        sparse_indexes=wanted.sparse_indexes,
    )
    return _json(_repository_item(exchange, found))


async def commit_page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/commits?repository=."""
    caller = await signin.by_full_token(exchange)
    name = RepositoryName.of(organisation, _required(exchange, "repository"))
    found, key, total = await history.commits(
        exchange.registry,
        caller.actor,
        name,
        tag=exchange.query("tag"),
        newest_first=_choice(exchange, "order", ("newest", "oldest")),
        limit=_limit(exchange),
        after=_key(exchange),
    )
    path = f"{exchange.registry.config.registry}/{name}"
    items = [_commit_item(path, item) for item in found]
    return _json(wire.Commits(path, items, total, _next(*key) if key else None))


def _commit_item(path: str, found: Commit) -> wire.CommitItem:
    return wire.CommitItem(
        tag=found.tag,
        commit=found.digest,
        status="active" if found.active else "inactive",
        size=found.size,
        platforms=list(found.platforms),
        media_type=found.media_type,
        pushed_at=_time(found.pushed_at),
        pushed_by=found.pushed_by,
        path=f"{path}@{found.digest}",
    )


# --- members ---------------------------------------------------------------------------------------------------


def _member_item(found: Member) -> wire.MemberItem:
    return wire.MemberItem(found.email, found.role.name, _time(found.joined_at))  # type: ignore[arg-type]


async def member_page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/members."""
    caller = await signin.by_full_token(exchange)
    limit = _limit(exchange)
    found, total = await accounts.members(
        exchange.registry,
        caller.actor,
        organisation,
        after=(_cursor(exchange) or [""])[0],
        newest_first=not _choice(exchange, "order", ("oldest", "newest")),
        limit=limit + 1,
    )
    following = _next(found[limit - 1].email) if len(found) > limit else None
    return _json(wire.Members([_member_item(item) for item in found[:limit]], total, following))


# --- the trash -------------------------------------------------------------------------------------------------


async def delete(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/repository?name=[&tag=|&commit=][&preview=true]."""
    caller = await signin.by_full_token(exchange)
    item = await trash.delete(
        exchange.registry,
        caller.actor,
        organisation,
        _required(exchange, "name"),
        tag=exchange.query("tag"),
        commit=exchange.query("commit"),
        preview=not _choice(exchange, "preview", ("false", "true")),
    )
    return _json(_trash_item(exchange, organisation, item))


async def restore(exchange: Exchange, organisation: str) -> Answer:
    """POST …/trash."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.Restore)
    item = await trash.restore(
        exchange.registry,
        caller.actor,
        organisation,
        wanted.repository,
        tag=wanted.tag,
        commit=wanted.commit,
        new_name=wanted.new_name,
    )
    return _json(_trash_item(exchange, organisation, item))


async def trash_page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/trash."""
    caller = await signin.by_full_token(exchange)
    found, following, total = await trash.page(
        exchange.registry, caller.actor, organisation, limit=_limit(exchange), after=_key(exchange)
    )
    items = [_trash_item(exchange, organisation, item) for item in found]
    return _json(wire.Trash(items, total, _next(*following) if following else None))


def _trash_item(exchange: Exchange, organisation: str, item: Item) -> wire.TrashItem:
    config = exchange.registry.config
    return wire.TrashItem(
        repository=f"{config.registry}/{organisation}/{item.repository}",
        kind=item.kind,  # type: ignore[arg-type]
        name=item.name,
        tags=list(item.tags),
        commits=item.commits,
        size=item.size,
        deleted_by=item.deleted_by,
        deleted_at=_time(item.deleted_at),
        restorable_until=_time(item.deleted_at + config.trash_days * 86_400_000_000),
    )


# --- members ---------------------------------------------------------------------------------------------------


async def add_member(exchange: Exchange, organisation: str) -> Answer:
    """POST …/members."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.MemberAdd)
    made = await accounts.add_member(
        exchange.registry,
        caller.actor,
        organisation,
        email=wanted.email,
        role=Role.parse(wanted.role),
        password=wanted.password,
    )
    return _json(_member_item(made), 201)


async def accept_invitation(exchange: Exchange, organisation: str) -> Answer:
    """POST …/invitation."""
    caller = await signin.by_full_token(exchange)
    password = (await exchange.json(wire.InvitationAccept)).password
    await accounts.accept(exchange.registry, caller, organisation, password, exchange.address)
    return Answer(status=204)


async def update_member(exchange: Exchange, organisation: str) -> Answer:
    """PATCH …/members?email=."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.MemberUpdate)
    found = await accounts.set_role(
        exchange.registry, caller.actor, organisation, _required(exchange, "email"), Role.parse(wanted.role)
    )
    return _json(_member_item(found))


async def remove_member(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/members?email=."""
    caller = await signin.by_full_token(exchange)
    await accounts.remove_member(exchange.registry, caller.actor, organisation, _required(exchange, "email"))
    return Answer(status=204)


_FLAT: Final[Mapping[str, Mapping[str, Callable[..., Awaitable[Answer]]]]] = {
    "": {"GET": server},
    "openapi.json": {"GET": document},
    "tokens": {"GET": tokens, "POST": create_token},
    "me": {"GET": me},
    "me/password": {"PUT": change_password},
}
_IN_ORGANISATION: Final[Mapping[str, Mapping[str, Callable[..., Awaitable[Answer]]]]] = {
    "repositories": {"GET": repository_page, "POST": create_repository},
    "repository": {"GET": repository, "PATCH": update_repository, "DELETE": delete},
    "commits": {"GET": commit_page},
    "trash": {"GET": trash_page, "POST": restore},
    "invitation": {"POST": accept_invitation},
    "members": {
        "GET": member_page,
        "POST": add_member,
        "PATCH": update_member,
        "DELETE": remove_member,
    },
}
