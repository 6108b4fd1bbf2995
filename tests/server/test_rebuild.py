"""If the database is lost or an old one is put back, the journal restores all that was answered with success."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers.auth.passwords import UNSET
from polly_dockers.db.journal import frames, records
from polly_dockers.system.durations import SECONDS_PER_DAY
from support.collecting import collect
from support.server import Server, free_port, polly_server, running_server
from support.wire_client import OCI_INDEX, OCI_MANIFEST, Person, Repo, admin, basic, descriptor, dumps, image, sha256

if TYPE_CHECKING:
    from pathlib import Path


def seen(ann: Person, names: list[str]) -> list[Any]:
    """What clients see of all repositories: items, tags, commits with times and authors, every manifest's bytes."""
    found: list[Any] = []
    for name in names:
        repo = ann.repo(name)
        commits = ann.commits(name)["items"]
        bodies = {each["commit"]: repo.manifest(each["commit"]).body for each in commits}
        tags = repo.get(repo.path("tags/list")).json()["tags"]
        found += [ann.repository(name), tags, commits, bodies]
    return found


def fill(ann: Person) -> tuple[list[str], dict[str, bytes]]:
    """Repositories with overwritten tags, an index, an artifact, deletions and restorations; and some blobs."""
    repo, other = ann.new_repo(), ann.new_repo()
    blobs: dict[str, bytes] = {}

    def push(there: Repo, *tags: str, **more: Any) -> bytes:  # noqa: ANN401 - parts of a manifest
        made = image(**more)
        there.push(made, *tags)
        blobs.update({sha256(blob): blob for blob in made.blobs})
        return made.manifest

    first = push(repo, "v1", "latest")
    push(repo, "v1")
    push(repo, subject=descriptor(first, OCI_MANIFEST))
    child = push(repo)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child, OCI_MANIFEST)]}
    assert repo.put("both", dumps(index), OCI_INDEX).status == 201
    push(other, "kept", "gone", "back")
    ann.api.json("PATCH", f"{ann.base}/repository?name={other.name.partition('/')[2]}", {"description": "changed"})
    name = other.name.partition("/")[2]
    for tag in ("gone", "back"):
        assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}&tag={tag}").status == 200
    assert ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "tag": "back"}).status == 200
    deleted = push(other, "deleted")
    assert other.delete(f"manifests/{sha256(deleted)}").status == 202
    restored = push(other, "restored")
    assert other.delete(f"manifests/{sha256(restored)}").status == 202
    assert ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "commit": sha256(restored)}).status == 200
    return [repo.name.partition("/")[2], name], blobs


def sign_in_again(server: Server) -> Person:
    """The admin, with a password and the role again."""
    server.give_admin_back()
    return Person(server.port, server.org, *server.admin)


def test_the_database_is_deleted(tmp_path: Path) -> None:
    """Every repository, tag, commit (time, author, status) and manifest is back, and can be pulled byte for byte."""
    with running_server(tmp_path) as server:
        ann = admin(server)
        names, blobs = fill(ann)
        before = seen(ann, names)
        trash = ann.api.get(f"{ann.base}/trash").json()
        referrers = ann.repo(names[0]).get(ann.repo(names[0]).path(f"referrers/{before[2][-1]['commit']}")).body
        server.stop()
        server.lose_database()
        assert "commits" in polly_server("rebuild", "--data", str(server.data))
        server.start()
        ann = sign_in_again(server)
        assert seen(ann, names) == before
        assert ann.api.get(f"{ann.base}/trash").json() == trash
        repo = ann.repo(names[0])
        assert repo.get(repo.path(f"referrers/{before[2][-1]['commit']}")).body == referrers
        everywhere = [ann.repo(name) for name in names]
        for digest, data in blobs.items():
            assert any(there.blob(digest).body == data for there in everywhere)
        repo.push(image(), "after")
        assert repo.manifest("after").status == 200


def test_nobody_has_a_password(tmp_path: Path) -> None:
    """After a rebuild nobody can sign in with any password until the operator sets one."""
    with running_server(tmp_path) as server:
        email, password = server.admin
        server.stop()
        server.lose_database()
        polly_server("rebuild", "--data", str(server.data))
        with contextlib.closing(sqlite3.connect(server.data / "polly.db")) as connection:
            stored = {row[0] for row in connection.execute("SELECT password_hash FROM users")}
        assert stored == {UNSET}
        listed = polly_server("user", "list", "--data", str(server.data)).splitlines()
        assert f"{email} in no organisation has none" in [" ".join(line.split()) for line in listed]
        server.start()
        wanted = {"scope": "full", "expires_in": 60, "label": "of a test"}
        for tried in (password, UNSET, "nobody has this password", "a long password"):
            assert basic(server.port, email, tried).json("POST", "/api/v1/tokens", wanted).status == 401
        server.give_admin_back()
        assert basic(server.port, email, password).json("POST", "/api/v1/tokens", wanted).status == 201


def test_a_tag_is_where_it_was(tmp_path: Path) -> None:
    """A tag has its image again, even if an index and one of its images both had the tag and were restored together."""
    with running_server(tmp_path) as server:
        ann = admin(server)
        repo = ann.new_repo()
        name = repo.name.partition("/")[2]
        child = image()
        repo.push(child, "t")
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child.manifest, OCI_MANIFEST)]}
        parent = dumps(index)
        assert repo.put("t", parent, OCI_INDEX).status == 201
        assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}&tag=t").status == 200
        assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}&commit={sha256(parent)}").status == 200
        assert ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "tag": "t"}).status == 200
        assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}&commit={child.digest}").status == 200
        assert ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "commit": sha256(parent)}).status == 200
        before = seen(ann, [name])
        assert repo.manifest("t").body == parent
        server.stop()
        server.lose_database()
        polly_server("rebuild", "--data", str(server.data))
        server.start()
        assert seen(sign_in_again(server), [name]) == before


def test_what_no_manifest_names_is_kept_for_a_while(tmp_path: Path) -> None:
    """14: after a rebuild, blobs that no manifest names are kept for 30 days."""
    with running_server(tmp_path, "--collect-seconds", "0") as server:
        ann = admin(server)
        repo = ann.new_repo()
        made = image()
        repo.push(made, "v1")
        repo.push_blob(b"of no manifest")
        server.stop()
        server.lose_database()
        polly_server("rebuild", "--data", str(server.data))
        polly_server("gc", "--data", str(server.data))
        assert server.stored() == {sha256(b"of no manifest"), *map(sha256, made.blobs)}
        assert collect(server, later=29 * SECONDS_PER_DAY).files == 0
        assert collect(server, later=31 * SECONDS_PER_DAY).files == 1
        assert server.stored() == set(map(sha256, made.blobs))
        assert "Nothing is wrong" in polly_server("check", "--data", str(server.data))


def test_a_server_without_its_database_does_not_start(tmp_path: Path) -> None:
    """Without its database every command refuses and names rebuild: an empty registry would collect all blobs."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    server.start()
    ann = admin(server)
    ann.new_repo().push(image(), "v1")
    server.stop()
    server.lose_database()
    for command in (["init", "--org", "acme", "--email", "a@acme.example", "--password-stdin"], ["org", "list"]):
        with pytest.raises(AssertionError, match="polly-server rebuild"):
            polly_server(*command, "--data", str(server.data), stdin="a long password")
    assert not (server.data / "polly.db").exists()


def test_an_old_database_is_brought_up_to_date(tmp_path: Path) -> None:
    """With a database from a backup and the current files, the next start brings back newer pushes."""
    with running_server(tmp_path) as server:
        ann = admin(server)
        repo = ann.new_repo()
        name = repo.name.partition("/")[2]
        repo.push(image(), "v1")
        server.stop()
        server.copy_database(tmp_path / "old.db")
        server.start()
        ann = admin(server)
        ann.repo(name).push(image(), "v1", "v2")
        before = seen(ann, [name])
        server.stop()
        server.lose_database()
        shutil.copy(tmp_path / "old.db", server.data / "polly.db")
        server.start()
        assert seen(admin(server), [name]) == before


def test_a_lost_journal_is_written_again(tmp_path: Path) -> None:
    """The next start writes all rows to a new journal, from which a rebuild works."""
    with running_server(tmp_path) as server:
        ann = admin(server)
        names, _ = fill(ann)
        before, trash = seen(ann, names), ann.api.get(f"{ann.base}/trash").json()
        server.stop()
        shutil.rmtree(server.data / frames.FOLDER)
        server.start()
        admin(server).repo(names[0]).push(image("after all"), "after")
        server.stop()
        server.lose_database()
        polly_server("rebuild", "--data", str(server.data))
        server.start()
        ann = sign_in_again(server)
        assert ann.api.get(f"{ann.base}/trash").json() == trash
        repo = ann.repo(names[0])
        assert repo.manifest("after").status == 200
        digest = repo.manifest("after").header("Docker-Content-Digest")
        ann.api.send("DELETE", f"{ann.base}/repository?name={names[0]}&tag=after")
        assert repo.manifest(digest).status == 200
        assert seen(ann, names[1:]) == before[4:]


def test_a_torn_end_is_passed_over(tmp_path: Path) -> None:
    """A crash in the middle of an append leaves half a frame; what comes after it is read."""
    folder = tmp_path
    journal_ = frames.Journal(folder)
    journal_.append(1, 0, [records.UserMade(1, "ann@acme.example", 1)])
    file = next((folder / frames.FOLDER).glob("*.log"))
    whole = file.read_bytes()
    for cut in range(1, len(whole)):
        file.write_bytes(whole + whole[:cut])
        assert [batch.id for batch in frames.read(folder)] == [1]
        journal_.append(2, 1, [records.UserMade(2, "bob@acme.example", 2)])
        assert [batch.id for batch in frames.read(folder)] == [1, 2]
        assert frames.last(folder) == 2
        file.write_bytes(whole)
    journal_.close()
