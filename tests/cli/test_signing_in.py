"""``polly login``, ``logout``, ``whoami``, ``password``; profiles and the environment."""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import pytest

from cli.people import Server, User, mode

if TYPE_CHECKING:
    from collections.abc import Callable


def test_login_says_who_is_signed_in_and_keeps_no_password(person: Callable[..., User], server: Server) -> None:
    """The message has the usual words, stdout is empty, and the file has a token and mode 0600."""
    ann = person(signed_in=False)
    done = ann.login(server)
    assert done.out == ""
    assert done.err.splitlines() == [
        f"Success: Logged in to Polly as {ann.email}",
        "Use the command polly --help to learn how to use the CLI",
    ]
    assert ann.password not in ann.profiles.read_text()
    assert (mode(ann.profiles), mode(ann.profiles.parent)) == (0o600, 0o700)


def test_the_file_is_private_whatever_the_umask(person: Callable[..., User], server: Server) -> None:
    """With a umask of 000, others still cannot read the token."""
    ann = person(signed_in=False)
    command = f"umask 000; polly login --server {server.url} --email {ann.email} --password-stdin"
    assert ann.run("sh", "-c", command, stdin=ann.password).code == 0
    assert (mode(ann.profiles), mode(ann.profiles.parent)) == (0o600, 0o700)


def test_whoami_shows_user_organisation_role_server_and_expiry(ann: User, server: Server) -> None:
    """On a pipe it is aligned text with the whole address; JSON has the same, with times in UTC."""
    header, row = ann.ok("whoami").out.splitlines()
    assert header.split() == ["user", "organisation", "role", "server", "expires"]
    assert row.split()[:4] == [ann.email, ann.env["TEST_ORG"], "admin", server.url]
    document = ann.ok("whoami", "--output", "json").json()
    assert document["email"] == ann.email
    [membership] = document["organisations"]
    assert (membership["organisation"], membership["role"]) == (ann.env["TEST_ORG"], "admin")
    assert (document["server"], document["registry"]) == (server.url, server.registry)
    assert document["expires_at"].endswith("Z")
    for wrong in (("--org", "nosuch"), ("--org", "nosuch", "--output", "json")):
        done = ann.polly("whoami", *wrong)
        assert (done.code, done.out) == (1, "")
        assert "not a member of an organisation 'nosuch'" in done.err
    assert ann.polly("whoami", POLLY_ORG="nosuch").code == 1


def test_a_wrong_password_is_refused_and_nothing_is_kept(person: Callable[..., User], server: Server) -> None:
    """Exit code 1, one line, and no file."""
    ann = person(signed_in=False)
    done = ann.polly("login", "--server", server.url, "--email", ann.email, "--password-stdin", stdin="wrong\n")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert len(done.err.splitlines()) == 1
    assert not ann.profiles.exists()


def test_login_on_a_pipe_names_what_is_missing(nobody: User, server: Server) -> None:
    """Without a server, an email or a password the command does not wait: exit code 2 and the option's name."""
    steps = [([], "--server"), (["--server", server.url], "--email")]
    steps.append((["--server", server.url, "--email", "ann@acme.example"], "--password-stdin"))
    everything = "--server is missing. --email is missing. --password-stdin is missing."
    assert nobody.polly("login").err == f"Error: {everything} Give it, and the password on stdin.\n"
    for arguments, missing in steps:
        done = nobody.polly("login", *arguments)
        assert done.code == 2
        assert f"{missing} is missing" in done.err
    done = nobody.polly("login", *steps[2][0], "--password-stdin", stdin="")
    assert (done.code, "stdin is empty" in done.err) == (2, True)


def test_logout_ends_the_token_on_the_server(ann: User, server: Server) -> None:
    """The stored token is refused afterwards, and the profile is gone."""
    token = ann.token()
    assert "Success: Logged out" in ann.ok("logout").err
    done = ann.polly("whoami", POLLY_SERVER=server.url, POLLY_TOKEN=token)
    assert done.code == 1
    assert f"polly login --server {server.url}" in done.err
    done = ann.polly("whoami")
    assert (done.code, "You are not signed in" in done.err) == (1, True)


def test_logout_forgets_the_token_where_the_server_is_gone(ann: User) -> None:
    """If nothing answers, the profile is removed, and exit code 1 says that the token may still be valid."""
    document = json.loads(ann.profiles.read_text())
    document["profiles"][document["current"]]["server"] = "http://127.0.0.1:1"
    ann.profiles.write_text(json.dumps(document))
    done = ann.polly("logout")
    assert done.code == 1
    assert "signed out here" in done.err
    assert "It expires on" in done.err
    assert json.loads(ann.profiles.read_text())["profiles"] == {}


def test_logout_works_after_the_token_has_ended(ann: User, server: Server) -> None:
    """If the token was already revoked elsewhere, logout succeeds with exit code 0."""
    other = ann.profiles.read_text()
    ann.ok("logout")
    ann.profiles.write_text(other)
    assert ann.polly("logout", POLLY_SERVER=server.url).code == 0


def test_an_expired_sign_in_says_how_to_renew_it(ann: User, server: Server) -> None:
    """If the server refuses the token, the message has the polly login to run."""
    done = ann.polly("dockers", "list", POLLY_SERVER=server.url, POLLY_TOKEN="polly_wrong")
    assert done.code == 1
    assert f"polly login --server {server.url}" in done.err


def test_profiles_name_servers(person: Callable[..., User], server: Server) -> None:
    """With two users of one server, --profile and POLLY_PROFILE choose; the last login is the current profile."""
    ann, bob = person(), person("reader", signed_in=False)
    ann.ok(
        "login",
        "--profile",
        "bob",
        "--server",
        server.url,
        "--email",
        bob.email,
        "--password-stdin",
        stdin=bob.password,
    )
    who = {
        "": ann.ok("whoami", "--output", "json"),
        "option": ann.ok("whoami", "--output", "json", "--profile", server.registry),
        "variable": ann.ok("whoami", "--output", "json", POLLY_PROFILE=server.registry),
        "before": ann.ok("--profile", server.registry, "whoami", "--output", "json"),
    }
    assert [each.json()["email"] for each in who.values()] == [bob.email, ann.email, ann.email, ann.email]
    done = ann.polly("whoami", "--profile", "carl")
    assert done.code == 1
    assert f"There are: {server.registry}, bob" in done.err


def test_the_environment_needs_no_file(ann: User, nobody: User, server: Server) -> None:
    """POLLY_SERVER and POLLY_TOKEN are enough for every command, even if the home folder can't be written."""
    token = ann.token()
    env = {
        "POLLY_SERVER": server.url,
        "POLLY_TOKEN": token,
        "XDG_CONFIG_HOME": "/dev/null/x",
        "XDG_CACHE_HOME": "/dev/null/x",
    }
    assert nobody.ok("whoami", "--output", "json", **env).json()["profile"] is None
    assert token not in nobody.ok("dockers", "login", **env).out
    secret = nobody.helper("get", server.registry, **env).json()["Secret"]
    assert secret not in {"", token}
    done = nobody.polly("whoami", POLLY_TOKEN=token)
    assert (done.code, "POLLY_SERVER is not" in done.err) == (2, True)


def test_a_broken_token_is_refused(nobody: User, server: Server) -> None:
    """A token that was copied with a line end in the middle is refused with exit code 2."""
    done = nobody.polly("whoami", POLLY_SERVER=server.url, POLLY_TOKEN="polly_a\nb: c")
    assert (done.code, "Copy it again" in done.err) == (2, True)


def test_auto_takes_the_environment(ann: User, nobody: User, server: Server) -> None:
    """--auto uses the token, or else email and password; a missing variable is named."""
    nobody.ok("login", "--auto", POLLY_SERVER=server.url, POLLY_TOKEN=ann.token())
    assert nobody.token() == ann.token()
    nobody.ok("login", "--auto", POLLY_SERVER=server.url, POLLY_EMAIL=ann.email, POLLY_PASSWORD=ann.password)
    assert nobody.token() != ann.token()
    assert nobody.ok("whoami", "--output", "json").json()["email"] == ann.email
    done = nobody.polly("login", "--auto", POLLY_SERVER=server.url)
    needed = "--auto needs an account. Set POLLY_TOKEN, or POLLY_EMAIL and POLLY_PASSWORD."
    assert (done.code, done.err) == (2, f"Error: {needed}\n")
    done = nobody.polly("login", "--auto", HOME=str(nobody.home / "other"))
    assert (done.code, done.err) == (2, "Error: --auto needs a server. Give --server, or set POLLY_SERVER.\n")


def test_what_is_not_an_email_is_refused(nobody: User, server: Server) -> None:
    """Before the password is read or the server is asked; the message names the option or the variable."""
    done = nobody.polly("login", "--server", server.url, "--email", "admin", "--password-stdin", stdin="x\n")
    assert (done.code, done.err) == (2, "Error: --email 'admin' is not an email address.\n")
    done = nobody.polly("login", "--auto", POLLY_SERVER=server.url, POLLY_EMAIL="admin", POLLY_PASSWORD="x")
    assert (done.code, done.err) == (2, "Error: POLLY_EMAIL 'admin' is not an email address.\n")


def test_several_organisations_can_be_chosen_from(ann: User, server: Server) -> None:
    """The option, the variable and login --org choose one; the default is the one that was joined first."""
    other, (email, password) = server.new_org()
    admin = User(ann.home, email, password, ann.env | {"XDG_CONFIG_HOME": str(ann.home / "other")})
    admin.login(server)
    made = admin.ok("members", "add", "--email", ann.email, "--role", "reader", "--output", "json").json()
    assert other not in ann.ok("whoami").out
    ann.ok("members", "accept", "--code-stdin", stdin=made["code"])
    assert ann.env["TEST_ORG"] in ann.ok("dockers", "list").err
    for chosen in (["--org", other], []):
        env = {} if chosen else {"POLLY_ORG": other}
        assert other in ann.ok("dockers", "list", *chosen, **env).err
    ann.login(server, "--org", other)
    assert other in ann.ok("dockers", "list").err
    done = ann.polly(
        "login", "--server", server.url, "--email", ann.email, "--password-stdin", "--org", "none", stdin=ann.password
    )
    assert done.code == 1
    assert f"{other}" in done.err


def test_password_is_changed_and_one_stays_signed_in(person: Callable[..., User], server: Server) -> None:
    """The old password is refused, the new one works, and this profile stays signed in."""
    bob = person("writer")
    done = bob.polly("password", "--password-stdin", stdin="wrong\na new long password 7\n")
    assert done.code == 1
    bob.ok("password", "--password-stdin", stdin=f"{bob.password}\na new long password 7\n")
    bob.ok("whoami")
    arguments = ["login", "--server", server.url, "--email", bob.email, "--password-stdin"]
    assert bob.polly(*arguments, stdin=bob.password).code == 1
    assert bob.polly(*arguments, stdin="a new long password 7").code == 0
    assert bob.polly("password").code == 2


def test_a_broken_file_of_profiles_is_named(ann: User) -> None:
    """The message has the path, the line and what to do."""
    ann.profiles.write_text('{"current": "",\n oops')
    done = ann.polly("whoami")
    assert done.code == 1
    assert f"{ann.profiles} is not a file of profiles (line 2)" in done.err
    assert "polly login" in done.err


def test_a_folder_that_cannot_be_written_is_named(person: Callable[..., User], server: Server) -> None:
    """The command names the folder, and says how to work without one."""
    ann = person(signed_in=False)
    done = ann.polly(
        "login", "--server", server.url, "--email", ann.email, "--password-stdin",
        stdin=ann.password, XDG_CONFIG_HOME="/dev/null/x",
    )  # fmt: skip
    assert done.code == 1
    assert "/dev/null/x/polly/profiles.json can't be written" in done.err
    assert "POLLY_TOKEN" in done.err


def test_a_wrong_password_speaks_of_docker_to_docker_alone(person: Callable[..., User], server: Server) -> None:
    """`login` and `password` say that the password is wrong; only the token endpoint explains how to sign Docker in."""
    bob = person("reader")
    done = bob.polly("login", "--server", server.url, "--email", bob.email, "--password-stdin", stdin="wrong")
    assert (done.code, "Wrong email or password." in done.err, "Docker" in done.err) == (1, True, False)
    done = bob.polly("password", "--password-stdin", stdin="wrong\nanother long password\n")
    assert (done.code, done.err) == (1, "Error: The current password is wrong. Nothing was changed.\n")
    for user, secret, told in ((bob.email, "wrong", "polly dockers login"), ("POLLY", "polly_x", "dockers configure")):
        basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
        request = urllib.request.Request(f"{server.url}/token", headers={"authorization": f"Basic {basic}"})  # noqa: S310
        with pytest.raises(HTTPError) as refused:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
        assert told in refused.value.read().decode()


def test_a_wrong_password_is_asked_for_again(person: Callable[..., User], server: Server) -> None:
    """On a terminal, a person may correct a wrong password; server and email stay."""
    bob = person("reader")
    terminal = bob.terminal("login", "--server", server.url, "--email", bob.email)
    terminal.see("Enter your password")
    terminal.type("wrong\r")
    terminal.see("Enter your password again")
    terminal.type(bob.password + "\r")
    terminal.see("Logged in to Polly")
    assert terminal.end() == 0
