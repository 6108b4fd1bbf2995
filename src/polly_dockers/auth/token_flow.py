"""The Docker token flow: a registry token for those of the requested actions that the user may do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.db.sqlite import now
from polly_dockers.errors import BadRequest, NameInvalid, Unauthorized
from polly_dockers.model import Actor, Grants, RepositoryName
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.context import Context
    from polly_dockers.db.keys import Key

MAX_SCOPES: Final = 100
SHORTEST: Final = 60
"""Seconds: "the minimum … a token … SHOULD" last for the clients of the token flow (docs/spec/auth/token)."""

_SCOPE: Final = re.compile(r"(?P<type>[a-z0-9]+)(?:\([a-z0-9]+\))?:(?P<name>.+):(?P<actions>[a-z*,]*)\Z")


def parse_scopes(texts: Iterable[str]) -> tuple[dict[RepositoryName, set[str]], bool]:
    """The requested actions of each repository, and whether the catalogue is requested. Unknown scopes are ignored.

    Raises BadRequest for more than MAX_SCOPES.
    """
    asked: dict[RepositoryName, set[str]] = {}
    catalog = False
    words = [word for text in texts for word in text.split()]
    if len(words) > MAX_SCOPES:
        msg = f"A registry token has at most {MAX_SCOPES} scopes; {len(words)} were requested."
        raise BadRequest(msg)
    for word in words:
        match = _SCOPE.match(word)
        if match is None:
            continue
        if match["type"] == "repository":
            try:
                name = RepositoryName.parse(match["name"])
            except NameInvalid:
                continue
            asked.setdefault(name, set()).update(match["actions"].split(","))
        elif match["type"] == "registry" and match["name"] == "catalog":
            catalog = True
    return asked, catalog


async def grant(context: Context, caller: SignedIn | None, scopes: Sequence[str]) -> tuple[str, int, str]:
    """A registry token, the seconds until it expires, and the scope that was granted.

    "Grant the intersection": if the caller has fewer rights than requested, the token has fewer. Without a caller, the
    token is for public repositories only. Raises Unauthorized if there is no caller and no such repository.
    """
    asked, catalog = parse_scopes(scopes)
    actor = caller.actor if caller is not None else Actor()
    grants, known = await context.database.read(_intersect, context, actor, asked)
    if caller is None and not grants:
        msg = "You are not signed in."
        raise Unauthorized(msg)
    seconds = context.config.token_seconds
    if caller is not None and caller.token is not None:
        seconds = max(SHORTEST, min(seconds, (caller.token.expires_at - now()) // SECOND))
    limits = Grants()
    for name, (repository_id, actions) in grants.items():
        limits.allow(name, repository_id, actions)
    limited = Actor(
        user_id=actor.user_id,
        access_token=actor.access_token,
        password_version=actor.password_version,
        grants=limits,
        catalog=catalog and caller is not None,
    )
    words = [f"repository:{name}:{','.join(sorted(actions))}" for name, (_, actions) in grants.items()]
    context.signer.set_keys(known)
    return context.signer.sign(limited, seconds), seconds, " ".join(words)


def _intersect(
    connection: Connection, context: Context, actor: Actor, asked: dict[RepositoryName, set[str]]
) -> tuple[dict[RepositoryName, tuple[int | None, frozenset[str]]], list[Key]]:
    """The grants, and the signing keys at the same moment, so that no deleted key signs the token."""
    grants: dict[RepositoryName, tuple[int | None, frozenset[str]]] = {}
    for name, wanted in asked.items():
        repository_id, allowed = permissions.find_actions(connection, actor, name, allow_public=context.allow_public)
        given = allowed if "*" in wanted else allowed & wanted
        if given:
            grants[name] = (repository_id, frozenset(given))
    return grants, db.keys.every(connection)
