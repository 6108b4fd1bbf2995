"""Tests of the operator's commands change a server's files, so each test has a server of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.server import data_folder
from support.server import polly_server
from support.wire_client import Image, Person, Repo, admin, image

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server


@pytest.fixture
def server(own_server: Server) -> Server:
    """The test's own server."""
    return own_server


@pytest.fixture
def ann(server: Server) -> Person:
    """The admin of its organisation."""
    return admin(server)


@pytest.fixture
def pushed() -> Image:
    """An image."""
    return image()


@pytest.fixture
def repo(server: Server, pushed: Image) -> Repo:
    """A repository that holds it."""
    there = admin(server).new_repo()
    there.push(pushed, "v1")
    return there


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder, of which ``b1`` is a backup."""
    folder = tmp_path / "data"
    data_folder.prepare(folder)
    polly_server("org", "create", "--data", str(folder), "--org", "first")
    polly_server("backup", "--data", str(folder), "--to", str(tmp_path / "b1"))
    return folder
