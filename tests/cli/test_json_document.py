"""docs/json.md has every field that the commands print with --output json, of the type that it says."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from polly_dockers.cli.tree import polly
from polly_dockers.server.cli.main import app
from support.server import polly_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.people import Server, User

DOCUMENT = (Path(__file__).parents[2] / "docs/json.md").read_text(encoding="utf-8")
PREVIEW = "polly dockers policy --preview"
"""A command with an option that changes what it prints."""


@dataclass(frozen=True)
class Section:
    """What the document says of one or more commands."""

    fields: dict[str, str]
    """Types by the paths of fields, ``preview.items[].path``."""
    example: Any


def sections() -> dict[str, Section]:
    """The sections of the document, by their commands."""
    found: dict[str, Section] = {}
    for part in DOCUMENT.split("\n## ")[1:]:
        fields = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", part, re.MULTILINE))
        example = re.search(r"```json\n(.*?)```", part, re.DOTALL)
        assert example, part
        section = Section(fields, json.loads(example[1]))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", part.partition("\n")[0]), section)
    return found


SECTIONS = sections()


def leaves(command: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - typer gives it no public name
    """The commands below this one that print JSON, by their whole names."""
    for each, below in getattr(command, "commands", {}).items():
        yield from leaves(below, f"{name} {each}")
    if any("--output" in option.opts for option in command.params):
        yield name


def values(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON
    """The fields of a document with their paths; for a list of objects, those of each object."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from values(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and (not path or any(isinstance(item, dict) for item in value)):
        for item in value:
            yield from values(item, f"{path}[]" if path else "")
    else:
        yield path, value


def fits(value: Any, kind: str) -> bool:  # noqa: ANN401 - any JSON
    """Whether a value is of the type that the document says."""
    kind = kind.removesuffix(", may be missing")
    if kind.endswith(" or null"):
        return value is None or fits(value, kind.removesuffix(" or null"))
    if kind == "time":
        return isinstance(value, str) and value.endswith("Z") and dt.datetime.fromisoformat(value).tzinfo is not None
    if kind == "list of strings":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return {"string": str, "integer": int, "boolean": bool}[kind] is type(value)


def check(section: Section, printed: Any) -> None:  # noqa: ANN401 - any JSON
    """Every field is in the table with its type, and every field of the table is there, unless its list is empty."""
    found = list(values(printed))
    assert found
    for path, value in found:
        if value == [] and any(name.startswith(f"{path}[].") for name in section.fields):
            continue
        assert path in section.fields, path
        assert fits(value, section.fields[path]), (path, value)
    seen = {path for path, _ in found}
    empty = tuple(f"{path}[]." for path, value in found if value == [])
    missing = {
        path for path, kind in section.fields.items() if path not in seen and not kind.endswith("may be missing")
    }
    assert {path for path in missing if not (empty and path.startswith(empty))} == set()


def test_every_command_that_prints_json_has_a_section() -> None:
    """A command has a section if and only if it prints JSON."""
    every = {*leaves(typer.main.get_command(polly.app), "polly"), *leaves(typer.main.get_command(app), "polly-server")}
    assert set(SECTIONS) == every | {PREVIEW, "polly-server org list --deleted"}


@pytest.mark.parametrize("command", SECTIONS)
def test_the_example_has_the_fields(command: str) -> None:
    """Each example has the fields and types of its table."""
    check(SECTIONS[command], SECTIONS[command].example)


def test_the_document_names_lists_that_are_cut() -> None:
    """The document names each command whose options say how much is printed, and no other."""
    [said] = re.findall(r"^- (`polly dockers list`.*?)\n(?:- |\n)", DOCUMENT, re.MULTILINE | re.DOTALL)
    every = {*leaves(typer.main.get_command(polly.app), "polly"), *leaves(typer.main.get_command(app), "polly-server")}
    assert {each for each in every if f"`{each}`" in said} == {
        *limited(typer.main.get_command(polly.app), "polly"),
        *limited(typer.main.get_command(app), "polly-server"),
    }


def limited(command: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - typer gives it no public name
    """The commands below this one that have --output and also --all or --latest, by their whole names."""
    for each, below in getattr(command, "commands", {}).items():
        yield from limited(below, f"{name} {each}")
    options = {word for option in command.params for word in option.opts}
    if "--output" in options and options & {"--all", "--latest"}:
        yield name


def test_what_the_commands_print(ann: User, images: list[str], person: Callable[..., User], server: Server) -> None:
    """The real output of every command matches its section."""
    bob = person("writer", signed_in=False)
    name = ["--name", "team/gpu"]
    ann.ok("dockers", "policy", *name, "--newest", "1", "--yes")
    lines = {
        "polly whoami": [],
        "polly dockers create": ["--name", "one", "--description", "x"],
        "polly dockers list": [],
        "polly dockers update": [*name, "--description", "y"],
        "polly dockers commit-list": name,
        "polly dockers tags": name,
        "polly dockers delete": [*name, "--commit", images[0], "--yes"],
        "polly dockers trash": [],
        "polly dockers restore": [*name, "--commit", images[0]],
        "polly dockers policy": [],
        PREVIEW: ["--as-of", "+40d"],
        "polly members add": ["--email", f"new-{bob.email}", "--role", "reader"],
        "polly members invitations": [],
        "polly members list": [],
        "polly members set-role": ["--email", bob.email, "--role", "reader"],
        "polly org list": [],
        "polly profiles list": [],
        "polly tokens create": ["--label", "x"],
        "polly tokens list": [],
        "polly audit list": ["--all"],
    }
    for line, options in lines.items():
        printed = ann.ok(*line.split()[1:], *options, "--output", "json").json()
        check(SECTIONS[line], printed)
    assert {*lines, *OF_THE_OPERATOR} == set(SECTIONS), "a command is not run"
    variables = {"POLLY_SERVER": server.url, "POLLY_TOKEN": ann.token()}
    check(SECTIONS["polly whoami"], ann.ok("whoami", "--output", "json", **variables).json())


OF_THE_OPERATOR = {
    "polly-server org list": (),
    "polly-server org list --deleted": (),
    "polly-server user list": (),
    "polly-server key list": (),
    "polly-server audit": (),
    "polly-server usage": (),
    "polly-server check": ("--sample", "0"),
    "polly-server gc": ("--dry-run",),
    "polly-server backup": ("--to",),
}


def test_what_the_operators_commands_print(server: Server, images: list[str], tmp_path: Path) -> None:
    """The same for polly-server, while the server runs."""
    assert images
    polly_server("org", "delete", "--data", str(server.data), "--org", server.new_org()[0], "--yes")
    for line, options in OF_THE_OPERATOR.items():
        more = [str(tmp_path / "backup")] if options[-1:] == ("--to",) else []
        words = line.split()[1:]
        check(
            SECTIONS[line],
            json.loads(polly_server(*words, "--data", str(server.data), *options, *more, "--output", "json")),
        )
