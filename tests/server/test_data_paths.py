"""No part of a data folder's path has a special meaning in any command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from support.server import Server, free_port, polly_server
from support.wire_client import Person, image

if TYPE_CHECKING:
    from pathlib import Path

NAME = "p%20q?mode=memory#späte 100%; $(touch x)"


def test_a_path_that_means_something_in_a_url_or_a_shell(tmp_path: Path) -> None:
    """Server, backup, restore, rebuild and check use that folder, and create no other."""
    place = tmp_path / "all" / NAME
    server = Server(place / "data", free_port())
    server.init()
    server.start()
    repo = Person(server.port, server.org, *server.admin).new_repo()
    made = image()
    repo.push(made, "v1")
    server.stop()
    polly_server("backup", "--data", str(server.data), "--to", str(place / "copy"))
    said = polly_server("restore", "--from", str(place / "copy"), "--data", str(place / "back"))
    start = said.partition("Start the server: ")[2].splitlines()[0]
    assert shlex.split(start) == ["polly-server", "run", "--data", str(place / "back")]
    server.data = place / "back"
    server.lose_database()
    polly_server("rebuild", "--data", str(server.data))
    polly_server("check", "--data", str(server.data))
    server.give_admin_back()
    server.start()
    assert Person(server.port, server.org, *server.admin).at(repo.name).manifest("v1").body == made.manifest
    server.stop()
    assert {path.name for path in place.parent.iterdir()} == {NAME}
    assert {path.name for path in tmp_path.iterdir()} <= {"all"}


def test_two_registries_whose_names_are_one_in_a_url(tmp_path: Path) -> None:
    """``p%20q`` does not open the database of ``p q``."""
    for name, org in (("p q", "spaces"), ("p%20q", "percents")):
        data = str(tmp_path / name / "data")
        given = ("--org", org, "--email", "ann@acme.example", "--password-stdin")
        polly_server("init", "--data", data, *given, stdin="a long enough password")
    for name, org, other in (("p q", "spaces", "percents"), ("p%20q", "percents", "spaces")):
        listed = polly_server("org", "list", "--data", str(tmp_path / name / "data"))
        assert (org in listed, other in listed) == (True, False)
