"""Manifests whose bytes in the database were damaged: checks name and repair them, and nothing right is lost."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, update

from polly_dockers.db.journal import compaction, frames
from polly_dockers.db.schema import manifests
from polly_dockers.server import data_folder
from support.damage import damage_manifest
from support.server import BIN, polly_server
from support.wire_client import OCI_INDEX, Image, Repo, admin, descriptor, dumps, image

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from support.server import Server


def run(*words: str) -> tuple[int, str]:
    """Run a command of polly-server; its exit code and its output."""
    done = subprocess.run([str(BIN / "polly-server"), *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def check(server: Server, *more: str) -> tuple[int, str]:
    """Run the check of a server; its exit code and its output."""
    return run("check", "--data", str(server.data), *more)


def damage(folder: Path, digest: str, wrong: bytes | None = None) -> None:
    """Damage the bytes of a manifest in the database of a data folder."""
    data_folder.transaction(folder, lambda connection: damage_manifest(connection, digest, wrong))


def lose_journal(folder: Path) -> None:
    """Have the journal written again from the database, which is damaged."""
    shutil.rmtree(folder / frames.FOLDER)
    data_folder.transaction(folder, lambda _connection: None)
    assert frames.exists(folder)


def body_of(folder: Path, digest: str) -> bytes:
    """The bytes of a manifest in the database of a data folder or a backup."""
    query = select(manifests.c.body).where(manifests.c.digest == digest)
    found: bytes = data_folder.transaction(folder, lambda connection: connection.execute(query).scalar_one())
    return found


@pytest.fixture
def saved(server: Server, repo: Repo, tmp_path: Path) -> Path:
    """A backup of the server, taken while nothing was damaged."""
    assert repo.manifest("v1").status == 200
    polly_server("backup", "--data", str(server.data), "--to", str(tmp_path / "backup"))
    return tmp_path / "backup"


def test_a_check_names_it(server: Server, repo: Repo, pushed: Image) -> None:
    """33: the check names the image with its tag and the command that repairs it, and changes nothing."""
    damage(server.data, pushed.digest)
    code, said = check(server)
    assert code == 1
    assert f"The manifest {repo.name}@{pushed.digest} does not match its digest." in said
    assert f"  {repo.name}:v1@{pushed.digest}\nTo repair it from the journal:\n" in said
    assert f"\n  polly-server check --data {server.data} --repair\n" in said
    assert repo.manifest("v1").body != pushed.manifest


def test_the_journal_repairs_it(server: Server, repo: Repo, pushed: Image) -> None:
    """33: --repair takes the bytes from the journal while the server runs."""
    damage(server.data, pushed.digest)
    code, said = check(server, "--repair")
    assert (code, "It is repaired from the journal." in said) == (0, True), said
    assert repo.manifest("v1").body == pushed.manifest
    assert check(server)[0] == 0


@pytest.mark.parametrize("lost", ["nothing", "its database", "a name in its database"])
def test_a_backup_repairs_it(server: Server, repo: Repo, pushed: Image, saved: Path, lost: str) -> None:
    """33: if the journal lacks the bytes, those of the backup are taken, from its database or else its journal."""
    damage(server.data, pushed.digest)
    server.stop()
    lose_journal(server.data)
    assert "still damaged" in check(server, "--repair")[1]
    if lost == "its database":
        (saved / "polly.db").write_bytes(bytes(4096))
    elif lost == "a name in its database":
        pages = (saved / "polly.db").read_bytes()
        assert b"indexix_audit_at" in pages
        (saved / "polly.db").write_bytes(pages.replace(b"indexix_audit_at", b"index\xffx_audit_at"))
    code, said = check(server, "--repair", "--from", str(saved))
    assert (code, f"It is repaired from the backup {saved}." in said) == (0, True), said
    server.start()
    assert repo.manifest("v1").body == pushed.manifest


def test_another_repository_repairs_it(server: Server, repo: Repo, pushed: Image) -> None:
    """33: the same manifest in another docker repository is a copy too."""
    other = admin(server).new_repo()
    other.push(pushed, "v1")

    def damage_one(connection: Connection) -> None:
        kept = select(func.max(manifests.c.id)).scalar_subquery()
        connection.execute(update(manifests).where(manifests.c.id < kept).values(body=b"{}"))

    data_folder.transaction(server.data, damage_one)
    server.stop()
    lose_journal(server.data)
    code, said = check(server, "--repair")
    assert (code, "It is repaired from another docker repository." in said) == (0, True), said
    server.start()
    assert repo.manifest("v1").body == other.manifest("v1").body == pushed.manifest


def test_only_the_size_is_wrong(server: Server, repo: Repo, pushed: Image) -> None:
    """33: the check says so and does not doubt the bytes, which are what it is repaired from."""
    wrong = update(manifests).where(manifests.c.digest == pushed.digest).values(size=1)
    data_folder.transaction(server.data, lambda connection: connection.execute(wrong))
    code, said = check(server)
    assert (code, f"The manifest {repo.name}@{pushed.digest} has a wrong size in the database." in said) == (1, True)
    code, said = check(server, "--repair")
    assert (code, "It is repaired from its own bytes." in said) == (0, True), said
    assert "Nothing is wrong." in check(server)[1]


def test_wrong_bytes_repair_nothing(server: Server, repo: Repo, pushed: Image, saved: Path) -> None:
    """33: what is damaged everywhere is named, and is repaired by the next push; the exit code is 1 until then."""
    damage(server.data, pushed.digest)
    server.stop()
    lose_journal(server.data)
    shutil.rmtree(saved / frames.FOLDER)
    shutil.copy(server.data / "polly.db", saved / "polly.db")
    server.start()
    code, said = check(server, "--repair", "--from", str(saved))
    assert (code, "still damaged" in said, "push the image again" in said) == (1, True, True), said
    repo.push(pushed, "v1")
    assert repo.manifest("v1").body == pushed.manifest
    assert check(server)[0] == 0


def test_a_damaged_image_in_the_trash(server: Server, repo: Repo, pushed: Image) -> None:
    """33: it is repaired too, so that a restore brings back the right bytes."""
    assert repo.send("DELETE", repo.path(f"manifests/{pushed.digest}")).status == 202
    [marked] = data_folder.transaction(
        server.data, lambda connection: connection.execute(select(manifests.c.digest)).scalars().all()
    )
    damage(server.data, marked)
    assert f"The manifest {repo.name}@{pushed.digest} in the trash does not match" in check(server)[1]
    assert check(server, "--repair")[0] == 0
    assert body_of(server.data, marked) == pushed.manifest


def test_a_damaged_index_that_lacks_images(server: Server) -> None:
    """33: a check that can't read what an index names reports the damage, and goes on."""
    ann = admin(server)
    repo = ann.new_repo()
    ann.api.json("PATCH", f"{ann.base}/repository?name={repo.name.partition('/')[2]}", {"sparse_indexes": "allow"})
    child = image()
    index = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child.manifest)]})
    made = Image(index, OCI_INDEX, ())
    repo.push(made, "v1")
    damage(server.data, made.digest, b"\xff")
    code, said = check(server)
    assert (code, f"The manifest {repo.name}@{made.digest} does not match" in said) == (1, True), said
    assert "Checked 0 blobs" in said


def test_a_compaction_keeps_the_right_bytes(server: Server, repo: Repo, pushed: Image) -> None:
    """33: the journal is written again from the database, but the bytes of a damaged manifest come from the journal."""
    damage(server.data, pushed.digest, b"{}")
    compaction.compact(server.data, lambda _took: None)
    [only] = frames.files(server.data)
    assert frames.is_snapshot(only)
    assert pushed.manifest in only.read_bytes()
    assert check(server, "--repair")[0] == 0
    assert repo.manifest("v1").body == pushed.manifest


def test_a_backup_keeps_the_right_bytes(server: Server, pushed: Image, saved: Path) -> None:
    """33: a backup of a registry with a damaged manifest is refused, and the earlier one stays; what it says helps."""
    damage(server.data, pushed.digest)
    code, said = run("backup", "--data", str(server.data), "--to", str(saved))
    assert (code, f"1 manifest is damaged in {server.data}: " in said) == (1, True), said
    assert f"polly-server check --data {server.data} --repair" in said
    assert run("check", "--data", str(saved))[0] == 0
    assert check(server, "--repair")[0] == 0
    assert run("backup", "--data", str(server.data), "--to", str(saved))[0] == 0


@pytest.mark.parametrize("database", [True, False], ids=["its database", "its journal"])
def test_only_the_earlier_backup_has_the_right_bytes(
    server: Server, pushed: Image, saved: Path, *, database: bool
) -> None:
    """33: it is not overwritten, and what the refusal says repairs the manifest from it."""
    damage(server.data, pushed.digest)
    server.stop()
    lose_journal(server.data)
    if not database:
        (saved / "polly.db").write_bytes(bytes(4096))
    code, said = run("backup", "--data", str(server.data), "--to", str(saved))
    command = f"check --data {server.data} --repair --from {saved}"
    assert (code, f"polly-server {command}" in said) == (1, True), said
    assert run(*command.split())[0] == 0
    assert body_of(server.data, pushed.digest) == pushed.manifest
    assert run("backup", "--data", str(server.data), "--to", str(saved))[0] == 0


def test_a_backup_without_any_right_bytes(server: Server, repo: Repo, pushed: Image, tmp_path: Path) -> None:
    """33: it loses nothing, so it is made, with a warning; a restore of it names the image and exits with 1."""
    assert repo.manifest("v1").status == 200
    damage(server.data, pushed.digest)
    server.stop()
    lose_journal(server.data)
    backup, restored = str(tmp_path / "backup"), str(tmp_path / "restored")
    for _ in range(2):
        code, said = run("backup", "--data", str(server.data), "--to", backup)
        assert (code, "Warning: 1 manifest is damaged" in said, pushed.digest in said) == (0, True, True), said
    code, said = run("check", "--data", backup)
    assert (code, "The next backup to this folder replaces it, if the registry has" in said) == (1, True), said
    code, said = run("restore", "--from", backup, "--data", restored)
    assert (code, f"1 manifest was damaged in the backup: {repo.name}@{pushed.digest}." in said) == (1, True), said
