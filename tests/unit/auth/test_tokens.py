"""Registry tokens, scopes, ETags and passwords."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.auth.passwords import checked, hash_now
from polly_dockers.auth.registry_tokens import Signer, UnknownKey, new_key
from polly_dockers.auth.token_flow import MAX_SCOPES, parse_scopes
from polly_dockers.db.keys import AHEAD, LEEWAY, LOOK_EVERY, Key
from polly_dockers.db.sqlite import now
from polly_dockers.errors import BadRequest, Unauthorized
from polly_dockers.model import BITS, Action, Actor, Grants, RepositoryName, short_hash
from polly_dockers.system.durations import SECOND
from polly_dockers.web.request import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = RepositoryName("acme/x")
ACTOR = Actor(user_id=7, access_token="t", grants=Grants({3: 3}), catalog=True)


def made(age: float = 60) -> Key:
    """A key that is so many seconds old."""
    return Key(*new_key(), now() - round(age * SECOND))


@pytest.fixture
def signer() -> Signer:
    """A signer with one key."""
    return Signer([made()], "registry.example")


@pytest.mark.parametrize(
    "actor",
    [
        ACTOR,
        Actor(user_id=7, password_version=2, grants=Grants()),
        Actor(grants=Grants({3: 1, 2**53: 7})),
        Actor(user_id=1, grants=Grants({}, {short_hash(NAME): 1})),
    ],
)
def test_a_token_says_what_was_signed(signer: Signer, actor: Actor) -> None:
    """Reading a token returns the user, credential, grants and catalogue right that were signed."""
    token = signer.sign(actor, 60)
    (key,) = signer._known
    for _ in range(2):
        assert signer.read(token) == replace(actor, kid=key.kid)


@given(st.lists(st.sampled_from(["pull", "push", "delete"]), unique=True), st.booleans(), st.booleans())
def test_a_grant_is_for_one_repository(actions: list[str], known: bool, mine: bool) -> None:  # noqa: FBT001
    """A grant by id opens that repository under any name. One by name opens what its user created, or a missing one."""
    grants = Grants()
    grants.allow(NAME, 3 if known else None, actions)
    allowed = sum(BITS[Action(each)] for each in actions)
    other = RepositoryName("acme/y")
    assert grants.bits(NAME, 3, mine=mine) == (allowed if known or mine else 0)
    assert grants.bits(NAME, 4, mine=mine) == (allowed if mine and not known else 0)
    assert grants.bits(NAME, None, mine=True) == (0 if known else allowed)
    assert grants.bits(other, 3, mine=mine) == (allowed if known else 0)
    assert grants.bits(other, None, mine=True) == 0


@pytest.mark.parametrize("numbers", [range(10**9, 10**9 + MAX_SCOPES), [None] * MAX_SCOPES])
def test_a_token_fits_into_a_header(signer: Signer, numbers: Sequence[int | None]) -> None:
    """A token for the highest number of repositories has less than 4 kB, whether they exist or not."""
    grants = Grants()
    for at, number in enumerate(numbers):
        grants.allow(RepositoryName(f"acme/{'n' * 200}-{at}"), number, ["delete", "pull", "push"])
    assert len(grants.by_id) + len(grants.by_name) == MAX_SCOPES
    actor = Actor(user_id=10**9, access_token="f" * 16, grants=grants, catalog=True)
    token = Signer(signer._known, "registry.of.an.organisation.example:5000").sign(actor, 600)
    assert len(f"Authorization: Bearer {token}") < 4096
    assert signer.sign(ACTOR, 60)


def test_a_token_of_an_earlier_version(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of an earlier version, whose grants are a list, is refused like an expired one; clients get a new one."""
    claims: dict[str, object] = {}
    encode = jwt.encode
    monkeypatch.setattr(jwt, "encode", lambda payload, *_, **__: claims.update(payload) or "")
    signer.sign(ACTOR, 60)
    monkeypatch.undo()
    (key,) = signer._known
    private = signer._private[key.kid]
    del claims["grants"]
    old = encode(claims | {"access": []}, private, algorithm="EdDSA", headers={"kid": key.kid})
    with pytest.raises(Unauthorized) as caught:
        signer.read(old)
    assert caught.value.reason == "invalid_token"


def test_a_token_of_another_server(signer: Signer) -> None:
    """A token with another key, or with the same key for another audience, is refused."""
    for other in (Signer([made()], "registry.example"), Signer(signer._known, "other.example")):
        with pytest.raises(Unauthorized) as caught:
            signer.read(other.sign(ACTOR, 60))
        assert caught.value.reason == "invalid_token"


def test_the_newest_key_signs_and_all_verify() -> None:
    """The newest key signs, and tokens of the previous key stay valid until they expire."""
    old, new = made(), made(AHEAD + 1)
    before, after = Signer([old], "r"), Signer([old, new], "r")
    assert after.read(before.sign(ACTOR, 60)) == replace(ACTOR, kid=old.kid)
    token = after.sign(ACTOR, 60)
    assert jwt.get_unverified_header(token)["kid"] == new.kid
    with pytest.raises(UnknownKey):
        before.read(token)
    before.set_keys([old, new])
    assert before.read(token) == replace(ACTOR, kid=new.kid)


@pytest.mark.parametrize(
    ("ages", "signs"), [([60, 50], 1), ([60, 1], 0), ([60, 50, 2, 1], 1), ([1], 0), ([-10], 0), ([2, 1], 0)]
)
def test_a_key_signs_once_every_process_can_know_it(ages: list[float], signs: int) -> None:
    """A key younger than AHEAD does not sign yet, unless no key is older; then the oldest signs."""
    keys = [made(age) for age in ages]
    token = Signer(keys, "r").sign(ACTOR, 60)
    assert jwt.get_unverified_header(token)["kid"] == keys[signs].kid


def test_a_key_that_was_read_too_recently_can_not_have_signed() -> None:
    """A process that read the keys LOOK_EVERY ago has every key that can have signed, with two seconds to spare."""
    assert AHEAD >= LOOK_EVERY + 2


def test_made_up_keys_cause_one_look_a_second(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tokens with made-up keys come, the keys are read for the first one, and again after LOOK_EVERY."""
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    assert [signer.may_reload() for _ in range(5)] == [True, False, False, False, False]
    clock += LOOK_EVERY
    assert [signer.may_reload() for _ in range(3)] == [True, False, False]


def test_a_token_ends(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its expiry and the leeway a token is refused, whether it was verified before or not."""
    token = signer.sign(ACTOR, 60)
    other = Signer(signer._known, "registry.example")
    signer.read(token)
    late = time.time() + 60 + LEEWAY + 1

    class Clock(jwt.api_jwt.datetime):  # type: ignore[misc,name-defined]
        @classmethod
        def now(cls, tz: object = None) -> object:
            return cls.fromtimestamp(late, tz)

    monkeypatch.setattr(time, "time", lambda: late)
    monkeypatch.setattr(time, "time_ns", lambda: int(late * 1_000_000_000))
    monkeypatch.setattr(jwt.api_jwt, "datetime", Clock)
    for each in (signer, other):
        with pytest.raises(Unauthorized):
            each.read(token)


def test_memory_is_bounded(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """42: however many tokens are read, and however large they are, those that are remembered are bounded in bytes."""
    small, large = signer.sign(ACTOR, 60), signer.sign(replace(ACTOR, access_token="t" * 4000), 60)
    monkeypatch.setattr("polly_dockers.auth.registry_tokens.REMEMBERED", 20_000)
    for token in (small, large, *(signer.sign(ACTOR, 60) for _ in range(20))):
        signer.read(token)
        signer.read(token)
        kept = sum(512 + 12 * len(each) for each in signer._verified)
        assert signer._bytes == kept <= 20_000
    assert signer._verified
    assert small not in signer._verified


@given(st.text(max_size=100) | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*"))
def test_any_text_is_no_token(text: str) -> None:
    """Any text that is not a token, with lone surrogates too, is Unauthorized and not an internal error."""
    signer = Signer([made()], "r")
    for token in (text, text + "\udcff", "e30." + text):
        with pytest.raises(Unauthorized):
            signer.read(token)


@given(st.lists(st.text("repositygs:/,*() ab0\n", max_size=60), max_size=20))
def test_any_scopes(texts: list[str]) -> None:
    """Whatever scopes a client sends, those that are read have valid names."""
    try:
        asked, _ = parse_scopes(texts)
    except BadRequest:
        return
    for name in asked:
        assert RepositoryName.parse(name) == name


def test_scopes_add_up() -> None:
    """If a repository is in several scopes, their actions are added."""
    asked, catalog = parse_scopes(["repository:acme/x:pull repository:acme/x:push", "registry:catalog:*"])
    assert (asked, catalog) == ({"acme/x": {"pull", "push"}}, True)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        ('"a"', True),
        ("a", True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("", False),
    ],
)
def test_if_none_match(header: str | None, known: bool) -> None:  # noqa: FBT001 - what is expected
    """The weak comparison of RFC 9110, with lists and the star."""
    assert matches(header, "a") is known


@pytest.mark.parametrize(
    ("password", "good"), [("1234567", False), ("12345678", True), ("p" * 1024, True), ("p" * 1025, False)]
)
def test_passwords(password: str, good: bool) -> None:  # noqa: FBT001 - what is expected
    """Passwords have 8 to 1024 characters, and equal ones have different hashes."""
    if not good:
        with pytest.raises(BadRequest, match="8 to 1024"):
            checked(password)
        return
    checked(password)
    assert hash_now(password) != hash_now(password)
