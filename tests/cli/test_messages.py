"""What the commands say, word for word, where no other test looks at the words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.server import polly_server

if TYPE_CHECKING:
    from cli.people import Server, User


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "login --auto --password-stdin",
            "--auto and --password-stdin can't be together: --auto reads the password from the environment.",
        ),
        ("dockers list --all --latest 3", "--all and --latest can't be together: choose one."),
        ("audit list --event push --all-events", "--event and --all-events can't be together: choose one."),
        ("dockers", "Which command? create, list, commit-list, tags, update, delete, restore, trash, policy, login, "),
        ("dockers list --latest 1 --latest 2", "--latest is given twice: give it once. See polly dockers list --help."),
        (
            "dockers create x --description x --public --private",
            "--public and --private can't be together: choose one. See polly dockers create --help.",
        ),
        (
            "dockers policy --newest 3 --keep-everything",
            "--keep-everything and --newest can't be together: give rules, or --keep-everything, or --inherit.",
        ),
        ("dockers delete", "--name is missing. --yes is missing. It confirms the command without a question.\n"),
        ("dockers delete --yes", "--name is missing.\n"),
        ("members accept --code x --code-stdin", "--code and --code-stdin both give the code: use one."),
    ],
)
def test_what_is_wrong_with_options(ann: User, line: str, said: str) -> None:
    """The error names those that exclude each other, or all that are missing, and has exit code 2."""
    done = ann.polly(*line.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"Error: {said}")


def test_a_token_of_the_environment_has_its_expiry(ann: User, server: Server) -> None:
    """A time that would have no effect is refused."""
    done = ann.polly("login", "--auto", "--expires", "1d", POLLY_SERVER=server.url, POLLY_TOKEN=ann.token())
    said = "Error: --expires has no effect with POLLY_TOKEN, whose expiry is already set. Leave it out.\n"
    assert (done.code, done.err) == (2, said)


def test_what_is_empty_says_so(ann: User, server: Server) -> None:
    """A docker repository without commits or tags names the push; an empty trash is not an empty table."""
    ann.ok("dockers", "create", "empty", "--description", "x")
    path = f"{server.registry}/{ann.env['TEST_ORG']}/empty"
    said = ann.ok("dockers", "commit-list", "empty").err
    assert said == f"{path} has no commit yet. To create one: docker push {path}:TAG\n"
    assert ann.ok("dockers", "tags", "empty").err.startswith(
        f"{path} has no tag. To create one: docker push {path}:TAG\n"
    )
    done = ann.ok("dockers", "trash")
    assert (done.out, done.err) == ("", f"The trash of {ann.env['TEST_ORG']} is empty.\n")
    terminal = ann.terminal("dockers", "restore")
    assert terminal.end() == 1
    assert terminal.lines() == [f"Error: The trash of {ann.env['TEST_ORG']} has nothing to restore."]


def test_what_a_command_needs(ann: User) -> None:
    """An update without a change, a name that is too long, and a label in place of an id say what is right."""
    done = ann.polly("dockers", "update", "empty")
    said = "Error: Nothing to change: give --description, --public, --private or --sparse-indexes.\n"
    assert (done.code, done.err) == (2, said)
    done = ann.polly("dockers", "create", "x" * 254, "--description", "x")
    assert (done.code, "--name is too long: HOST/organisation/name may have" in done.err) == (2, True)
    made = ann.ok("tokens", "create", "nightly", "--output", "json").json()["id"]
    done = ann.polly("tokens", "revoke", "nightly")
    assert (done.code, done.err) == (2, f"Error: --id takes an id, and 'nightly' is the label of: {made}.\n")


def test_an_empty_answer_is_asked_for_again(ann: User) -> None:
    """Enter alone answers no question for a text."""
    terminal = ann.terminal("dockers", "create", "one")
    terminal.see("Enter the description")
    terminal.type("\r")
    terminal.see("Please enter something, or press Ctrl-C to quit.")
    terminal.type("\x03")
    assert terminal.end() == 130


def test_the_operators_commands(server: Server) -> None:
    """A setting and a password are confirmed; a value that can't be used is refused with the right form."""
    slug, (email, password) = server.new_org()
    place = ("--data", str(server.data))
    on = polly_server("org", "update", slug, "--create-on-push", *place)
    assert on == f"Organisation {slug}: create-on-push is on.\n"
    reset = polly_server("user", "reset-password", email, "--password-stdin", *place, stdin=password)
    assert reset == f"{email} has a new password; all sign-ins of {email} have ended.\n"
