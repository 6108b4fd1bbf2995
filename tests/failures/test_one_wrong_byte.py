"""One byte of a database is wrong: commands and the server's log say so (33).

No file is deleted because of a wrong byte in the index of storage keys. Other indexes are compared by check and backup.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from polly_dockers.db.disk_errors import DamagedError
from polly_dockers.db.sqlite import FILE, connect
from polly_dockers.maintenance import garbage
from polly_dockers.system.durations import SECONDS_PER_DAY
from support import collecting
from support.server import BIN, Server, polly_server
from support.wire_client import admin, image, sha256

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = "a docker of many layers"
LATER = 2 * SECONDS_PER_DAY


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with an organisation and its admin, of which ``b1`` is a backup."""
    folder = tmp_path / "data"
    Server(folder, 0).init()
    polly_server("backup", "--data", str(folder), "--to", str(tmp_path / "b1"))
    return folder


def change(folder: Path, found: bytes, changed: bytes, *, without: bytes | None = None) -> None:
    """Replace bytes of a database, while nobody has it open, wherever ``without`` is not just before them."""
    with connect(folder / FILE) as connection:  # the last one that is closed writes the WAL to the file
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    data = bytearray((folder / FILE).read_bytes())
    at, count = -1, 0
    while (at := data.find(found, at + 1)) >= 0:
        if without is None or without not in data[at - 100 : at]:
            data[at : at + len(found)] = changed
            count += 1
    assert count
    (folder / FILE).write_bytes(data)


def failed(*words: str) -> str:
    """Run a command that fails; what it says."""
    done = subprocess.run([BIN / "polly-server", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    return done.stderr


def damage_key(server: Server, blob: bytes) -> None:
    """Change a byte of a storage key in the index of storage keys, and not in the table."""
    digest = sha256(blob)
    with connect(server.data / FILE) as connection:
        query = "SELECT storage_key FROM blobs WHERE digest = ?"
        key = connection.exec_driver_sql(query, (digest,)).scalar_one().encode()
    change(server.data, key, b"sha257" + key[6:], without=digest.encode())


def collect_twice(server: Server) -> None:
    """Collect: first files are found that seem to have no row, later they are deleted."""
    for run in (1, 2):
        collecting.collect(server, later=run * LATER)


def test_an_index_that_lacks_a_row(own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is that of storage keys. Check, backup and rebuild find it; no collection deletes the row's file."""
    made = image()
    admin(own_server).new_repo().push(made, "v1")
    own_server.stop()
    damage_key(own_server, made.blobs[1])
    data = str(own_server.data)
    for words in (["check"], ["backup", "--to", str(tmp_path / "backup")], ["rebuild"]):
        assert f"The database of {data} is damaged" in failed(*words, "--data", data)
    monkeypatch.setattr(garbage, "ORPHAN_SECONDS", -1)
    with pytest.raises(DamagedError):
        collect_twice(own_server)
    assert sha256(made.blobs[1]) in own_server.stored()


@pytest.mark.parametrize("name", ["ix_audit_unsealed", "ix_commits_manifest_id"])
def test_a_wrong_byte_in_a_name_of_an_index(data: Path, tmp_path: Path, name: str) -> None:
    """Every command says that the database is damaged."""
    change(data, f"index{name}".encode(), b"index\xff" + name[1:].encode())
    for words in (["check"], ["backup", "--to", str(tmp_path / "b2")], ["rebuild"], ["user", "list"], ["run"]):
        assert f"The database of {data} is damaged" in failed(*words, "--data", str(data))


def test_a_wrong_byte_in_the_audit_log(data: Path, tmp_path: Path) -> None:
    """Check and backup say that it is damage, and so does what reads the entry."""
    change(data, b"polly-serverann@acme.exampleadmin", b"polly-server\xffnn@acme.exampleadmin")
    for words in (["check"], ["backup", "--to", str(tmp_path / "b2")], ["audit"]):
        assert f"The database of {data} is damaged" in failed(*words, "--data", str(data))


@pytest.mark.server_options("--workers", "1", "--log-format", "json")
def test_a_wrong_byte_in_a_text_that_clients_read(own_server: Server) -> None:
    """They get 503, and the log says once what is wrong and what to run; check and backup say so too."""
    ann = admin(own_server)
    ann.create("described", description=DESCRIPTION)
    own_server.stop()
    change(own_server.data, DESCRIPTION.encode(), b"\xff" + DESCRIPTION[1:].encode())
    own_server.start()
    for _ in range(3):
        answer = ann.api.get(f"{ann.base}/repositories")
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    own_server.stop()
    lines = [json.loads(line) for line in own_server.log.read_text().splitlines() if "damaged" in line]
    [line] = [line for line in lines if line["event"] != "request"]
    assert line["level"] == "error"
    assert line["command"] == f"polly-server check --data {own_server.data}"
    assert "description" in line["reason"]
    assert "a value of repositories.description is not text" in failed("check", "--data", str(own_server.data))


@pytest.mark.parametrize("part", ["header", "index"])
def test_a_damaged_database_of_a_backup(data: Path, tmp_path: Path, part: str) -> None:
    """Whatever reads it names the command that replaces it, which does."""
    backup = tmp_path / "b1"
    file = backup / FILE
    if part == "header":
        file.write_bytes(bytes(100) + file.read_bytes()[100:])
    else:
        change(backup, b"indexix_audit_at", b"index\xffx_audit_at")
    for words in (["check"], ["usage"], ["user", "list"], ["backup", "--to", str(tmp_path / "b2")]):
        said = failed(*words, "--data", str(backup))
        assert f"The database of the backup {backup} is damaged" in said
        assert f"polly-server backup --data … --to {backup}" in said
        assert "polly-server check" not in said
    assert not (tmp_path / "b2" / FILE).exists()
    polly_server("backup", "--data", str(data), "--to", str(backup))
    assert "Nothing is wrong." in polly_server("check", "--data", str(backup))


@pytest.mark.usefixtures("data")
def test_a_damaged_page_of_a_backup(tmp_path: Path) -> None:
    """Check and usage name the command that replaces it."""
    backup = tmp_path / "b1"
    pages = (backup / FILE).read_bytes()
    (backup / FILE).write_bytes(pages[:4096] + bytes(len(pages) - 4096))
    for words in (["check"], ["usage"]):
        assert f"polly-server backup --data … --to {backup}" in failed(*words, "--data", str(backup))
