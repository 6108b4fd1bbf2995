"""Commands act only on the server that is named; secrets go only to the server that they belong to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cli.test_failures import INFO, answering
from cli.test_profiles_commands import is_good

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.people import Server, User


@pytest.fixture
def other() -> Iterator[str]:
    """Run another server, which nobody is signed in to, and return its address."""
    with answering(200, INFO % "127.0.0.1:5000") as address:
        yield f"http://{address}"


def config(user: User) -> dict[str, str]:
    """Return the hosts for which Docker asks a helper."""
    found: dict[str, str] = json.loads((user.home / ".docker/config.json").read_text()).get("credHelpers", {})
    return found


def test_a_command_for_another_server_deletes_nothing_here(ann: User, server: Server, other: str) -> None:
    """--server wins over POLLY_PROFILE; if --profile belongs to another server, the error names both."""
    ann.ok("dockers", "create", "precious", "--description", "x")
    delete = ("dockers", "delete", "precious", "--yes", "--server", other)
    done = ann.polly(*delete, POLLY_PROFILE=server.registry)
    assert (done.code, f"not signed in to {other}" in done.err) == (1, True)
    done = ann.polly(*delete, "--profile", server.registry)
    assert (done.code, server.url in done.err, other in done.err) == (2, True, True)
    done = ann.polly("profiles", "use", server.registry, "--server", other)
    assert (done.code, server.url in done.err, other in done.err) == (2, True, True)
    assert ann.polly("logout", other, POLLY_PROFILE=server.registry).code == 1
    assert ann.ok("dockers", "list", "--output", "json").json()[0]["name"] == "precious"


def test_signing_in_elsewhere_keeps_the_profile_of_the_variable(ann: User, server: Server) -> None:
    """If POLLY_PROFILE belongs to another server than --server, it stays; the new one is named after the host."""
    document = json.loads(ann.profiles.read_text())
    document["profiles"]["lab"] = document["profiles"][server.registry] | {"server": "https://lab.example"}
    ann.profiles.write_text(json.dumps(document))
    arguments = ["login", "--email", ann.email, "--password-stdin"]
    ann.ok(*arguments, "--server", server.url, stdin=ann.password, POLLY_PROFILE="lab")
    assert json.loads(ann.profiles.read_text())["profiles"]["lab"]["server"] == "https://lab.example"
    done = ann.polly(*arguments, stdin=ann.password, POLLY_PROFILE="lab", POLLY_SERVER=server.url)
    assert (done.code, "lab.example" in done.err, server.url in done.err) == (2, True, True)
    ann.ok(*arguments, "--profile", server.registry, stdin=ann.password, POLLY_SERVER="https://lab.example")


def test_secrets_of_the_environment_go_to_their_server_alone(
    ann: User, nobody: User, server: Server, other: str
) -> None:
    """``login --auto`` sends them only to POLLY_SERVER, never to the server of an option or of the current profile."""
    secrets = ({"POLLY_TOKEN": ann.token()}, {"POLLY_EMAIL": ann.email, "POLLY_PASSWORD": ann.password})
    for env in secrets:
        done = nobody.polly("login", "--auto", "--server", other, POLLY_SERVER=server.url, **env)
        assert (done.code, server.url in done.err, other in done.err) == (2, True, True)
        done = ann.polly("login", "--auto", **env)
        assert (done.code, "--auto needs a server" in done.err) == (2, True)
        nobody.ok("login", "--auto", "--server", server.url, **env)


@pytest.mark.parametrize("option", ["--org", "--server", "--profile"])
def test_an_empty_option_is_not_left_out(nobody: User, option: str) -> None:
    """An empty variable of a script does not mean the default: exit code 2, also before the command."""
    for line in (["whoami", option, ""], [option, "", "whoami"], ["dockers", "list", f"{option}="]):
        done = nobody.polly(*line)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"Error: {option} is empty.")


@pytest.mark.parametrize("argument", ["--tag", "--commit"])
def test_an_empty_version_deletes_nothing(ann: User, images: list[str], argument: str) -> None:
    """The same is true for other options: an empty --tag does not mean the whole docker repository."""
    assert images
    done = ann.polly("dockers", "delete", "team/gpu", argument, "", "--yes")
    assert (done.code, f"{argument} is empty" in done.err) == (2, True)
    assert ann.polly("logout", "").code == 2
    assert len(ann.ok("dockers", "list", "--output", "json").json()) == 1


def test_signing_out_of_one_of_several_profiles_names_them(ann: User, server: Server) -> None:
    """The address does not say which user is meant; the name of the profile does."""
    ann.login(server, "--profile", "eve")
    token = ann.token()
    done = ann.polly("logout", server.url)
    assert (done.code, f"{server.registry}, eve" in done.err) == (2, True)
    assert is_good(ann, server, token)
    ann.ok("logout", "--profile", "eve")
    ann.ok("logout", server.url)


def test_no_password_of_an_address_is_shown(ann: User) -> None:
    """It is hidden wherever somebody may paste one."""
    url = "https://ann:se/cret@host.example"
    for line in (
        ["login", "--server", url], ["logout", url], ["whoami", url], ["whoami", "--profile", url],
        ["profiles", "remove", url], ["profiles", "use", url], ["login", url, "--server", "x"],
        ["dockers", "tags", "https://ann:secret@host.example/acme/hello"],
        ["dockers", "create", "https://ann:secret@host.example/acme/hello", "--description", "x"],
    ):  # fmt: skip
        done = ann.polly(*line)
        assert done.code in {1, 2}, line
        assert "cret" not in done.out + done.err, line


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ({"POLLY_TOKEN": "t"}, ["--password-stdin"]),
        ({"POLLY_EMAIL": "e", "POLLY_PASSWORD": "p"}, ["--password-stdin"]),
        ({"POLLY_TOKEN": "t"}, ["--expires", "12h"]),
        ({"POLLY_TOKEN": "t"}, ["--email", "somebody.else@acme.example"]),
    ],
)
def test_options_that_mean_nothing_are_refused(
    ann: User, nobody: User, server: Server, env: dict[str, str], options: list[str]
) -> None:
    """``login --auto`` names the option that it would ignore, and signs nobody in."""
    real = {"t": ann.token(), "e": ann.email, "p": ann.password}
    variables = {name: real[value] for name, value in env.items()} | {"POLLY_SERVER": server.url}
    done = nobody.polly("login", "--auto", *options, stdin="x", **variables)
    assert (done.code, options[0] in done.err) == (2, True)
    assert not nobody.profiles.exists()
    nobody.ok("login", "--auto", "--email", ann.email.upper(), **variables)


def test_other_options_without_effect_are_refused_too(ann: User) -> None:
    """So are a password for a signed-in person, and a shell with --exec."""
    done = ann.polly("members", "accept", "--code-stdin", "--password-stdin", stdin="invite-x\nx\n")
    assert (done.code, "Leave out --password-stdin" in done.err) == (2, True)
    done = ann.polly("dockers", "login", "--exec", "--shell", "fish")
    assert (done.code, "--shell" in done.err) == (2, True)


@pytest.fixture
def broken(ann: User, server: Server) -> str:
    """Return a single profile, of an https server, whose certificates file is gone."""
    document = json.loads(ann.profiles.read_text())
    gone = {"server": "https://registry.invalid", "ca_file": str(ann.home / "gone.pem")}
    document["profiles"][server.registry] |= gone
    return json.dumps(document)


@pytest.mark.parametrize("proxy", [{}, {"HTTPS_PROXY": "ftp://proxy", "NO_PROXY": ""}])
def test_signing_out_needs_no_certificates_and_no_proxy(
    ann: User, server: Server, broken: str, proxy: dict[str, str]
) -> None:
    """The profile is removed; exit code 1 says that the token could not be revoked, and why."""
    for command in (["logout"], ["logout", "https://registry.invalid"], ["profiles", "remove", server.registry]):
        ann.profiles.write_text(broken)
        done = ann.polly(*command, **proxy)
        assert (done.code, "signed out here" in done.err) == (1, True)
        assert ("HTTPS_PROXY" if proxy else "gone.pem") in done.err
        assert json.loads(ann.profiles.read_text())["profiles"] == {}


def test_certificates_that_are_gone_do_not_keep_anybody_from_signing_in(ann: User, broken: str) -> None:
    """The profile's missing file is ignored with a warning; the next error is that of the connection."""
    ann.profiles.write_text(broken)
    arguments = ["login", "https://registry.invalid", "--email", ann.email, "--password-stdin"]
    done = ann.polly(*arguments, stdin=ann.password)
    assert (done.code, "gone.pem" in done.err, "does not answer" in done.err) == (1, True, True)


def test_undo_means_the_server_that_is_named(ann: User, server: Server) -> None:
    """A mistyped profile or server changes nothing; a signed-out or missing server is found by its address."""
    ann.ok("dockers", "configure")
    before = config(ann)
    assert ann.polly("dockers", "configure", "--undo", "--profile", "mistyped").code == 1
    assert ann.polly("dockers", "configure", "--undo", POLLY_PROFILE="mistyped").code == 1
    assert ann.polly("dockers", "configure", "--undo", POLLY_TOKEN="polly_x").code == 2
    assert (
        "did not name polly for 127.0.0.1:1\n"
        in ann.ok("dockers", "configure", "--undo", "--server", "127.0.0.1:1").err
    )
    assert config(ann) == before
    path = ann.home / ".docker/config.json"
    document = json.loads(path.read_text())
    document["credHelpers"]["gone.example"] = "polly"
    path.write_text(json.dumps(document))
    ann.ok("dockers", "configure", "--undo", "--server", "http://gone.example")
    assert config(ann) == before
    ann.ok("logout")
    ann.ok("dockers", "configure", "--undo", POLLY_SERVER=server.url)
    assert config(ann) == {}


def good(user: User, server: Server, token: str) -> list[str]:
    """Return the labels of the other valid tokens."""
    env = {"POLLY_SERVER": server.url, "POLLY_TOKEN": token}
    items = user.ok("tokens", "list", "--output", "json", **env).json()
    return [each["label"] for each in items if not each["current"]]


def test_docker_is_signed_out_where_the_token_stays_good(ann: User, nobody: User, server: Server) -> None:
    """Docker's token ends, with POLLY_TOKEN and no profile, and with the profile of login --auto."""
    token = ann.token()
    env = {"POLLY_SERVER": server.url, "POLLY_TOKEN": token}
    done = nobody.ok("dockers", "login", **env)
    assert "polly tokens revoke" in done.err
    ann.ok("tokens", "create", "of somebody else")
    assert len(good(nobody, server, token)) == 2
    nobody.ok("dockers", "logout", **env)
    assert good(nobody, server, token) == ["of somebody else"]
    nobody.ok("login", "--auto", **env)
    nobody.ok("dockers", "login")
    nobody.ok("login", "--auto", **env)  # remembers what was handed out
    nobody.helper("get", server.registry)
    assert len(good(nobody, server, token)) == 3
    nobody.ok("logout")
    assert good(nobody, server, token) == ["of somebody else"]


def test_docker_is_signed_out_where_a_borrowed_profile_is_replaced(
    ann: User, nobody: User, person: Callable[..., User], server: Server
) -> None:
    """If another user signs in under the same name, tokens that were made with the borrowed token end."""
    token, bob = ann.token(), person("reader", signed_in=False)
    nobody.ok("login", "--auto", POLLY_SERVER=server.url, POLLY_TOKEN=token)
    nobody.ok("dockers", "login")
    nobody.helper("get", server.registry)
    assert len(good(nobody, server, token)) == 2
    nobody.ok("login", server.url, "--email", bob.email, "--password-stdin", stdin=bob.password)
    assert good(nobody, server, token) == []


def test_a_person_who_joins_meanwhile_stays(ann: User, nobody: User, server: Server) -> None:
    """The question was about an invitation; somebody who joined meanwhile stays, and that is said."""
    email, password = "late@members.example", "a long password of theirs"
    code = ann.ok("members", "add", email, "--role", "reader", "--output", "json").json()["code"]
    terminal = ann.terminal("members", "remove", email, columns=160)
    terminal.see("Revoke the invitation?")
    accept = ["members", "accept", "--server", server.url, "--email", email, "--code-stdin", "--password-stdin"]
    nobody.ok(*accept, stdin=f"{code}\n{password}\n")
    terminal.type("y")
    assert terminal.end() == 1
    assert "they joined" in terminal.text()
    assert email in ann.ok("members", "list").out
    nobody.ok("whoami")
