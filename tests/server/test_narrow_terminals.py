"""The tables of polly-server on terminals that are too narrow for them, as those of polly are."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from cli.people import Terminal, environment
from support.server import BIN, Server, free_port, new_password, polly_server, running_server
from support.wire_client import admin, image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "of-everything-that-a-laboratory-needs/for-the-training-of-large-models/with-cuda"
SOMEBODY = "benedikta.von-und-zu-hohenzollern@institute-of-physics.university.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a long name in each of its lists."""
    with running_server(tmp_path_factory.mktemp("narrow")) as running:
        ann = admin(running)
        for name in ("x", LONG):
            ann.repo(ann.create(name)).push(image(), "v1")
        data = ("--data", str(running.data))
        polly_server(
            "user",
            "add",
            SOMEBODY,
            "--org",
            "acme",
            "--role",
            "reader",
            "--password-stdin",
            *data,
            stdin=new_password(),
        )
        yield running


def seen(server: Server, *command: str, columns: int) -> list[str]:
    """The lines that a command prints on a terminal, before the terminal breaks any."""
    arguments = [str(BIN / "polly-server"), *command, "--data", str(server.data)]
    terminal = Terminal(arguments, columns, environment(server.data.parent, BIN) | {"NO_COLOR": "1"})
    assert terminal.end() == 0
    return terminal.raw.replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("columns", [60, 80])
def test_usage_has_its_figures_below_the_name(server: Server, columns: int) -> None:
    """Each figure is below its title, and only a name may be wider than the terminal."""
    title, titles, rule, *rows = seen(server, "usage", columns=columns)
    assert title == "repository"
    assert titles.split("  ")[1:] == ["commits", "tags need", "older commits", "trash", "no image"]
    assert len(rule) <= columns
    for name in ("acme/x", f"acme/{LONG}", "all of acme"):
        assert len(rows[rows.index(name) + 1]) == len(titles)


@pytest.mark.parametrize("columns", [60, 80])
def test_the_audit_log_is_a_table(server: Server, columns: int) -> None:
    """Event and subject are on lines below each other; an entry without details has no empty line."""
    lines = seen(server, "audit", "--event", "push", columns=columns)
    assert [line.split()[0] for line in lines[:3]] == ["at", "subject", "detail"]
    assert f"  acme/{LONG}:v1" in lines
    assert lines[-1].startswith("  sha256:")
    assert "" not in seen(server, "audit", columns=columns)


def test_dates_of_keys_become_short(server: Server) -> None:
    """Also one that has words before it; a row stays one line."""
    polly_server("key", "rotate", "--data", str(server.data))
    title, _, *rows = seen(server, "key", "list", columns=80)
    assert title.split("  ")[0] == "key"
    assert len(rows) == 2
    dated = r"  (signs from|verifies until) \d{4}-\d\d-\d\d \d\d:\d\d$"  # until the new key signs, and after that
    assert any(re.search(dated, row) for row in rows)


def test_a_message_is_wrapped_between_words(server: Server) -> None:
    """The command to copy has a line of its own, which is never broken."""
    assert seen(server, "org", "create", "biolab", columns=50) == [
        "Created the organisation biolab. Give it an admin:",
        f"polly-server user add --data {server.data} --org biolab --email … --role admin",
    ]


def test_users_are_a_table(server: Server) -> None:
    """A long email has a line of its own."""
    lines = seen(server, "user", "list", columns=60)
    assert lines[0] == "user"
    assert lines[lines.index(SOMEBODY) + 1] == "  acme reader  set"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("usage", "--org", "acme"), "There is no docker repository in acme yet.\n"),
        (("audit", "--event", "restore"), "The audit log has no such entry.\n"),
    ],
)
def test_an_empty_list_says_so(tmp_path: Path, command: tuple[str, ...], said: str) -> None:
    """It says so on stderr, and prints no heading."""
    empty = Server(tmp_path / "data", free_port())
    empty.init()
    done = subprocess.run(
        [BIN / "polly-server", *command, "--data", empty.data], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == said
    assert not done.stdout.startswith(("repository", "at "))
