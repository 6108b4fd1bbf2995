"""People in several organisations: which organisation a command uses, and which docker repository a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.server import polly_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.people import Server, User


def add(server: Server, user: User, organisation: str, role: str = "admin") -> None:
    """Make the person a member of another organisation."""
    place = ("--data", str(server.data), "--org", organisation, "--email", user.email, "--role", role)
    polly_server("user", "add", *place, "--keep-password")


@pytest.fixture
def other(server: Server, ann: User) -> str:
    """Return a second organisation, which ann joined later."""
    slug, _ = server.new_org()
    add(server, ann, slug)
    return slug


def create(user: User, name: str, *more: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Create a docker repository, and return the server's answer."""
    return user.ok("dockers", "create", "--name", name, "--description", "x", "--output", "json", *more).json()


def test_a_second_organisation_changes_no_script(ann: User, server: Server) -> None:
    """With a profile and with POLLY_TOKEN, commands still use the organisation that was joined first."""
    before = create(ann, "one")["path"]
    for _ in range(3):  # whatever their names are sorted like
        add(server, ann, server.new_org()[0])
    env = {"POLLY_SERVER": server.url, "POLLY_TOKEN": ann.token()}
    for variables in ({}, env):
        [item] = ann.ok("dockers", "list", "--output", "json", **variables).json()
        assert item["path"] == before
    ann.login(server)
    assert ann.ok("dockers", "list", "--output", "json").json()[0]["path"] == before


def test_the_organisation_is_chosen_for_good(ann: User, server: Server, other: str) -> None:
    """The profile keeps the choice, also after the next sign-in; --org and POLLY_ORG win over it."""
    mine = ann.env["TEST_ORG"]
    header, *rows = ann.ok("org", "list").out.splitlines()
    assert header.split() == ["organisation", "role", "joined", "at", "default"]
    assert [row.split()[0] for row in rows] == [mine, other]
    assert [row.endswith("yes") for row in rows] == [True, False]
    ann.ok("org", "use", other)
    listed = ann.ok("org", "list", "--output", "json").json()
    assert [(each["organisation"], each["default"]) for each in listed] == [(mine, False), (other, True)]
    assert other in create(ann, "one")["path"]
    ann.login(server)
    assert other in create(ann, "two")["path"]
    assert mine in create(ann, "three", "--org", mine)["path"]
    assert mine in ann.ok("org", "use", "--org", other, POLLY_ORG=mine).err


def test_the_error_names_an_organisation_with_the_role(ann: User, server: Server) -> None:
    """The server's refusal and the commands' own check say so; whoami shows which organisation is used."""
    second, _ = server.new_org()
    add(server, ann, second, "reader")
    mine = ann.env["TEST_ORG"]
    assert f"The commands use the organisation {mine}" in ann.ok("whoami").err
    words = f"You are admin of {mine}: use --org {mine}, or make it the default: polly org use {mine}."
    done = ann.polly("members", "add", "x@a.example", "--role", "reader", "--org", second)
    assert (done.code, words in done.err) == (1, True)
    terminal = ann.terminal("members", "add", "--org", second, columns=200)
    assert terminal.end() == 1
    assert words in terminal.text()
    assert "Writers and admins can create one." in ann.ok("dockers", "list", "--org", second).err
    assert "--description TEXT" in ann.ok("dockers", "list").err


def test_wrong_choices_are_explained(ann: User, server: Server, other: str) -> None:
    """Refused are an organisation of others, a missing name on a pipe, and a choice without a profile."""
    done = ann.polly("org", "use", "acme")
    assert done.code == 1
    assert ann.env["TEST_ORG"] in done.err
    assert other in done.err
    assert (ann.polly("org", "use").code, ann.polly("org", "use").err) == (2, "Error: --org is missing.\n")
    done = ann.polly("org", "use", other, POLLY_SERVER=server.url, POLLY_TOKEN=ann.token())
    assert (done.code, "POLLY_ORG" in done.err) == (2, True)


def test_an_organisation_that_the_person_left(ann: User, server: Server, other: str) -> None:
    """The choice stays; after the person was removed, the message names polly org use."""
    ann.ok("org", "use", other)
    polly_server("user", "remove", "--data", str(server.data), "--org", other, "--email", ann.email, "--yes")
    done = ann.polly("dockers", "list")
    assert done.code == 1
    assert "polly org use NAME" in done.err
    ann.ok("org", "use", ann.env["TEST_ORG"])
    ann.ok("dockers", "list")


def test_the_organisation_may_come_before_the_name(ann: User) -> None:
    """It works in every command that takes a name, with --org and without, but not twice."""
    mine = ann.env["TEST_ORG"]
    for options in ([], ["--org", mine]):
        name = f"{mine}/hello{len(options)}"
        item = create(ann, name, *options)
        assert item["path"].endswith(f"/{name}")
        assert not item["path"].endswith(f"/{mine}/{name}")
        ann.ok("dockers", "commit-list", "--name", name, *options)
        ann.ok("dockers", "update", "--name", name, "--description", "y", *options)
        ann.ok("dockers", "policy", "--name", name, "--newest", "3", "--yes", *options)
        ann.ok("dockers", "policy", "--name", name, *options)
        assert "restore --name hello" in ann.ok("dockers", "delete", "--name", name, "--yes", *options).err
        ann.ok("dockers", "restore", "--name", name, "--as", f"{mine}/again{len(options)}", *options)
    names = {each["name"] for each in ann.ok("dockers", "list", "--output", "json").json()}
    assert names == {"again0", "again2"}


def test_another_organisation_may_come_before_the_name(ann: User, other: str) -> None:
    """Without --org, the part before the name is the organisation; with --org it is part of the name."""
    assert create(ann, f"{other}/hello")["path"].endswith(f"/{other}/hello")
    assert not ann.ok("dockers", "list", "--output", "json").json()
    ann.ok("dockers", "commit-list", f"{other}/hello")
    mine = ann.env["TEST_ORG"]
    assert create(ann, f"{other}/hello", "--org", mine)["path"].endswith(f"/{mine}/{other}/hello")


def test_a_name_that_was_there_goes_on_meaning_the_same(ann: User, server: Server) -> None:
    """Joining an organisation whose name is the first part of a repository's name changes no script."""
    slug, _ = server.new_org()
    path = create(ann, f"{slug}/hello")["path"]
    add(server, ann, slug)
    done = ann.ok("dockers", "update", f"{slug}/hello", "--description", "y", "--output", "json")
    assert done.json()["path"] == path


def test_the_whole_path_is_exact_and_is_what_is_printed(ann: User, server: Server) -> None:
    """A docker repository in demo that is called demo/hello is reached by its whole path."""
    mine = ann.env["TEST_ORG"]
    whole = f"{server.registry}/{mine}/{mine}/hello"
    assert create(ann, whole)["path"] == whole
    create(ann, "hello")
    assert ann.ok("dockers", "update", f"{mine}/hello", "--description", "y", "--output", "json").json()["name"] == (
        "hello"
    )
    done = ann.ok("dockers", "delete", "--name", whole, "--yes")
    assert f"polly dockers restore --name {whole}\n" in done.err
    ann.ok("dockers", "restore", "--name", whole)
    done = ann.polly("dockers", "list", "--org", "other")
    assert done.code == 1
    done = ann.polly("dockers", "commit-list", whole, "--org", "other")
    assert (done.code, "--org is other" in done.err) == (2, True)


def test_names_need_no_option(ann: User) -> None:
    """Every command takes a name without its option; the option still works, and two different values are refused."""
    ann.ok("dockers", "create", "hello", "--description", "x")
    for command in (["commit-list"], ["update", "--description", "y"], ["policy"], ["delete", "--yes"], ["restore"]):
        ann.ok("dockers", command[0], "hello", *command[1:])
    ann.ok("dockers", "commit-list", "hello", "--name", "hello")
    done = ann.polly("dockers", "commit-list", "hello", "--name", "other")
    assert (done.code, done.out) == (2, "")
    assert "'hello' and --name 'other' are different" in done.err
    assert ann.polly("dockers", "commit-list", "hello", "world").code == 2


def test_emails_servers_and_profiles_need_no_option(person: Callable[..., User], server: Server) -> None:
    """These need no option either."""
    ann, bob = person(), person("reader")
    ann.ok("members", "set-role", bob.email, "--role", "writer")
    ann.ok("logout", server.url)
    arguments = ["login", server.url, "--email", ann.email, "--password-stdin"]
    ann.ok(*arguments, stdin=ann.password)
    assert ann.polly(*arguments, "--server", "registry.example", stdin=ann.password).code == 2


def test_org_list_of_one(ann: User) -> None:
    """--org lists that one, and refuses one that is not the person's."""
    mine = ann.env["TEST_ORG"]
    listed = ann.ok("org", "list", "--org", mine, "--output", "json").json()
    assert [each["organisation"] for each in listed] == [mine]
    done = ann.polly("org", "list", "--org", "foo")
    assert (done.code, "You are not a member of 'foo'" in done.err) == (1, True)
