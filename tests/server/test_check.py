"""polly-server check: damage is found, reported with the affected images, set aside and repaired (33)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from polly_dockers import db
from polly_dockers.server import data_folder
from support.server import BIN, polly_server
from support.wire_client import Image, Repo, admin, image, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from support.server import Server


@pytest.fixture
def made() -> Image:
    """An image whose layer is damaged."""
    return image()


@pytest.fixture
def repo(server: Server, made: Image) -> Repo:
    """A repository that holds it."""
    there = admin(server).new_repo()
    there.push(made, "v1")
    there.push(image(), "whole")
    return there


def check(server: Server, *more: str) -> tuple[int, str]:
    """Run the check; its exit code and its output."""
    command = [str(BIN / "polly-server"), "check", "--data", str(server.data), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def file_of(server: Server, data: bytes) -> Path:
    """The file of a blob."""
    digest = sha256(data)[7:]
    return next((server.data / "blobs" / "sha256" / digest[:2]).glob(f"{digest}.*"))


def damage(file: Path, how: str) -> None:
    """Damage a file as a disk could."""
    data = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "cut":
        file.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


def test_nothing_is_wrong(server: Server, repo: Repo) -> None:
    """The exit code is 0, and the check prints what it looked at."""
    code, said = check(server)
    assert code == 0, said
    assert "4 blobs, 4 of them read" in said
    assert "2 manifests" in said
    assert "Nothing is wrong." in said
    assert repo.manifest("v1").status == 200


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_damage_is_named_by_its_images(server: Server, repo: Repo, made: Image, how: str) -> None:
    """The exit code is 1; image, tag and commit are named; without --repair nothing is changed."""
    file = file_of(server, made.blobs[1])
    damage(file, how)
    before = file.read_bytes() if file.exists() else None
    code, said = check(server)
    assert code == 1
    assert f"{repo.name}:v1@{made.digest}" in said
    assert sha256(made.blobs[1]) in said
    assert ":whole" not in said
    assert f"To repair it from a backup:\n  polly-server check --data {server.data} --repair --from" in said
    assert (file.read_bytes() if file.exists() else None) == before


def test_an_image_of_a_tag_is_named_once(server: Server, repo: Repo, made: Image) -> None:
    """Also if the tag had the image, then another, then the first one again."""
    repo.push(image(), "v1")
    repo.push(made, "v1")
    damage(file_of(server, made.blobs[1]), "flipped")
    assert check(server)[1].count(f"{repo.name}:v1@{made.digest}") == 1


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_push_repairs_a_lost_blob(server: Server, repo: Repo, made: Image, how: str) -> None:
    """A damaged blob is marked as missing, so clients push it again; then it is whole."""
    layer = made.blobs[1]
    damage(file_of(server, layer), how)
    code, said = check(server, "--repair")
    assert code == 1
    assert f"It is {'marked as lost' if how == 'missing' else 'set aside'}; push it again to repair it" in said
    assert repo.send("HEAD", repo.path(f"blobs/{sha256(layer)}")).status == 404
    if how != "missing":
        assert len(list((server.data / "damaged").iterdir())) == 1
    repo.push_blob(layer)
    assert repo.blob(sha256(layer)).body == layer
    assert check(server)[0] == 0


def test_a_backup_repairs(server: Server, repo: Repo, made: Image, tmp_path: Path) -> None:
    """The blob is copied from the backup, under a new storage key, and checked."""
    backup = tmp_path / "backup"
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    damage(file_of(server, made.blobs[0]), "flipped")
    code, said = check(server, "--repair", "--from", str(backup))
    assert (code, "repaired from the backup" in said) == (0, True)
    assert "Found 1 problem, and repaired it; nothing is wrong now." in said
    assert repo.blob(sha256(made.blobs[0])).body == made.blobs[0]
    assert check(server)[0] == 0


def test_a_repair_of_only_some_damage_says_so(server: Server, repo: Repo, made: Image, tmp_path: Path) -> None:
    """The exit code is 1: what is newer than the backup must be pushed again."""
    backup = tmp_path / "backup"
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    later = image()
    repo.push(later, "later")
    for blob in (made.blobs[0], later.blobs[0]):
        damage(file_of(server, blob), "flipped")
    code, said = check(server, "--repair", "--from", str(backup))
    assert (code, "Found 2 problems, 1 of which is repaired." in said) == (1, True)
    assert "repaired from the backup" in said
    assert "push it again to repair it" in said


def test_another_key_repairs(server: Server, repo: Repo, made: Image) -> None:
    """Bytes of the same digest under another storage key repair it, such as those of a push without a row."""
    file = file_of(server, made.blobs[0])
    twin = file.with_name(f"{file.name.partition('.')[0]}.{'0' * 16}")
    twin.write_bytes(file.read_bytes())
    damage(file, "flipped")
    code, said = check(server, "--repair")
    assert (code, "repaired from sha256/" in said) == (0, True)
    assert repo.blob(sha256(made.blobs[0])).body == made.blobs[0]
    assert check(server)[0] == 0


def test_a_key_that_is_being_deleted_repairs(server: Server, repo: Repo, made: Image) -> None:
    """36: the collector may delete a key without a row at any moment, so the repaired blob has its own copy."""
    file = file_of(server, made.blobs[0])
    twin = file.with_name(f"{file.name.partition('.')[0]}.{'0' * 16}")
    twin.write_bytes(file.read_bytes())
    damage(file, "flipped")
    check(server, "--repair")
    twin.unlink()  # as a collector does that found before that no row names it
    assert repo.blob(sha256(made.blobs[0])).body == made.blobs[0]
    assert check(server)[0] == 0


def test_a_push_during_the_repair(server: Server, repo: Repo, made: Image) -> None:
    """36: a blob that was pushed again since the check looked at it is not marked, and keeps its new bytes."""
    digest = sha256(made.blobs[0])
    row = data_folder.transaction(server.data, rows_of)[digest]
    data_folder.transaction(server.data, lambda connection: db.checks.mark_lost(connection, row))
    repo.push_blob(made.blobs[0])
    fresh = data_folder.transaction(server.data, rows_of)[digest]
    assert fresh.storage_key != row.storage_key
    for late in (
        lambda connection: db.checks.mark_lost(connection, row),
        lambda connection: db.checks.set_storage_key(connection, row, "key"),
    ):
        data_folder.transaction(server.data, late)
        assert data_folder.transaction(server.data, rows_of)[digest] == fresh
    assert repo.blob(digest).body == made.blobs[0]


def rows_of(connection: Connection) -> dict[str, db.checks.BlobRow]:
    """The rows of all blobs by their digests."""
    return {row.digest: row for row in db.checks.blobs_after(connection, 0)}


def test_a_damaged_backup_repairs_nothing(server: Server, repo: Repo, made: Image, tmp_path: Path) -> None:
    """Damaged bytes of a backup are never used."""
    backup = tmp_path / "backup"
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    file = file_of(server, made.blobs[0])
    damage(backup / file.relative_to(server.data), "flipped")
    damage(file, "flipped")
    assert "push it again to repair it" in check(server, "--repair", "--from", str(backup))[1]
    assert repo.blob(sha256(made.blobs[0])).status == 404


def test_a_sample_reads_less(server: Server, repo: Repo, made: Image) -> None:
    """Sizes of all files are still compared."""
    code, said = check(server, "--sample", "0")
    assert (code, "4 blobs, 0 of them read" in said) == (0, True)
    assert "No blob was read" in said
    assert "othing is wrong" not in said
    damage(file_of(server, made.blobs[1]), "flipped")
    assert (check(server, "--sample", "0")[0], check(server)[0]) == (0, 1)
    damage(file_of(server, made.blobs[0]), "cut")
    assert check(server, "--sample", "0")[0] == 1
    assert repo.manifest("v1").status == 200


def test_a_restore_is_the_registry_of_that_moment(server: Server, repo: Repo, made: Image, tmp_path: Path) -> None:
    """What was pushed after the backup is not in it; what was there before is, byte for byte."""
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    later = image()
    repo.push(later, "v1", "later")
    polly_server("restore", "--from", str(backup), "--data", str(restored))
    server.stop()
    first, server.data = server.data, restored
    server.start()
    assert repo.manifest("v1").body == made.manifest
    assert all(repo.blob(sha256(blob)).body == blob for blob in made.blobs)
    assert repo.manifest("later").status == repo.manifest(later.digest).status == 404
    server.stop()
    server.data = first
    server.start()
    assert repo.manifest("v1").body == later.manifest
    assert polly_server("backup", "--data", str(server.data), "--to", str(backup)).startswith("Copied 2 blobs")
    done = subprocess.run(
        [BIN / "polly-server", "restore", "--from", backup, "--data", restored],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "holds a registry already" in done.stderr) == (1, True)


def test_a_blob_that_was_copied_wrongly_is_no_backup(server: Server, repo: Repo, made: Image, tmp_path: Path) -> None:
    """The backup fails, names the file, and leaves the previous backup as it is."""
    backup = tmp_path / "backup"
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    newer = image()
    repo.push(newer, "v2")
    damage(file_of(server, newer.blobs[0]), "flipped")
    command = [str(BIN / "polly-server"), "backup", "--data", str(server.data), "--to", str(backup)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, sha256(newer.blobs[0])[7:] in done.stderr) == (1, True)
    polly_server("restore", "--from", str(backup), "--data", str(tmp_path / "restored"))
    assert repo.manifest("v1").body == made.manifest


def test_a_folder_that_is_not_a_backup(server: Server, tmp_path: Path) -> None:
    """It is reported before the check begins; and --from works only with --repair."""
    code, said = check(server, "--repair", "--from", str(tmp_path / "nosuch"))
    assert (code, "nosuch is not a backup" in said, "Nothing is wrong" in said) == (1, True, False)
    code, said = check(server, "--from", str(tmp_path / "nosuch"))
    assert (code, "--repair" in said) == (2, True)
