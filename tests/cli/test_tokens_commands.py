"""``polly tokens list, create, revoke``."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from cli.people import mode
from polly_dockers.cli.new_token import on_this_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.people import Server, User


@pytest.fixture(scope="module")
def organisation(server: Server) -> tuple[str, tuple[str, str]]:
    """Return one organisation for all tests here: its content does not matter to them."""
    return server.new_org()


def test_tokens_are_made_listed_and_ended(ann: User) -> None:
    """The secret is shown once; label, scope, expiry and last use are listed, and the sign-in itself is marked."""
    done = ann.ok("tokens", "create", "nightly build", "--expires", "30d")
    header, row = done.out.splitlines()
    assert header.split()[-1] == "token"
    token_id, secret = row.split()[0], row.split()[-1]
    assert secret.startswith("polly_")
    assert f"polly tokens revoke {token_id}" in done.err
    done = ann.ok("tokens", "list")
    assert done.out.splitlines()[0].split() == ["id", "label", "scope", "last", "used", "expires", "created", "at"]
    assert "nightly build" in done.out
    assert "(this one)" in done.out
    assert secret not in done.out
    listed = {each["id"]: each for each in ann.ok("tokens", "list", "--output", "json").json()}
    assert (listed[token_id]["label"], listed[token_id]["scope"]) == ("nightly build", "registry")
    assert (listed[token_id]["last_used_at"], listed[token_id]["current"]) == (None, False)
    ann.ok("tokens", "revoke", token_id)
    assert token_id not in ann.ok("tokens", "list", "--output", "json").out


def test_the_secret_goes_where_a_script_wants_it(ann: User) -> None:
    """Into a file that only the user can read, or to stdout with nothing else, or as JSON."""
    path = ann.home / "token"
    done = ann.ok("tokens", "create", "--label", "a", "--file", str(path), "--output", "json")
    assert (mode(path), "token" in done.json()) == (0o600, False)
    assert path.read_text().startswith("polly_")
    kept = path.read_text()
    done = ann.polly("tokens", "create", "--label", "a", "--file", str(path))
    assert (done.code, path.read_text()) == (2, kept)
    assert f"--file '{path}' exists and is not empty. Name a new file" in done.err
    path.write_text("")
    ann.ok("tokens", "create", "--label", "a", "--file", str(path))
    assert (mode(path), path.read_text()[:6]) == (0o600, "polly_")
    done = ann.ok("tokens", "create", "--label", "b", "--file", "-")
    assert done.out.startswith("polly_")
    assert len(done.out.splitlines()) == 1
    assert ann.ok("tokens", "create", "c", "--output", "json").json()["token"].startswith("polly_")


def test_a_token_that_cannot_be_handed_out_is_not_made(ann: User) -> None:
    """If the password is wrong, or the folder of the file is missing, no token is on the server."""
    before = ann.ok("tokens", "list", "--output", "json").json()
    done = ann.polly("tokens", "create", "d", "--scope", "full", "--password-stdin", stdin="wrong\n")
    assert (done.code, done.err) == (1, "Error: The password is wrong. No token was created.\n")
    done = ann.polly("tokens", "create", "d", "--file", "none/token")
    assert (done.code, "--file 'none/token' can't be written: there is no folder none." in done.err) == (2, True)
    after = ann.ok("tokens", "list", "--output", "json").json()
    assert [each["id"] for each in after] == [each["id"] for each in before]


def test_a_full_token_takes_the_password(ann: User, nobody: User, server: Server) -> None:
    """With the two variables it then works for every command."""
    done = ann.polly("tokens", "create", "ci", "--scope", "full", "--no-input")
    assert (done.code, done.err) == (2, "Error: --password-stdin is missing. Give it, and the password on stdin.\n")
    assert ann.polly("tokens", "create", "ci", "--scope", "full", "--password-stdin", stdin="wrong\n").code == 1
    arguments = ["tokens", "create", "ci", "--scope", "full", "--password-stdin", "--file", "-"]
    token = ann.ok(*arguments, stdin=ann.password).out.strip()
    env = {"POLLY_SERVER": server.url, "POLLY_TOKEN": token}
    assert nobody.ok("whoami", "--output", "json", **env).json()["email"] == ann.email


def test_ids_may_be_shortened_while_they_are_clear(ann: User) -> None:
    """A beginning that several ids have is refused, and they are listed; an unknown one is refused too."""
    made = [ann.ok("tokens", "create", f"t{number}", "--output", "json").json()["id"] for number in range(20)]
    several = next(each[:1] for each in made if len([1 for other in made if other[0] == each[0]]) > 1)
    done = ann.polly("tokens", "revoke", several)
    assert (done.code, "is ambiguous" in done.err) == (2, True)
    ann.ok("tokens", "revoke", "--id", made[0][:12])
    assert made[0] not in ann.ok("tokens", "list", "--output", "json").out
    done = ann.polly("tokens", "revoke", made[0])
    assert (done.code, "polly tokens list" in done.err) == (1, True)
    assert ann.polly("tokens", "revoke").err == "Error: --id is missing.\n"


def test_wrong_values_are_wrong_usage(ann: User) -> None:
    """Exit code 2 for a wrong duration, options that don't fit together, and a missing label."""
    for arguments in (
        ["x", "--expires", "soon"],
        ["x", "--password-stdin"],
        ["x", "--file", "-", "--output", "json"],
        [],
        ["x", "--label", "y"],
        ["x" * 201],
    ):
        done = ann.polly("tokens", "create", *arguments)
        assert (done.code, done.out) == (2, "")


def test_a_label_is_kept_whole(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's label of 200 characters is kept; a generated one, with the machine's name, is cut to 200."""
    made = ann.ok("tokens", "create", "x" * 200, "--output", "json").json()
    listed = ann.ok("tokens", "list", "--output", "json").json()
    assert [each["label"] for each in listed if each["id"] == made["id"]] == ["x" * 200]
    done = ann.polly("tokens", "create", "x" * 201)
    assert "at most 200" in done.err
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 250)
    assert on_this_machine("polly login") == "polly login on ".ljust(200, "h")


def test_the_sign_in_of_this_computer_is_revoked_on_demand_only(person: Callable[..., User]) -> None:
    """On a pipe it needs --yes; in the list it is marked and last, and answering no keeps it."""
    bob = person("reader")
    made = bob.ok("tokens", "create", "other", "--output", "json").json()["id"]
    [mine] = [each["id"] for each in bob.ok("tokens", "list", "--output", "json").json() if each["current"]]
    done = bob.polly("tokens", "revoke", mine)
    assert (done.code, "--yes" in done.err) == (2, True)
    terminal = bob.terminal("tokens", "revoke")
    terminal.see("(this one)")
    lines = [line for line in terminal.lines() if made in line or mine in line]
    assert "(this one)" in lines[-1]
    terminal.type("\r")
    terminal.see("Revoke it?")
    assert f"revokes the access token {made}" in terminal.text()
    terminal.type("n")
    assert terminal.end() == 1
    assert made in bob.ok("tokens", "list", "--output", "json").out
    bob.ok("tokens", "revoke", mine, "--yes")
    assert bob.polly("whoami").code == 1


def test_a_token_that_is_shorter_than_asked_for_says_why(ann: User) -> None:
    """It also says how to get a longer one; if the token is as long as asked for, there is no message."""
    done = ann.ok("tokens", "create", "long", "--expires", "365d")
    assert "It expires before 365d" in done.err
    assert "polly login --expires 365d" in done.err
    assert "It expires before" not in ann.ok("tokens", "create", "short", "--expires", "7d").err


def test_a_registry_token_in_the_environment_names_the_scope_for_commands(
    ann: User, nobody: User, server: Server
) -> None:
    """The message names `tokens create --scope full`, which creates a token for commands."""
    token = ann.ok("tokens", "create", "ci", "--file", "-").out.strip()
    done = nobody.polly("dockers", "list", POLLY_SERVER=server.url, POLLY_TOKEN=token)
    assert (done.code, "polly tokens create --scope full" in done.err) == (1, True)


def test_a_token_is_not_its_id(ann: User) -> None:
    """A token given as an id is not shown; for a label, the message names the id."""
    made = ann.ok("tokens", "create", "--label", "of ci", "--scope", "registry", "--output", "json").json()
    done = ann.polly("tokens", "revoke", made["token"])
    assert (done.code, made["token"] in done.err, "polly tokens list" in done.err) == (2, False, True)
    done = ann.polly("tokens", "revoke", "of ci")
    assert (done.code, made["id"] in done.err) == (2, True)
