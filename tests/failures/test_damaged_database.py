"""A database that is damaged in the middle: commands recognise it, and what they say brings everything back."""

from __future__ import annotations

import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from polly_dockers.auth import members
from polly_dockers.server import data_folder
from support.registry_rows import held
from support.server import BIN

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose database has many pages."""
    folder = tmp_path_factory.mktemp("whole") / "data"

    def add(connection: Connection) -> None:
        for number in range(500):
            members.create_organisation(connection, f"org{number:05}")

    data_folder.prepare(folder)
    data_folder.transaction(folder, add)
    return folder


def damage(folder: Path, part: float) -> None:
    """Overwrite 4 KB of the database with random bytes, or its header with zeros."""
    file = folder / "polly.db"
    data = bytearray(file.read_bytes())
    at = int(len(data) * part)
    data[at : at + PAGE] = random.Random(0).randbytes(PAGE) if at else bytes(PAGE)  # noqa: S311 - no secret
    file.write_bytes(data)


@pytest.mark.parametrize("part", [0, 0.4, 0.6, 0.9])
def test_a_damaged_database(whole: Path, tmp_path: Path, part: float) -> None:
    """check, backup and rebuild fail and say the same; following it brings all rows back."""
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    damage(data, part)
    ways = set[str]()
    for words in (["check"], ["backup", "--to", str(tmp_path / "backup")], ["rebuild"]):
        line = [str(BIN / "polly-server"), *words, "--data", str(data)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        first, *lines = done.stderr.splitlines()
        assert (done.returncode, f"The database of {data} is damaged" in first) == (1, True), done
        ways.add("\n".join(lines[:2]))
    [said] = ways
    commands = said.splitlines()[0].partition(": ")[2].replace("polly-server", str(BIN / "polly-server"))
    subprocess.run(["sh", "-c", commands], check=True)
    assert held(data) == held(whole)
