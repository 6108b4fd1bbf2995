"""polly-server looks and talks as polly does: names as arguments, help, JSON, exit codes, words."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pexpect
import pytest
from typer.main import get_command

from polly_dockers.server.cli.main import app
from support.server import BIN, Server, free_port, new_password, polly_server

if TYPE_CHECKING:
    from pathlib import Path


def commands(command: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - typer gives it no public name
    """Return the commands below this one, by their whole names; groups are left out."""
    below = getattr(command, "commands", None)
    if below is None:
        return {name: command}
    found: dict[str, Any] = {}
    for inner in below:
        found |= commands(below[inner], f"{name} {inner}")
    return found


ALL = commands(get_command(app), "polly-server")


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``polly-server`` to its end."""
    return subprocess.run(
        [BIN / "polly-server", *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data folder with the organisation acme and its admin."""
    server = Server(tmp_path_factory.mktemp("like") / "data", free_port())
    server.init()
    return str(server.data)


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_help_and_every_command_an_example(name: str) -> None:
    """The example is a whole command, and each option says what it does."""
    assert ALL[name].epilog.startswith(name)
    for option in ALL[name].params:
        assert option.help, option.name


@pytest.mark.parametrize("group", ["", "org", "user", "key"])
def test_a_list_of_commands_has_whole_sentences(group: str) -> None:
    """One short sentence says what each command does."""
    listed = run(*group.split(), "--help").stdout.partition("\nCommands:\n")[2].splitlines()
    assert listed
    for line in listed:
        assert line.startswith("  ")
        assert line.endswith("."), line
        assert not line.endswith("..."), line


@pytest.mark.parametrize("name", ALL)
def test_help_names_values_in_words(name: str) -> None:
    """Values are not named after types of a library, and a default has one pair of brackets."""
    help_ = run(*name.split()[1:], "--help").stdout
    assert not re.search(r"<\w+( \w+)*>", help_)
    assert "[default: (" not in help_
    assert "--no-demo" not in help_


def test_help_has_sections() -> None:
    """Help has usage, options and an example of one line; -h is --help."""
    done = run("org", "create", "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: polly-server org create [OPTIONS] [ORG]\n")
    assert "\nExample:\n  polly-server org create biolab --data data\n" in done.stdout


def test_a_name_needs_no_option(data: str) -> None:
    """It works for organisations and users; both forms may be given if they agree, and one is needed."""
    place = ("--data", data)
    polly_server("org", "create", "biolab", *place)
    polly_server("org", "update", "biolab", "--org", "biolab", "--create-on-push", *place)
    new = ("--org", "biolab", "--role", "admin", "--password-stdin")
    polly_server("user", "add", "bob@b.example", *new, *place, stdin=new_password())
    polly_server("user", "add", "eve@b.example", *new, *place, stdin=new_password())
    polly_server("user", "set-role", "bob@b.example", "--org", "biolab", "--role", "reader", *place)
    polly_server("user", "remove", "bob@b.example", "--org", "biolab", "--yes", *place)
    polly_server("user", "reset-password", "bob@b.example", "--password-stdin", *place, stdin=new_password())
    polly_server("org", "delete", "biolab", "--yes", *place)
    polly_server("org", "restore", "biolab", *place)
    differs = run("org", "delete", "acme", "--org", "biolab", "--yes", *place)
    assert (differs.returncode, differs.stdout) == (2, "")
    assert "'acme' and --org 'biolab' are different" in differs.stderr
    missing = run("org", "delete", "--yes", *place)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "--org is missing" in missing.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("org", "list"),
        ("user", "list"),
        ("key", "list"),
        ("usage",),
        ("audit",),
        ("gc", "--dry-run"),
        ("gc",),
        ("check",),
        ("backup", "--to"),
    ],
    ids=" ".join,
)
def test_json_for_programs(data: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Every command with output has --output json, and then nothing else is on stdout."""
    more = [str(tmp_path / "backup")] if command[-1] == "--to" else []
    assert json.loads(polly_server(*command, *more, "--data", data, "--output", "json"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("check", "--sample", "half"), "--sample takes a number."),
        (("check", "--sample", "101"), "--sample takes a number"),
        (("audit", "--latest", "all"), "--latest takes a whole number."),
        (("audit", "--latest", "0"), "--latest takes a number, 1 or more."),
        (("audit", "--event", "party"), "'party' is not one of"),
        (("org", "create", "Not A Name"), "lower-case"),
        (("user", "set-role", "bob@b.example", "--org", "acme", "--role", "king"), "reader, writer or admin"),
        (("org", "list", "--output", "xml"), "--output 'xml' is not one of table, json."),
        (("audit", "--since", "soon"), "--since 'soon' is not a time."),
        (("check", "--audit-head", "7"), "--audit-head must be POSITION:HASH, as polly-server check"),
        (("audit", "--by", ""), "--by is empty. Give a value, or leave the option out."),
        (("audit", "--name", "x"), "--name 'x' is in which organisation? Use --name ORG/x, or --org ORG --name x."),
        (("backup",), "--to is missing. See polly-server backup --help."),
        (
            ("user", "remove"),
            "--org is missing. --email is missing. --yes is missing. It confirms the command without a",
        ),
        (("org", "restore"), "--org is missing. See polly-server org restore --help."),
        (("init",), "Error: --org is missing. --email is missing. --password-stdin is missing. Give it, and the"),
        (("user", "add", "--keep-password"), "--org is missing. --email is missing. --role is missing. See"),
        (("user", "add", "bob@b.example", "--org", "acme"), "Error: --role is missing. --password-stdin is missing."),
        (("user", "set-role"), "Error: --org is missing. --email is missing. --role is missing. See polly-server"),
        (("org", "update"), "Error: --org is missing. --create-on-push is missing. See polly-server org update"),
        (("org", "creat"), "There is no command 'creat'. Did you mean 'create'? See polly-server org --help."),
        (("org", "list", "--outptu", "json"), "There is no option --outptu."),
        (("org", "list", "acme"), "There are too many arguments: acme."),
        (("user", "list", "acme"), "There are too many arguments: acme. Did you mean --org acme? See"),
        (("user", "list", "--org", "acme", "x"), "There are too many arguments: x. See"),
        (
            ("org", "update", "acme", "--create-on-push", "allow"),
            "There are too many arguments: allow. --create-on-push takes no value. See",
        ),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_wrong_value_is_code_2_in_plain_words(data: str, command: tuple[str, ...], said: str) -> None:
    """The message has no word of a library."""
    done = run(*command, "--data", data)
    assert (done.returncode, done.stdout) == (2, "")
    [last] = done.stderr.splitlines()
    assert last.startswith("Error: ")
    assert said in last
    assert "Input should" not in last
    assert "Value error" not in last


def test_ctrl_c_and_no_at_a_question_change_nothing(data: str) -> None:
    """Ctrl-C gives exit code 130, as with polly; no gives 1 and a message."""
    place = ["--data", data]
    asked = pexpect.spawn(str(BIN / "polly-server"), ["user", "reset-password", "ann@acme.example", *place], timeout=60)
    asked.expect("New password of .*: |There is no user")
    asked.sendintr()
    asked.expect(pexpect.EOF)
    asked.close()
    assert asked.exitstatus == 130
    asked = pexpect.spawn(str(BIN / "polly-server"), ["org", "delete", "acme", *place], timeout=60)
    asked.expect("Delete it")
    asked.sendline("n")
    asked.expect("Nothing was changed.")
    asked.expect(pexpect.EOF)
    asked.close()
    assert asked.exitstatus == 1


def test_completion_can_be_installed() -> None:
    """As with polly."""
    assert "--install-completion" in run("--help").stdout


@pytest.mark.parametrize("name", [name for name in ALL if any(each.metavar == "DIR" for each in ALL[name].params)])
def test_an_empty_folder_is_not_the_current_one(name: str) -> None:
    """If a script's variable is empty, the command ends with 2, and looks at no folder."""
    for option in ALL[name].params:
        if option.metavar in {"DIR", "FILE"}:
            done = run(*name.split()[1:], option.opts[0], "")
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr == f"Error: {option.opts[0]} is empty. See {name} --help.\n"
