"""``polly profiles list, use, remove``; which tokens a new sign-in ends, and how profiles are named."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.people import Server, User


def is_good(user: User, server: Server, token: str) -> bool:
    """Return whether the server accepts the access token."""
    return user.polly("whoami", POLLY_SERVER=server.url, POLLY_TOKEN=token).code == 0


def test_profiles_are_listed_chosen_and_removed(person: Callable[..., User], server: Server) -> None:
    """Names, users, servers and which one is current, without a secret; removing ends the token."""
    ann, bob = person(), person("reader", signed_in=False)
    first = ann.token()
    arguments = ["login", server.url, "--profile", "bob", "--email", bob.email, "--password-stdin"]
    ann.ok(*arguments, stdin=bob.password)
    second = ann.token()
    done = ann.ok("profiles", "list")
    assert done.out.splitlines()[0].split() == ["profile", "user", "server", "current", "organisation", "expires"]
    assert first not in done.out + ann.ok("profiles", "list", "--output", "json").out
    listed = ann.ok("profiles", "list", "--output", "json").json()
    assert {(each["name"], each["email"], each["current"]) for each in listed} == {
        (server.registry, ann.email, False),
        ("bob", bob.email, True),
    }
    ann.ok("profiles", "use", server.registry)
    assert ann.ok("whoami", "--output", "json").json()["email"] == ann.email
    assert "POLLY_PROFILE" in ann.ok("profiles", "use", "--profile", "bob", POLLY_PROFILE=server.registry).err
    ann.ok("profiles", "remove", "bob")
    assert not is_good(ann, server, second)
    assert is_good(ann, server, first)
    assert [each["name"] for each in ann.ok("profiles", "list", "--output", "json").json()] == [server.registry]
    for command in ("use", "remove"):
        done = ann.polly("profiles", command, "bob")
        assert (done.code, f"There are: {server.registry}" in done.err) == (1, True)
        assert ann.polly("profiles", command).err == "Error: --profile is missing.\n"


def test_the_list_needs_no_server_and_says_what_to_do_where_it_is_empty(nobody: User) -> None:
    """Exit code 0, and how to sign in on stderr."""
    done = nobody.ok("profiles", "list")
    assert (done.out, "polly login" in done.err) == ("", True)
    assert nobody.ok("profiles", "list", "--output", "json").json() == []


def test_a_sign_in_ends_the_one_before_it(person: Callable[..., User], server: Server) -> None:
    """A sign-in ends the profile's previous one, of any user; Docker's token stays valid only for the same user."""
    ann, bob = person(), person("reader", signed_in=False)
    docker = ann.ok("dockers", "login").out.splitlines()[1]
    tokens = [ann.token()]
    ann.login(server)
    tokens.append(ann.token())
    assert [is_good(ann, server, each) for each in tokens] == [False, True]
    listed = ann.ok("tokens", "list", "--output", "json").json()
    assert len([each for each in listed if each["scope"] == "full"]) == 1
    assert len(listed) == 2, "the token of docker is gone"
    ann.ok("dockers", "logout")
    assert docker
    assert len(ann.ok("tokens", "list", "--output", "json").json()) == 1
    ann.ok("login", server.url, "--email", bob.email, "--password-stdin", stdin=bob.password)
    assert not is_good(ann, server, tokens[1])
    ann.ok("whoami")


def test_a_refused_sign_in_leaves_the_one_before(ann: User, server: Server) -> None:
    """A wrong password, or an organisation of others, signs nobody out, and leaves no token behind."""
    before = ann.token()
    arguments = ["login", server.url, "--email", ann.email, "--password-stdin"]
    assert ann.polly(*arguments, stdin="wrong").code == 1
    assert ann.polly(*arguments, "--org", "none", stdin=ann.password).code == 1
    assert ann.token() == before
    assert len(ann.ok("tokens", "list", "--output", "json").json()) == 1


def test_a_token_of_the_environment_outlives_the_profile(ann: User, nobody: User, server: Server) -> None:
    """If a job signs in with POLLY_TOKEN and out again, the token stays valid for the next job."""
    for command in (["logout"], ["login", "--auto"]):
        nobody.ok("login", "--auto", POLLY_SERVER=server.url, POLLY_TOKEN=ann.token())
        env = {"POLLY_EMAIL": ann.email, "POLLY_PASSWORD": ann.password, "POLLY_SERVER": server.url}
        nobody.ok(*command, **env)
        ann.ok("whoami")


def test_a_wrong_token_of_the_environment_is_named(ann: User, nobody: User, server: Server) -> None:
    """The message names the variable, also through Docker, and for a token with a line end in it."""
    env = {"POLLY_SERVER": server.url, "POLLY_TOKEN": "polly_wrong"}
    for words in (ann.polly("whoami", **env).err, nobody.helper("get", server.registry, **env).out):
        assert "POLLY_TOKEN" in words
        assert f"unset POLLY_TOKEN and run: polly login --server {server.url}" in words
    assert "in POLLY_TOKEN has invalid characters" in ann.polly("whoami", **env | {"POLLY_TOKEN": "polly_a\nb"}).err


def test_this_machine_has_three_names_and_one_profile(ann: User, server: Server) -> None:
    """localhost, 127.0.0.1 and [::1] with the same port are one server, for sign-ins, names and Docker."""
    local = server.url.replace("127.0.0.1", "localhost")
    before = ann.token()
    ann.ok("login", local, "--email", ann.email, "--password-stdin", stdin=ann.password)
    assert not is_good(ann, server, before)
    assert len(json.loads(ann.profiles.read_text())["profiles"]) == 1
    for host in (local, server.url, server.url.replace("127.0.0.1", "[::1]")):
        ann.ok("profiles", "list", "--server", host)
        registry = host.partition("://")[2]
        assert ann.helper("get", registry).json()["Username"] == "POLLY"
        assert registry in ann.helper("list").json()
    ann.ok("whoami", "--server", local)
    ann.ok("whoami", "--server", server.url)
    path = f"{local.partition('://')[2]}/{ann.env['TEST_ORG']}/by-another-name"
    done = ann.ok("dockers", "create", path, "--description", "x", "--output", "json")
    assert done.json()["path"] == f"{server.registry}/{ann.env['TEST_ORG']}/by-another-name"


@pytest.mark.parametrize("path", ["/v2/", "/v2/acme/hello/manifests/latest", "/token?service=x"])
def test_docker_shows_the_login_to_run(server: Server, path: str) -> None:
    """If nobody is signed in, the message that clients print has the polly login for this server."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(server.url + path)
    message = json.loads(refused.value.read())["errors"][0]["message"]
    assert message.endswith(
        "Run polly dockers configure, or the command that polly dockers login prints. If you are not signed in, first "
        f"run: polly login --server {server.url}"
    )
    assert "docker-credential-polly get" not in message  # it prints a secret


def test_docker_shows_once_how_to_replace_a_revoked_token(server: Server) -> None:
    """A refused refresh token gets one message with each command once."""
    form = urllib.parse.urlencode({"grant_type": "refresh_token", "service": "x", "refresh_token": "polly_revoked"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(server.url + "/token", form.encode())
    message = json.loads(refused.value.read())["errors"][0]["message"]
    assert message.startswith("This sign-in is not valid: it has expired or was revoked")
    for command in ("polly dockers configure", "polly dockers login", f"polly login --server {server.url}"):
        assert message.count(command) == 1, message


def test_a_profile_is_used_by_its_server_too(ann: User, server: Server) -> None:
    """An address chooses its profile; a profile's name given as an address gets a hint to --profile."""
    ann.login(server, "--profile", "eve")
    for name in {each["name"] for each in ann.ok("profiles", "list", "--output", "json").json()} - {"eve"}:
        ann.ok("profiles", "remove", name)
    assert "The commands use eve" in ann.ok("profiles", "use", server.url).err
    assert "--profile eve" in ann.polly("logout", "eve").err


def test_a_profile_is_removed_by_its_server_too(ann: User, server: Server) -> None:
    """An unknown name is refused with the nearest name; nothing is removed."""
    ann.login(server, "--profile", "eve")
    names = {each["name"] for each in ann.ok("profiles", "list", "--output", "json").json()}
    done = ann.polly("profiles", "remove", "evee")
    assert (done.code, "Did you mean eve?" in done.err, "polly login" in done.err) == (1, True, False)
    if len(names) > 1:
        done = ann.polly("profiles", "remove", server.url)
        assert (done.code, "Several profiles" in done.err) == (2, True)
        ann.ok("profiles", "remove", "eve")
    ann.ok("profiles", "remove", server.url)
    assert ann.ok("profiles", "list", "--output", "json").json() == []
