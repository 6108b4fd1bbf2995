"""Signing in with a password or an access token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.auth import access_tokens, sign_in
from polly_dockers.auth.throttles import FAILURES_PAIR
from polly_dockers.errors import BadRequest, TokenUnknown, TooManyRequests, Unauthorized
from support.use_cases import PASSWORD, READER, WRITER, email

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.context import Context
    from support.use_cases import Clock

ADDRESS = "203.0.113.1"
HOUR = 3600


async def by_password(context: Context, password: str = PASSWORD, user: str = email(WRITER)) -> SignedIn:
    """Sign in with a password."""
    return await sign_in.sign_in(context, user, password, ADDRESS)


async def by_token(context: Context, secret: str) -> SignedIn:
    """Sign in with an access token."""
    return await sign_in.sign_in(context, "anything", secret, ADDRESS)


async def new_token(context: Context, caller: SignedIn, scope: str = "full", seconds: int = HOUR, **more: str) -> str:
    """A new access token; its secret."""
    _, secret = await access_tokens.create(context, caller, scope=scope, seconds=seconds, label="test", **more)
    return secret


async def ended(context: Context, secret: str) -> None:
    """The access token is refused."""
    with pytest.raises(Unauthorized):
        await by_token(context, secret)


async def test_the_right_password(context: Context) -> None:
    """The right password signs in, whatever the case of the email address."""
    for user in (email(WRITER), email(WRITER).upper()):
        found = await by_password(context, user=user)
        assert (found.email, found.actor.user_id, found.token) == (email(WRITER), WRITER.user_id, None)


async def test_wrong_credentials_are_alike(context: Context) -> None:
    """A wrong password, an unknown email and a text that is not an email get the same error."""
    said = set()
    for user, password in (
        (email(WRITER), "wrong password"),
        ("nobody@acme.example", PASSWORD),
        ("not an email", PASSWORD),
    ):
        with pytest.raises(Unauthorized) as caught:
            await by_password(context, password, user)
        said.add(caught.value.message)
    assert len(said) == 1


async def test_guessing_is_stopped(context: Context, clock: Clock) -> None:
    """After too many wrong passwords even the right one is refused, and it is good again after a while."""
    for _ in range(FAILURES_PAIR):
        with pytest.raises(Unauthorized):
            await by_password(context, "wrong password")
    with pytest.raises(TooManyRequests) as caught:
        await by_password(context)
    await by_password(context, user=email(READER))
    clock.advance(seconds=caught.value.retry_after + 1)
    await by_password(context)


async def test_an_access_token_signs_in(context: Context) -> None:
    """An access token signs in its user without an email, and is listed without its secret."""
    caller = await by_password(context)
    secret = await new_token(context, caller)
    found = await by_token(context, secret)
    assert (found.email, found.actor.user_id) == (email(WRITER), WRITER.user_id)
    [listed] = await access_tokens.page(context, caller, after=None, limit=10)
    assert found.token is not None
    assert (listed.id, listed.scope, listed.label) == (found.token.id, "full", "test")
    assert listed.last_used_at is not None
    assert secret.startswith("polly_")


async def test_an_access_token_expires(context: Context, clock: Clock) -> None:
    """An access token is refused once its time is over, and is not listed any more."""
    caller = await by_password(context)
    secret = await new_token(context, caller, seconds=HOUR)
    clock.advance(seconds=HOUR - 10)
    await by_token(context, secret)
    clock.advance(seconds=20)
    await ended(context, secret)
    assert await access_tokens.page(context, caller, after=None, limit=10) == []


async def test_a_token_makes_only_lesser_tokens(context: Context, clock: Clock) -> None:
    """An access token makes tokens for the registry only, which expire no later than it does."""
    parent = await by_token(context, await new_token(context, await by_password(context), seconds=HOUR))
    with pytest.raises(BadRequest):
        await new_token(context, parent, scope="full")
    child = await new_token(context, parent, scope="registry", seconds=10 * HOUR)
    clock.advance(seconds=HOUR + 1)
    await ended(context, child)


async def test_a_revoked_token_takes_its_children_along(context: Context) -> None:
    """A revoked access token is refused at once, and so are those that were made with it."""
    caller = await by_password(context)
    secret = await new_token(context, caller)
    parent = await by_token(context, secret)
    child = await new_token(context, parent, scope="registry")
    assert parent.token is not None
    await access_tokens.revoke(context, caller, parent.token.id)
    await ended(context, secret)
    await ended(context, child)
    with pytest.raises(TokenUnknown):
        await access_tokens.revoke(context, caller, parent.token.id)


async def test_nobody_revokes_the_tokens_of_others(context: Context) -> None:
    """A user cannot revoke an access token of another user."""
    found = await by_token(context, await new_token(context, await by_password(context)))
    assert found.token is not None
    other = await by_password(context, user=email(READER))
    with pytest.raises(TokenUnknown):
        await access_tokens.revoke(context, other, found.token.id)


async def test_a_token_is_replaced(context: Context) -> None:
    """A new access token may revoke an older one of the same user, in one step."""
    caller = await by_password(context)
    old = await new_token(context, caller)
    new = await new_token(context, caller, replaces=old)
    await ended(context, old)
    await by_token(context, new)


async def test_a_new_password_ends_everything(context: Context) -> None:
    """A new password revokes all access tokens, and the old password is refused."""
    caller = await by_password(context)
    secret = await new_token(context, caller)
    await sign_in.change_password(context, caller, "another password")
    await ended(context, secret)
    with pytest.raises(Unauthorized):
        await by_password(context)
    await by_password(context, "another password")


@pytest.mark.parametrize("password", ["short", "polly_is_reserved", "with\ttab inside", "x" * 1025])
async def test_a_bad_password_is_not_stored(context: Context, password: str) -> None:
    """A password that no account takes leaves the old one as it is."""
    caller = await by_password(context)
    with pytest.raises(BadRequest):
        await sign_in.change_password(context, caller, password)
    await by_password(context)
