"""``polly members list, add, set-role`` and ``remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.people import Server, User


def test_a_member_is_added_and_can_sign_in(ann: User, nobody: User, server: Server) -> None:
    """The first password is made up and shown once."""
    done = ann.ok("members", "add", "--email", "bob@members.example", "--role", "writer")
    assert done.err.startswith(f"Success: bob@members.example is a member of {ann.env['TEST_ORG']}\n")
    header, row = done.out.splitlines()
    assert "first password" in header
    nobody.email, nobody.password = "bob@members.example", row.split()[-1]
    nobody.login(server)
    assert nobody.ok("whoami", "--output", "json").json()["organisations"][0]["role"] == "writer"


def test_a_first_password_may_be_given(ann: User, nobody: User, server: Server) -> None:
    """It is read from stdin and not shown."""
    done = ann.ok(
        "members", "add", "--email", "carl@members.example", "--role", "reader", "--password-stdin", "--output", "json",
        stdin="a long password of carl\n",
    )  # fmt: skip
    assert "password" not in done.json()
    nobody.email, nobody.password = "carl@members.example", "a long password of carl"
    nobody.login(server)
    done = ann.polly("members", "add", "--email", "d@members.example", "--role", "reader", "--password-stdin")
    assert (done.code, "stdin is empty" in done.err) == (2, True)


def test_members_are_listed_changed_and_removed(person: Callable[..., User]) -> None:
    """The role counts from the next request on, and so does the removal."""
    ann, bob = person(), person("reader")
    assert bob.polly("dockers", "create", "--name", "one", "--description", "x").code == 1
    ann.ok("members", "set-role", "--email", bob.email, "--role", "writer")
    bob.ok("dockers", "create", "--name", "one", "--description", "x")
    members = ann.ok("members", "list", "--output", "json").json()
    assert {(each["email"], each["role"]) for each in members} == {(ann.email, "admin"), (bob.email, "writer")}
    assert [line.split()[:2] for line in ann.ok("members", "list").out.splitlines()[1:]] == [
        [each["email"], each["role"]] for each in members
    ]
    ann.ok("members", "remove", "--email", bob.email)
    done = bob.polly("dockers", "list")
    assert (done.code, "not a member of an organisation" in done.err) == (1, True)


def test_refusals_reach_the_person(person: Callable[..., User]) -> None:
    """The last admin stays, a reader may not, an unknown member is not there: exit code 1 and a sentence."""
    ann, bob = person(), person("reader")
    for user, arguments in (
        (ann, ["remove", "--email", ann.email]),
        (ann, ["set-role", "--email", ann.email, "--role", "reader"]),
        (ann, ["remove", "--email", "none@members.example"]),
        (ann, ["add", "--email", bob.email, "--role", "reader"]),
        (ann, ["add", "--email", "no-address", "--role", "reader"]),
        (bob, ["add", "--email", "x@members.example", "--role", "reader"]),
    ):
        done = user.polly("members", *arguments)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("Error: ")


def test_what_is_missing_is_named(ann: User) -> None:
    """On a pipe nothing is asked."""
    for arguments, missing in (
        (["add", "--role", "reader"], "--email"),
        (["add", "--email", "x@members.example"], "--role"),
        (["remove"], "--email"),
    ):
        done = ann.polly("members", *arguments)
        assert (done.code, done.err) == (2, f"Error: {missing} is missing.\n")
