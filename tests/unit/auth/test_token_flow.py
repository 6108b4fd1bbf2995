"""Registry tokens: what the Docker token flow grants of what a client asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.auth import sign_in, token_flow
from polly_dockers.errors import Unauthorized
from support.use_cases import NAME, OUTSIDER, PASSWORD, READER, WRITER, create, email

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from polly_dockers.context import Context
    from polly_dockers.model import Actor

SCOPE = f"repository:{NAME}:pull,push,delete"


async def granted(context: Context, actor: Actor | None, *scopes: str) -> str:
    """The scope of the token that a user gets; None: somebody who is not signed in."""
    caller = None
    if actor is not None:
        caller = await sign_in.sign_in(context, email(actor), PASSWORD, "203.0.113.1")
    _, _, scope = await token_flow.grant(context, caller, scopes)
    return scope


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("actor", "scope"),
    [(WRITER, f"repository:{NAME}:pull,push"), (READER, f"repository:{NAME}:pull"), (OUTSIDER, "")],
    ids=["writer", "reader", "outsider"],
)
async def test_a_token_is_cut_to_the_role(context: Context, actor: Actor, scope: str) -> None:
    """A token allows what its user asked for and may do; there is a token even where that is nothing."""
    assert await granted(context, actor, SCOPE) == scope


@pytest.mark.usefixtures("repository")
async def test_a_token_allows_only_what_was_asked_for(context: Context) -> None:
    """A token allows no more than was asked for, and a scope that is not understood is ignored."""
    assert await granted(context, WRITER, f"repository:{NAME}:pull", "x:y:z", "nonsense") == f"repository:{NAME}:pull"


@pytest.mark.usefixtures("repository")
async def test_nobody_gets_a_token_for_what_is_private(context: Context) -> None:
    """Somebody who is not signed in gets no token for a private repository."""
    with pytest.raises(Unauthorized):
        await granted(context, None, SCOPE)


async def test_anybody_gets_a_token_for_what_is_public(open_context: Callable[..., Awaitable[Context]]) -> None:
    """Somebody who is not signed in gets a token to pull from a public repository."""
    context = await open_context(public_repositories="allow")
    await create(context, NAME.name, public=True)
    assert await granted(context, None, SCOPE) == f"repository:{NAME}:pull"


@pytest.mark.usefixtures("repository")
async def test_a_token_carries_its_grants(context: Context) -> None:
    """The grants that a token was signed with are those that are read from it."""
    caller = await sign_in.sign_in(context, email(READER), PASSWORD, "203.0.113.1")
    token, seconds, _ = await token_flow.grant(context, caller, [SCOPE, "registry:catalog:*"])
    actor = context.signer.read(token)
    assert (actor.user_id, actor.password_version, actor.catalog) == (READER.user_id, 1, True)
    assert actor.grants is not None
    assert list(actor.grants.by_id.values()) == [1]
    assert seconds == context.config.token_seconds
