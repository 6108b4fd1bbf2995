"""5, 16: a compaction of the journal is killed at its system calls: the journal still says the same."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from polly_dockers.db.journal import compaction, frames, state
from polly_dockers.maintenance import rebuild
from polly_dockers.server import data_folder
from support.registry_rows import fill, held
from support.server import running_server
from support.wire_client import admin, image

if TYPE_CHECKING:
    from pathlib import Path

CALLS = ("flock", "pwrite64", "write", "fsync", "rename", "unlink")
COMPACT = """
import sys
from pathlib import Path
from polly_dockers.db.journal import compaction
compaction.compact(Path(sys.argv[1]), lambda took: None)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server that has ended, whose journal has many purged records."""
    with running_server(tmp_path_factory.mktemp("compaction"), "--collect-seconds", "0") as server:
        ann = admin(server)
        fill(ann)
        repo = ann.new_repo()
        for _ in range(3):
            repo.push(image(), "v1")
        folder: Path = server.data
    return folder


def rebuilt(folder: Path, copy: Path) -> list[list[object]]:
    """What a rebuild makes of the journal and the blobs alone."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("polly.db*"))
    assert rebuild.rebuild(copy).lost == []
    return held(copy)


@pytest.mark.parametrize("call", CALLS)
def test_it_is_killed(folder: Path, tmp_path: Path, call: str) -> None:
    """It is killed at its first, second, … call: a rebuild gives the same after each, and the next one succeeds."""
    data, copy, killed = tmp_path / "data", tmp_path / "copy", 0
    shutil.copytree(folder, data)
    for number in range(1, 100):
        before = held(data)
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        command = ["strace", "-f", "-qq", "-o", "/dev/null", *inject, sys.executable, "-c", COMPACT, str(data)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        assert held(data) == before
        assert rebuilt(data, copy) == before
        assert rebuild.catch_up(data).batches == 0
        if done.returncode == 0:
            break
        killed += 1
        data_folder.transaction(data, note)  # what comes after the crash is in the journal, too
        assert frames.has(data, data_folder.transaction(data, state.last_batch))
    assert killed > 0
    assert frames.is_snapshot(frames.files(data)[0])
    compaction.sweep(data)
    assert set((data / frames.FOLDER).iterdir()) == set(frames.files(data))


def note(connection: object) -> None:
    """Write something that is in the journal."""
    from polly_dockers import db  # noqa: PLC0415 - beside its only use

    db.audit.append(connection, db.audit.Event.key_rotate, "x", organisation_id=None, by=None)  # type: ignore[arg-type]
