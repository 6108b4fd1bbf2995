"""Which server and which person a command means, by options, environment and profiles."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers import api_types
from polly_dockers.cli import profiles, server_url, session, tables
from polly_dockers.cli.actions import invitations
from polly_dockers.cli.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = "https://a.example", "https://b.example", "https://c.example"


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Write the profiles a (the current one), b, and two users of c; and clear the environment."""
    for name in ("SERVER", "PROFILE", "TOKEN", "ORG"):
        monkeypatch.delenv(f"POLLY_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    entries = {
        name: {"server": url, "registry": url[8:], "email": f"{name}@x.example", "token": f"polly_{name}",
               "expires_at": "2030-01-01T00:00:00Z"}
        for name, url in (("a", A), ("b", B), ("c1", C), ("c2", C))
    }  # fmt: skip
    path = tmp_path / "polly/profiles.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"current": "a", "profiles": entries}))
    return path


TABLE: list[tuple[dict[str, str], dict[str, str], tuple[str, str] | int]] = [
    # options, environment, and the token that goes to the server, or the exit code
    ({}, {}, ("polly_a", A)),
    ({}, {"PROFILE": "b"}, ("polly_b", B)),
    ({}, {"SERVER": B}, ("polly_b", B)),
    ({}, {"PROFILE": "b", "SERVER": B}, ("polly_b", B)),
    ({}, {"PROFILE": "b", "SERVER": A}, 2),
    ({}, {"SERVER": C}, 2),
    ({}, {"SERVER": "https://nowhere.example"}, 1),
    ({}, {"TOKEN": "polly_x"}, 2),
    ({}, {"TOKEN": "polly_x", "SERVER": B}, ("polly_x", B)),
    ({}, {"TOKEN": "polly_x", "SERVER": B, "PROFILE": "a"}, ("polly_x", B)),
    ({"profile": "b"}, {"PROFILE": "c1", "SERVER": A, "TOKEN": "polly_x"}, ("polly_b", B)),
    ({"profile": "b"}, {"SERVER": "no address"}, ("polly_b", B)),
    ({"profile": "none"}, {}, 1),
    ({"server": B}, {"PROFILE": "a"}, ("polly_b", B)),
    ({"server": B}, {"SERVER": A}, ("polly_b", B)),
    ({"server": B}, {"TOKEN": "polly_x"}, ("polly_x", B)),
    ({"server": "b.example"}, {"TOKEN": "polly_x", "SERVER": B}, ("polly_x", B)),
    ({"server": B}, {"TOKEN": "polly_x", "SERVER": A}, ("polly_b", B)),
    ({"server": "https://nowhere.example"}, {"TOKEN": "polly_x", "SERVER": A}, 1),
    ({"server": "https://nowhere.example"}, {"PROFILE": "a"}, 1),
    ({"server": C}, {}, 2),
    ({"server": C}, {"PROFILE": "c2"}, ("polly_c2", C)),
    ({"profile": "c1", "server": C}, {"PROFILE": "c2"}, ("polly_c1", C)),
    ({"profile": "b", "server": A}, {}, 2),
    ({"profile": "b", "server": B}, {"TOKEN": "polly_x", "SERVER": B}, ("polly_b", B)),
]


@pytest.mark.parametrize(("options", "environment", "expected"), TABLE)
def test_who_is_meant(
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    environment: dict[str, str],
    expected: tuple[str, str] | int,
) -> None:
    """Options come before the environment, a token goes only to its own server, and nothing is guessed."""
    for name, value in environment.items():
        monkeypatch.setenv(f"POLLY_{name}", value)
    place = options.get("profile"), options.get("server"), None
    if isinstance(expected, int):
        with pytest.raises(CommandError) as refused:
            session.resolve(*place)
        assert refused.value.code == expected
    else:
        found = session.resolve(*place)
        assert (found.token, found.server) == expected


def test_a_contradiction_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the profile with its server, the other server, and the options or variables that set them."""
    with pytest.raises(CommandError, match=rf"^--profile b belongs to {B}, but --server is {A}\."):
        session.resolve("b", A, None)
    monkeypatch.setenv("POLLY_PROFILE", "b")
    monkeypatch.setenv("POLLY_SERVER", A)
    with pytest.raises(CommandError, match=rf"^POLLY_PROFILE b belongs to {B}, but POLLY_SERVER is {A}\."):
        session.resolve(None, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "https://ann:secret@host",
        "https://ann:se/cret@host",
        "ann:secret@host",
        "https://ann:se@cret@host",
        "a\nsecret@h",
    ],
)
def test_no_password_is_shown(text: str) -> None:
    """The text before the last @ of an address may be a password and is not shown; the rest is."""
    assert "cret" not in server_url.masked(text)
    assert server_url.masked(text).endswith(text.rpartition("@")[2])
    for fails in (server_url.normal, lambda each: session.known_name(profiles.load(), each)):
        with pytest.raises(CommandError) as told:
            fails(text)
        assert "cret" not in told.value.message


def test_an_invitation_that_cannot_be_shown_takes_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the invitation is revoked: if its code was used meanwhile, the person stays a member."""
    asked: list[str] = []
    made = api_types.InvitationCreated("bob@x.example", "reader", "invite-x", "2030-01-01T00:00:00Z")
    client = SimpleNamespace(
        invitations=lambda _: SimpleNamespace(items=[]),
        invite=lambda *_: made,
        revoke_invitation=lambda *_: asked.append("invitation"),
        remove_member=lambda *_: asked.append("member"),
    )
    current: Any = SimpleNamespace(client=client, organisation="acme", server=A)
    call: Any = SimpleNamespace(
        may_ask=lambda: False, need_all=lambda _: None, session=current, remember=lambda *_, **__: None
    )

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        invitations.add(call, "bob@x.example", "reader", "table")
    assert asked == ["invitation"]


def test_the_same_host_under_another_scheme_is_named() -> None:
    """If somebody is signed in to https://HOST and gives http://HOST, the error says which address to use."""
    with pytest.raises(CommandError) as caught:
        session.resolve(None, "http://b.example", None)
    assert caught.value.message == (
        "You are not signed in to http://b.example. You are signed in to https://b.example: use --server "
        "https://b.example"
    )
