"""The commands on a terminal: tables at 80 and at 200 columns, and questions answered with the arrow keys."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from cli.people import Server, Terminal, User, environment
from support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOWN, TAB, ENTER, INTERRUPT, CLEAR = "\x1b[B", "\t", "\r", "\x03", "\x15"


def test_list_at_80_columns_breaks_nothing(ann: User, images: list[str], server: Server) -> None:
    """The path has a line of its own, and below it are all important columns, with short dates."""
    del images
    terminal = ann.terminal("dockers", "list")
    assert terminal.end() == 0
    lines = terminal.lines()
    assert lines[0] == "docker repository"
    assert " ".join(lines[1].split() + lines[2].split()).replace("commits ", "") == (
        "created by created at docker access description tags size last push"
    )
    assert lines[4] == f"{server.registry}/{ann.env['TEST_ORG']}/team/gpu"
    assert re.fullmatch(rf"  {ann.email}  \d{{4}}-\d\d-\d\d \d\d:\d\d  private", lines[5])
    assert re.fullmatch(r"  for the GPU machines +2.* [kM]?B  \d{4}-\d\d-\d\d \d\d:\d\d", lines[6])
    assert lines[7] == "1 of 1 docker repository."


def test_list_at_200_columns_has_every_column(ann: User, images: list[str]) -> None:
    """If there is room, nothing is left out."""
    del images
    terminal = ann.terminal("dockers", "list", columns=200)
    assert terminal.end() == 0
    header, _, row, _ = terminal.lines()
    assert [title for title in header.split("  ") if title] == [
        "docker repository", "created by", "created at", "docker access", "description", "tags", "commits", " size",
        "last push",
    ] or header.split()[-2:] == ["last", "push"]  # fmt: skip
    assert "for the GPU machines" in row


@pytest.mark.parametrize("columns", [80, 200])
def test_commit_list_never_cuts_a_digest(ann: User, images: list[str], columns: int) -> None:
    """All 71 characters are on one line; active is green, inactive is yellow."""
    terminal = ann.terminal("dockers", "commit-list", "--name", "team/gpu", columns=columns)
    assert terminal.end() == 0
    for digest in images:
        assert any(digest in line for line in terminal.lines())
    assert "\x1b[32mactive\x1b[0m" in terminal.raw
    assert "\x1b[33minactive\x1b[0m" in terminal.raw
    assert terminal.lines()[0].startswith("Commits for the docker repository ")
    assert terminal.lines()[-4] == "To pull the docker for:"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_refused(ann: User, images: list[str], variable: str, value: str) -> None:
    """NO_COLOR and TERM=dumb leave no escape sequence."""
    del images
    terminal = ann.terminal("dockers", "commit-list", "--name", "team/gpu", env={variable: value})
    assert terminal.end() == 0
    assert "\x1b" not in terminal.raw


@pytest.mark.parametrize("columns", [80, 200])
def test_polly_alone_asks_its_way_to_a_new_repository(ann: User, server: Server, columns: int) -> None:
    """There are two menus with arrow keys and three questions; at the end the command is shown in one line."""
    terminal = ann.terminal(columns=columns)
    terminal.see("What would you like to do?")
    terminal.type(DOWN * 4 + ENTER)
    terminal.see("What would you like to do with Polly dockers?")
    terminal.type(ENTER)
    terminal.see(f"Enter the name of the docker repository {server.registry}/{ann.env['TEST_ORG']}/")
    terminal.type("new_repo" + ENTER)
    terminal.see("Enter the description of the docker repository")
    terminal.type("it's new" + ENTER)
    terminal.see("Should the docker repository be public?")
    terminal.type("n")
    assert terminal.end() == 0
    assert "Success: docker repository generation" in terminal.text()
    line = """polly dockers create --name new_repo --description 'it'"'"'s new' --private"""
    assert f"Thesameinoneline:{line.replace(' ', '')}" in terminal.words()
    [item] = ann.ok("dockers", "list", "--output", "json").json()
    assert (item["name"], item["description"], item["access"]) == ("new_repo", "it's new", "private")


def test_a_wrong_name_is_refused_while_typing(ann: User) -> None:
    """The question stays until the answer is a valid name; Ctrl-C ends with 130 and prints nothing."""
    terminal = ann.terminal("dockers", "create")
    terminal.see("Enter the name")
    terminal.type("My Repo" + ENTER)
    terminal.see("Try my-repo")
    terminal.type(INTERRUPT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.raw
    assert ann.ok("dockers", "list", "--output", "json").json() == []


def test_names_that_exist_are_offered(ann: User, images: list[str]) -> None:
    """A few letters are enough to choose an existing name."""
    terminal = ann.terminal("dockers", "commit-list")
    terminal.see("Enter the name of the docker repository")
    terminal.type("gp")
    terminal.see("team/gpu")
    terminal.type(TAB + ENTER)
    assert terminal.end() == 0
    assert images[1] in terminal.text()
    assert "polly dockers commit-list --name team/gpu" in terminal.text()


@pytest.mark.parametrize("command", ["commit-list", "tags", "update", "delete"])
def test_a_few_names_are_listed_at_once(ann: User, images: list[str], command: str) -> None:
    """The existing names are on the screen before a key is pressed, and the arrow keys choose one."""
    del images
    terminal = ann.terminal("dockers", command)
    terminal.see("  team/gpu")
    terminal.type(DOWN)
    terminal.see(f"/{ann.env['TEST_ORG']}/ team/gpu")
    terminal.type(INTERRUPT)
    assert terminal.end() == 130


def test_how_many_is_asked(ann: User, images: list[str]) -> None:
    """The questions are all, latest or oldest, and then a number."""
    del images
    terminal = ann.terminal("dockers")
    terminal.see("with Polly dockers?")
    terminal.type(DOWN + ENTER)
    terminal.see("How many docker repositories do you want to list?")
    terminal.type(DOWN * 2 + ENTER)
    terminal.see("How many? 10")
    terminal.type("\x7f\x7f1" + ENTER)
    assert terminal.end() == 0
    assert "polly dockers list --oldest 1" in terminal.text()


def test_a_message_is_wrapped_between_words(ann: User) -> None:
    """At 50 columns, no word is broken, and the command to copy has a line of its own."""
    terminal = ann.terminal("dockers", "list", columns=50)
    assert terminal.end() == 0
    assert terminal.raw.splitlines() == [
        f"{ann.env['TEST_ORG']} has no docker repository yet. To",
        "create one:",
        "polly dockers create --name NAME --description TEXT",
    ]
    done = ann.terminal("dockers", "list", "--latest", "none", columns=50)
    assert done.end() == 2
    assert done.lines() == ["Error: --latest takes a whole number. See", "polly dockers list --help."]
    question = ann.terminal("dockers", "create", columns=50)
    question.see("repository\n")
    assert question.lines()[0] == "? Enter the name of the docker repository"
    assert question.lines()[1].endswith(f"/{ann.env['TEST_ORG']}/")
    question.type(INTERRUPT)
    assert question.end() == 130


def test_update_offers_the_other_access(ann: User) -> None:
    """It shows the current access and offers the other; answering no changes nothing."""
    ann.ok("dockers", "create", "--name", "one", "--description", "as it is")
    terminal = ann.terminal("dockers", "update", "--name", "one")
    terminal.see("one is private. Make it public?")
    terminal.type("n")
    terminal.see("Enter the description")
    terminal.type(ENTER)
    assert terminal.end() == 0
    assert "Nothing was changed." in terminal.text()
    terminal = ann.terminal("dockers", "update", "--name", "one")
    terminal.see("Make it public?")
    terminal.type("n")
    terminal.see("as it is")
    terminal.type(" now" + ENTER)
    assert terminal.end() == 0
    assert "Success: Docker information updated" in terminal.text()
    assert ann.ok("dockers", "list", "--output", "json").json()[0]["description"] == "as it is now"


def test_login_asks_for_what_is_missing(person: Callable[..., User], server: Server) -> None:
    """It asks for server, email and password; the password is not on the screen."""
    ann = person(signed_in=False)
    terminal = ann.terminal("login")
    terminal.see("Enter the address of the server")
    terminal.type("no server" + ENTER)
    terminal.see("is not the address")
    terminal.type("\x15" + server.url + ENTER)
    terminal.see("Enter your email")
    terminal.type(ann.email + ENTER)
    terminal.see("Enter your password")
    terminal.type(ann.password + ENTER)
    assert terminal.end() == 0
    assert f"Success: Logged in to Polly as {ann.email}" in terminal.text()
    assert ann.password not in terminal.raw


def test_a_new_password_is_typed_twice(person: Callable[..., User]) -> None:
    """One that is not allowed is refused before it is asked for again. If the two differ, nothing changes."""
    bob = person("writer")
    terminal = bob.terminal("password")
    for question, answer in (
        ("current password", bob.password),
        ("the new password", "short"),
        ("A password must have 8 to 1024 characters; this one has 5.", CLEAR + bob.password),
        ("The new password is the same as the current one.", CLEAR + "one long password"),
        ("the new password again", "another long password"),
    ):
        terminal.see(question)
        terminal.type(answer + ENTER)
    assert terminal.end() == 2
    assert "are different. Nothing was changed" in terminal.text()
    bob.ok("whoami")


@pytest.mark.parametrize("columns", [24, 50])
def test_a_hint_at_a_question_is_whole(person: Callable[..., User], columns: int) -> None:
    """What is wrong with an answer is shown on as many lines as it needs, broken between words."""
    bob = person("writer")
    terminal = bob.terminal("password", columns=columns)
    terminal.see("password")
    terminal.type(bob.password + ENTER)
    terminal.see("new")
    terminal.type("short" + ENTER)
    terminal.see("has 5.")
    said = " ".join(terminal.text().split())
    assert "A password must have 8 to 1024 characters; this one has 5." in said
    assert all(len(line) <= columns for line in terminal.lines())
    terminal.type(INTERRUPT)
    assert terminal.end() == 130


def test_members_are_asked_for(person: Callable[..., User]) -> None:
    """There is a menu, a choice of existing emails, and a role chosen with arrow keys."""
    ann, bob = person(), person("reader")
    terminal = ann.terminal("members")
    terminal.see("with the members?")
    terminal.type(DOWN * 4 + ENTER)
    terminal.see("What is the email of the member?")
    for email in (ann.email, bob.email):
        terminal.see(f" {email}")
    terminal.type(bob.email + ENTER)
    terminal.see("Which role?")
    terminal.type(DOWN + ENTER)
    assert terminal.end() == 0
    assert f"pollymembersset-role--email{bob.email}--rolewriter" in terminal.words()


def test_the_role_that_a_member_has_is_where_the_question_begins(person: Callable[..., User]) -> None:
    """The current role is shown, and Enter keeps it."""
    ann, bob = person(), person("writer")
    terminal = ann.terminal("members", "set-role", bob.email)
    terminal.see("is writer. Which role?")
    terminal.type(ENTER)
    assert terminal.end() == 0
    assert f"{bob.email} is writer of" in terminal.text()


def test_a_pasted_image_at_the_question_for_a_name(ann: User) -> None:
    """The error suggests the name without its tag, as with --name."""
    path = f"{ann.ok('whoami', '--output', 'json').json()['registry']}/{ann.env['TEST_ORG']}/gpu2"
    terminal = ann.terminal("dockers", "create", columns=160)
    terminal.see("Enter the name")
    terminal.type(f"{path}:v1")
    terminal.see(f"Try {path}")
    terminal.type(INTERRUPT)
    assert terminal.end() == 130


def test_the_organisation_is_named_where_there_are_several(ann: User, server: Server) -> None:
    """Nothing is asked, so a script on a terminal keeps running; polly org use chooses."""
    other, (email, password) = server.new_org()
    admin = User(ann.home, email, password, ann.env | {"XDG_CONFIG_HOME": str(ann.home / "other")})
    admin.login(server)
    made = admin.ok("members", "add", "--email", ann.email, "--role", "reader", "--output", "json").json()
    terminal = ann.terminal("members", "accept")
    terminal.see("Enter the code of the invitation")
    terminal.type(made["code"] + ENTER)
    assert terminal.end() == 0
    assert f"{ann.email} is reader of {other}" in terminal.text()
    terminal = ann.terminal("dockers", "list")
    assert terminal.end() == 0
    assert f"Organisation: {ann.env['TEST_ORG']}, which you joined first." in terminal.text()
    assert "polly org use NAME" in terminal.text()
    assert "has no docker repository yet" in terminal.text()
    terminal = ann.terminal("org")
    terminal.see("with your organisations?")
    terminal.type(DOWN + ENTER)
    terminal.see("Which organisation?")
    terminal.type(DOWN + ENTER)
    assert terminal.end() == 0
    assert f"polly org use --org {other}" in terminal.text()
    terminal = ann.terminal("dockers", "list")
    assert terminal.end() == 0
    assert terminal.text().startswith(f"{other} has no docker repository yet")


def test_a_new_person_is_asked_for_everything(ann: User, nobody: User, server: Server) -> None:
    """It asks for server, email, code, and a password twice; then they are signed in; the command has no secret."""
    email, password = "gil@members.example", "a long password of gil"
    made = ann.ok("members", "add", "--email", email, "--role", "reader", "--output", "json").json()
    terminal = nobody.terminal("members", "accept", columns=120)
    for question, answer in (
        ("Enter the address of the server", server.url),
        ("Enter the email address that was invited", email),
        ("Enter the code of the invitation", made["code"]),
        ("Enter your password on this server, or a new one", "short"),
        ("A password must have 8 to 1024 characters; this one has 5.", CLEAR + password),
        ("Enter the password again", password),
    ):
        terminal.see(question)
        terminal.type(answer + ENTER)
    assert terminal.end() == 0
    text = terminal.text()
    assert f"Logged in to Polly as {email}" in text
    assert f"The same in one line: polly members accept --server {server.url} --email {email}" in text
    assert password not in text
    nobody.ok("dockers", "list", "--all")


def test_no_input_asks_nothing_on_a_terminal(ann: User) -> None:
    """Exit code 2, wherever the option is on the command line."""
    for arguments in (
        ["--no-input"],
        ["dockers", "--no-input"],
        ["dockers", "create", "--no-input"],
        ["--no-input", "dockers", "create"],
    ):
        terminal = ann.terminal(*arguments)
        assert terminal.end() == 2
        assert "Error: " in terminal.text()
        assert "?" not in terminal.raw.replace("Which command?", "")


def test_groups_alone_on_a_pipe_say_what_there_is(ann: User) -> None:
    """On a pipe, a group without a command gives exit code 2 and the names of its commands."""
    done = ann.polly("dockers")
    assert done.code == 2
    assert (
        "create, list, commit-list, tags, update, delete, restore, trash, policy, login, logout, configure" in done.err
    )
    assert ann.polly().code == 2


def test_stdout_may_be_a_pipe_while_questions_are_asked(ann: User) -> None:
    """Questions go to stderr, and only the table goes into the pipe."""
    script = "polly dockers create --description x > out"
    terminal = Terminal(["sh", "-c", f"cd {ann.home}; {script}"], 80, ann.env | {"TERM": "xterm-256color"})
    terminal.see("Enter the name")
    terminal.type("piped" + ENTER)
    terminal.see("be public?")
    terminal.type("n")
    assert terminal.end() == 0
    assert (ann.home / "out").read_text().startswith("docker name")


def test_nothing_is_asked_for_that_the_server_refuses(person: Callable[..., User]) -> None:
    """A writer is not asked about --public, a reader not for a new name, and neither about members."""
    writer, reader = person("writer"), person("reader")
    terminal = writer.terminal("dockers", "create", "by-a-writer")
    terminal.see("Enter the description")
    terminal.type("x" + ENTER)
    assert terminal.end() == 0
    assert "public?" not in terminal.raw
    terminal = writer.terminal("dockers", "update", "by-a-writer")
    terminal.see("Enter the description")
    terminal.type(" y" + ENTER)
    assert terminal.end() == 0
    assert "Make it public?" not in terminal.raw
    for user, command in ((reader, "dockers create"), (reader, "dockers update"), (writer, "members remove")):
        terminal = user.terminal(*command.split(), columns=200)
        assert terminal.end() == 1
        assert "You need the role" in terminal.text()
        assert "Enter the" not in terminal.raw


def test_public_is_not_asked_for_where_the_server_denies_it(tmp_path: Path, tools: Path) -> None:
    """The server refuses public repositories, so even an admin is not asked."""
    with running_server(tmp_path) as server:
        home = tmp_path / "home"
        home.mkdir()
        ann = User(home, *server.admin, environment(home, tools))
        ann.login(server)
        terminal = ann.terminal("dockers", "create", "private")
        terminal.see("Enter the description")
        terminal.type("x" + ENTER)
        assert terminal.end() == 0
        assert "public?" not in terminal.raw


def test_a_long_wait_is_announced(nobody: User) -> None:
    """After five seconds; Ctrl-C ends it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        env = {"POLLY_SERVER": address, "POLLY_TOKEN": "polly_x"}
        terminal = nobody.terminal("whoami", env=env)
        terminal.see(f"Still waiting for http://{address}")
        terminal.type(INTERRUPT)
        assert terminal.end() == 130


def test_login_shows_the_server_and_takes_another(ann: User, server: Server) -> None:
    """A signed-in person sees the current server and email as suggestions; typing replaces them."""
    terminal = ann.terminal("login", columns=120)
    terminal.see(f"Enter the address of the server {server.url}")
    terminal.type(server.url.replace("127.0.0.1", "localhost") + ENTER)
    terminal.see("Sign in to http://localhost")
    terminal.see(f"Enter your email {ann.email}")
    terminal.type(ENTER)
    terminal.see("Enter your password")
    terminal.type(ann.password + ENTER)
    assert terminal.end() == 0
    assert f"--server {server.url.replace('127.0.0.1', 'localhost')} --email {ann.email}" in terminal.text()
    terminal = ann.terminal("login", server.url, columns=120)
    terminal.see(f"Sign in to {server.url}")
    terminal.see("Enter your email")
    terminal.type("else@acme.example")
    terminal.see("Enter your email else@acme.example")
    terminal.type(INTERRUPT)
    assert terminal.end() == 130


def test_an_unknown_name_is_refused_before_the_next_question(ann: User, images: list[str]) -> None:
    """The question stays, and the answer can be corrected."""
    terminal = ann.terminal("dockers", columns=120)
    terminal.see("with Polly dockers?")
    terminal.type(DOWN * 2 + ENTER)
    terminal.see("Enter the name")
    terminal.type("team/gpy" + ENTER)
    terminal.see("There is no docker repository team/gpy in")
    terminal.type("\x7fu" + ENTER)
    terminal.see("How many commits do you want to list?")
    terminal.type(ENTER)
    assert terminal.end() == 0
    assert images[0] in terminal.text()


def test_delete_asks_what_and_restore_offers_it(ann: User, images: list[str]) -> None:
    """The smallest comes first: a tag, then a commit, and last the docker repository."""
    terminal = ann.terminal("dockers", "delete", columns=160)
    terminal.see("Enter the name")
    terminal.type("team/gpu" + ENTER)
    terminal.see("What do you want to delete?")
    terminal.see("the whole docker repository")
    terminal.type(ENTER)
    terminal.see("Which tag?")
    terminal.type(ENTER)
    terminal.see("Delete it?")
    terminal.type("y")
    assert terminal.end() == 0
    assert "polly dockers delete --name team/gpu --tag latest --yes" in terminal.text()
    terminal = ann.terminal("dockers", "delete", columns=160)
    terminal.see("Enter the name")
    terminal.type("team/gpu" + ENTER)
    terminal.see("What do you want to delete?")
    terminal.type(DOWN + ENTER)
    terminal.see("Which commit?")
    terminal.type(ENTER)
    terminal.see("Delete it?")
    terminal.type("y")
    assert terminal.end() == 0
    assert f"--commit {images[2]}" in terminal.text()
    terminal = ann.terminal("dockers", "restore", columns=160)
    terminal.see("What do you want to restore?")
    terminal.see(f"team/gpu@{images[2]}")
    terminal.type(DOWN + ENTER)
    assert terminal.end() == 0
    assert "polly dockers restore --name team/gpu --tag latest" in terminal.text()
