"""Every command has help with an example, and a section in docs/commands.md."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.people import POLLY, SECONDS, User
from polly_dockers.cli.tree import polly

DOCUMENT = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
COMMON = {"--profile", "--server", "--org", "--no-input", "--help", "-h"}


def commands(command: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - typer gives it no public name
    """Return the command and all below it, by their whole names."""
    below = getattr(command, "commands", {})
    found = {name: command}
    for each in below:
        found |= commands(below[each], f"{name} {each}")
    return found


ALL = commands(typer.main.get_command(polly.app), "polly")


def test_the_commands_are_those_that_people_know() -> None:
    """No command disappears, and none is added unnoticed."""
    assert set(ALL) == {"polly"} | {
        f"polly {each}"
        for each in (
            "login", "logout", "whoami", "password",
            "dockers", "dockers create", "dockers list", "dockers commit-list", "dockers tags", "dockers update",
            "dockers login",
            "dockers delete", "dockers restore", "dockers trash", "dockers policy",
            "dockers logout", "dockers configure",
            "members", "members list", "members add", "members invitations", "members accept",
            "members set-role", "members remove",
            "audit", "audit list", "org", "org list", "org use",
            "profiles", "profiles list", "profiles use", "profiles remove",
            "tokens", "tokens list", "tokens create", "tokens revoke",
        )
    }  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_help_has_usage_options_and_an_example(name: str, nobody: User) -> None:
    """On stdout, exit code 0; the example is a whole command, and no line of a list is cut."""
    done = nobody.polly(*name.split()[1:], "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: {name} [OPTIONS]")
    for each in ALL[name].params:
        if each.param_type_name == "argument":
            assert done.out.startswith(f"Usage: {name} [OPTIONS] [{each.metavar}]")
            assert f"\n  {each.metavar}  The same as --" in done.out
    _, _, examples = done.out.partition("\nExample")
    assert f"{name} " in examples or examples.strip().endswith(name) or name in examples
    assert "..." not in done.out.replace("[ARGS]...", "")
    assert all(len(line) <= 80 for line in done.out.partition("\nExample")[0].splitlines())


@pytest.mark.parametrize("name", [name for name in ALL if getattr(ALL[name], "commands", None)])
def test_a_narrow_terminal_cuts_no_sentence_of_the_help(name: str, nobody: User) -> None:
    """If there is no room, the description of a command continues on the next line."""
    nobody.env["COLUMNS"] = "50"
    done = nobody.polly(*name.split()[1:], "--help")
    said = " ".join(done.out.partition("\nCommands:")[2].split())
    for each in ALL[name].commands.values():
        assert each.get_short_help_str(1000) in said


@pytest.mark.parametrize("columns", [50, 80])
def test_the_help_breaks_no_option_at_a_hyphen(nobody: User, columns: int) -> None:
    """A line never ends in the middle of an option or a value, such as ``--code-stdin`` or ``sign-in-refused``."""
    nobody.env["COLUMNS"] = str(columns)
    broken = {}
    for name in ALL:
        lines = nobody.ok(*name.split()[1:], "--help").out.splitlines()
        broken[name] = [line for line in lines if re.search(r"\w-$", line)]
    assert not {name: lines for name, lines in broken.items() if lines}


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_a_line_of_help(name: str) -> None:
    """Each says what it does."""
    for option in ALL[name].params:
        assert option.help, option.name


@pytest.mark.parametrize("name", ALL)
def test_the_document_has_a_section_with_every_option(name: str) -> None:
    """docs/commands.md has every option of the help, and an example of the output."""
    _, heading, section = DOCUMENT.partition(f"\n## `{name}`\n")
    assert heading, f"docs/commands.md has no section for {name}"
    section = section.partition("\n## ")[0]
    assert f"$ {name}" in section or f"({name} " in section, "no example"
    for option in ALL[name].params:
        if option.param_type_name == "argument":
            assert f"`{name} {option.metavar}`" in section, f"the argument {option.metavar} is not named"
            continue
        for each in {*option.opts, *option.secondary_opts} - COMMON:
            assert f"`{each}" in section, each


def test_the_document_names_what_all_commands_share() -> None:
    """Common options, exit codes, environment and files."""
    for word in (*COMMON, "POLLY_SERVER", "POLLY_TOKEN", "POLLY_ORG", "POLLY_PROFILE", "POLLY_EMAIL", "POLLY_PASSWORD",
                 "POLLY_CA_FILE", "SSL_CERT_FILE", "POLLY_DOCKER", "POLLY_DEBUG", "NO_COLOR", "HTTPS_PROXY", "NO_PROXY",
                 "DOCKER_CONFIG", "profiles.json", "registry-tokens", "docker-credential-polly"):  # fmt: skip
        assert word in DOCUMENT, word


def test_the_version_is_shown() -> None:
    """``polly --version``."""
    done = subprocess.run([*POLLY, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.startswith("polly ")
