"""Every command line in the documents is one that the commands take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from polly_dockers.cli.tree import polly
from polly_dockers.server.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOTS = {"polly": typer.main.get_command(polly.app), "polly-server": typer.main.get_command(app)}
_CODE = re.compile(r"^```(\w*)\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"(?:^\$? *|[|;&(] *|ExecStart=|-- )(?:/\S*/)?(polly(?:-server)? [a-z-][^|;&)]*)", re.MULTILINE)
_END = re.compile(r"\s+(?:#|<<|<|>|\d>).*", re.DOTALL)


def lines(text: str) -> Iterator[str]:
    """The command lines of polly and polly-server in a document, without what is printed."""
    for language, block, inline in _CODE.findall(text):
        for line in (block or inline).replace("\\\n", " ").splitlines():
            if language != "console" or line.startswith("$ "):
                yield from (_END.sub("", found).strip() for found in _LINE.findall(line))


def wrong(line: str) -> str | None:
    """What is wrong with a command line; None where it names a command, and options that this has."""
    try:
        words = shlex.split(line.replace('"$(', "").replace("…", ""))
    except ValueError:
        words = line.split()
    command: Any = ROOTS[words[0]]
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        if rest[0].startswith("-"):
            if rest[0].partition("=")[0] not in options | {"--help"}:
                return f"no option {rest[0]}"
            return None if rest[0] == "--help" else wrong(shlex.join([words[0], *rest[1:]]))
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options]
    return f"no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(document: Path) -> None:
    """A reader who copies a line is not told that there is no such thing."""
    faults = [(line, fault) for line in lines(document.read_text(encoding="utf-8")) if (fault := wrong(line))]
    assert faults == []


def test_the_checker_finds_faults() -> None:
    """A command and an option that do not exist, in a block and inside a sentence."""
    text = "```sh\npolly-server check --date x\n```\nas `polly dockers lits` does, and `polly dockers list --all`\n"
    assert [fault for line in lines(text) if (fault := wrong(line))] == ["no option --date", "no command lits"]
