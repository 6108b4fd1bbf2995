"""polly-server gc while a server runs: it frees space, and deletes nothing that is needed (1, 2, 3, 5, 9, 14)."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from polly_dockers import db
from polly_dockers.registry.uploads import MAX_OPEN, TRIM_EVERY
from polly_dockers.system.durations import SECONDS_PER_DAY, SECONDS_PER_HOUR
from support import collecting
from support.server import polly_server, running_server
from support.wire_client import (
    OCI_INDEX,
    OCI_MANIFEST,
    Person,
    admin,
    connected,
    descriptor,
    dumps,
    image,
    sha256,
)
from support.workers import each_worker

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server


pytestmark = pytest.mark.server_options("--collect-seconds", "0")


def time_passes(server: Server) -> None:
    """Have all leases, waiting keys and items of the trash be over, by a change of their rows.

    This is for tests in which a command or the server itself decides afterwards: their processes have their own clock.
    """
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE repository_blobs SET leased_until = 1 WHERE leased_until > 0")
        connection.execute("UPDATE tombstones SET not_before = 0")
        connection.execute("UPDATE trash SET deleted_at = 1")


def collect_over_days(server: Server, runs: int, trash_days: int = 30) -> None:
    """Collect so many times, as if two days passed before each run: longer than leases, and than a short trash_days."""
    for run in range(1, runs + 1):
        collecting.collect(server, later=2 * run * SECONDS_PER_DAY, trash_days=trash_days)


def test_a_run_counts_no_links(server: Server, ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run reports how many keys wait; links, which take reading all of them, are counted for a dry run only."""
    ann.new_repo().push_blob(b"nobody needs me")
    monkeypatch.setattr(db.garbage, "waiting", None)
    assert collecting.collect(server, later=2 * SECONDS_PER_DAY, grace_seconds=3600).waiting == 1


def collect(server: Server, *more: str) -> str:
    """Run the collector as a command; its output."""
    return polly_server("gc", "--data", str(server.data), *more)


def test_a_blob_that_nothing_names_is_deleted(server: Server, ann: Person) -> None:
    """A blob that no manifest names is deleted when its lease has ended: first its row, then its bytes."""
    repo = ann.new_repo()
    digest = repo.push_blob(b"nobody needs me")
    made = image()
    repo.push(made, "v1")
    collect(server)
    assert repo.blob(digest).status == 200
    time_passes(server)
    assert "collect 1 blob of 15 B" in collect(server, "--dry-run")
    assert digest in server.stored()
    assert "Collected 1 blob of 15 B" in collect(server)
    assert repo.blob(digest).status == 404
    assert digest in server.stored()
    time_passes(server)
    assert "Deleted 1 blob " in collect(server)
    assert server.stored() == {sha256(blob) for blob in made.blobs}
    assert all(repo.blob(sha256(blob)).body == blob for blob in made.blobs)
    assert ann.repository(repo.name.partition("/")[2])["size"] == len(made.manifest) + sum(map(len, made.blobs))


def test_a_digest_that_comes_again(server: Server, ann: Person) -> None:
    """3: a blob that is pushed again before its old bytes are deleted has bytes of its own, which stay."""
    repo = ann.new_repo()
    data = b"again and again"
    repo.push_blob(data)
    time_passes(server)
    collect(server)
    repo.push_blob(data)
    assert collecting.collect(server, later=SECONDS_PER_HOUR).files == 1
    assert repo.blob(sha256(data)).body == data


def test_a_head_is_a_promise(server: Server, ann: Person) -> None:
    """2: an old blob that a HEAD or a mount has just found is kept."""
    repo, other = ann.new_repo(), ann.new_repo()
    first, second = repo.push_blob(b"found by HEAD"), repo.push_blob(b"mounted from")
    time_passes(server)
    assert repo.send("HEAD", repo.path(f"blobs/{first}")).status == 200
    both = ann.at(other.name, "pull,push", repo.name)
    query = f"blobs/uploads/?mount={second}&from={repo.name}"
    assert both.send("POST", both.path(query), b"").status == 201
    collect(server)
    assert repo.blob(first).status == other.blob(second).status == 200
    assert repo.blob(second).status == 404


def test_what_an_index_needs_stays(server: Server, ann: Person) -> None:
    """9: children, nested indexes and referrers keep their blobs, tagged or not."""
    repo = ann.new_repo()
    child, signature = image(), None
    repo.push(child)
    inner = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child.manifest, OCI_MANIFEST)]})
    assert repo.put(sha256(inner), inner, OCI_INDEX).status == 201
    outer = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(inner, OCI_INDEX)]})
    assert repo.put("v1", outer, OCI_INDEX).status == 201
    signature = image(subject=descriptor(outer, OCI_INDEX))
    repo.push(signature)
    collect_over_days(server, 3)
    for blob in (*child.blobs, *signature.blobs):
        assert repo.blob(sha256(blob)).body == blob
    assert repo.manifest(sha256(inner)).status == 200


def test_the_trash_is_purged(server: Server, ann: Person) -> None:
    """After trash_days a commit, a tag and a repository are purged, and their space is freed."""
    repo, other = ann.new_repo(), ann.new_repo()
    kept, gone = image(), image()
    repo.push(kept, "kept", "tag")
    repo.push(gone, "gone")
    other.push(image(), "v1")
    name = repo.name.partition("/")[2]
    for query in (f"{name}&commit={gone.digest}", f"{name}&tag=tag", other.name.partition("/")[2]):
        assert ann.api.send("DELETE", f"{ann.base}/repository?name={query}").status == 200
    collect(server)
    assert ann.api.get(f"{ann.base}/trash").json()["total"] == 3
    collect_over_days(server, 3, trash_days=1)
    assert ann.api.get(f"{ann.base}/trash").json()["total"] == 0
    purged = ann.api.get(f"{ann.base}/audit?event=purge").json()["items"]
    assert {(each["by"], each["subject"]) for each in purged} == {
        ("polly-server", f"{repo.name}@{gone.digest}"),
        ("polly-server", f"{repo.name}:tag"),
        ("polly-server", other.name),
    }
    assert len(purged) == 3
    assert server.stored() == {sha256(blob) for blob in kept.blobs}
    assert repo.manifest("kept").body == kept.manifest
    answer = ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "commit": gone.digest})
    assert (answer.status, answer.code) == (404, "NOT_IN_TRASH")


def test_the_trash_is_kept_as_the_server_says(tmp_path: Path) -> None:
    """A command that runs beside a server uses the server's trash_days."""
    with running_server(tmp_path, "--collect-seconds", "0", "--trash-days", "365") as server:
        ann = admin(server)
        repo = ann.new_repo()
        repo.push(image(), "v1")
        name = repo.name.partition("/")[2]
        assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}&tag=v1").status == 200
        with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
            connection.execute("UPDATE trash SET deleted_at = deleted_at - ?", (40 * 86_400 * 1_000_000,))
        collect(server)
        assert ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "tag": "v1"}).status == 200


def test_what_is_in_the_trash_keeps_its_bytes(server: Server, ann: Person) -> None:
    """The blobs of an image in the trash are kept after their leases have ended."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    assert repo.delete(f"manifests/{made.digest}").status == 202
    collecting.collect(server, later=2 * SECONDS_PER_DAY, trash_days=30)
    assert (
        ann.api.json(
            "POST", f"{ann.base}/trash", {"repository": repo.name.partition("/")[2], "commit": made.digest}
        ).status
        == 200
    )
    assert all(repo.blob(sha256(blob)).body == blob for blob in made.blobs)


def test_a_deleted_blob_gives_its_space_back(server: Server, ann: Person) -> None:
    """A deleted blob cannot be pulled at once, and later its row and its bytes go."""
    repo = ann.new_repo()
    digest = repo.push_blob(b"deleted by hand")
    assert repo.delete(f"blobs/{digest}").status == 202
    assert repo.blob(digest).status == 404
    grace = 600
    first = collecting.collect(server, grace_seconds=grace)
    assert (first.blobs, first.files) == (1, 0)
    assert collecting.collect(server, later=2 * grace, grace_seconds=grace).files == 1
    assert server.stored() == set()


def test_a_download_goes_on_while_its_blob_is_collected(server: Server, ann: Person) -> None:
    """28: a download goes on to its end while its blob is deleted."""
    repo = ann.new_repo()
    data = secrets.token_bytes(1 << 20) * 48
    digest = repo.push_blob(data)
    with connected(repo.port) as connection:
        head = f"GET {repo.path(f'blobs/{digest}')} HTTP/1.1\r\nHost: x\r\nAuthorization: {repo.authorization}\r\n\r\n"
        connection.sendall(head.encode())
        got = connection.recv(1000)
        collect_over_days(server, 2)
        assert repo.blob(digest).status == 404
        assert server.stored() == set()
        start = got.index(b"\r\n\r\n") + 4
        rest = bytearray(got[start:])
        while len(rest) < len(data) and (piece := connection.recv(1 << 20)):
            rest += piece
    assert bytes(rest) == data


def test_a_worker_that_stops_for_a_while(server: Server, ann: Person) -> None:
    """32: a worker that stood still for longer than any lease stores no manifest whose blobs are gone."""
    repo = ann.new_repo()
    made = image()
    place = repo.start()
    with each_worker(server) as workers:
        stopped = workers[0]
        for blob in made.blobs:
            path = repo.path(f"blobs/uploads/?digest={sha256(blob)}")
            assert stopped.send(repo, "POST", path, blob).status == 201
        assert stopped.send(repo, "PATCH", place, b"half of it").status == 202
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            collect_over_days(server, 2)
            assert server.stored() == set()
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        path = repo.path("manifests/v1")
        refused = stopped.send(repo, "PUT", path, made.manifest, OCI_MANIFEST)
        assert (refused.status, refused.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
        data = b"half of it" + made.blobs[0]
        assert stopped.send(repo, "PUT", f"{place}?digest={sha256(data)}", made.blobs[0]).status == 201
        assert repo.blob(sha256(data)).body == data
        repo.push(made, "v1")
        assert stopped.get(repo, path).body == made.manifest


def test_abandoned_uploads_go(server: Server, ann: Person) -> None:
    """14: uploads that nobody has continued for upload_seconds are deleted, and newer ones stay."""
    repo = ann.new_repo()
    old, new = repo.start(), repo.start()
    assert repo.send("PATCH", old, b"x" * 1000).status == 202
    file = next((server.data / "uploads").glob(f"*-{old.rpartition('/')[2]}"))
    os.utime(file, (time.time() - 10**6, time.time() - 10**6))
    assert "Abandoned uploads: 1 of 1.0 kB" in collect(server, "--dry-run")
    assert "1 abandoned upload.\nFreed 1.0 kB." in collect(server)
    assert repo.get(old).status == 404
    assert repo.get(new).status == 204


def test_one_user_leaves_no_folder_full_of_uploads(server: Server, ann: Person) -> None:
    """A user who begins more than a thousand uploads loses the oldest, and nobody else loses any."""
    repo, writer = ann.new_repo(), ann.add("writer")
    other, theirs = repo.start(), writer.at(repo.name, "pull,push")
    first = theirs.start()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:  # so one worker
        for _ in range(MAX_OPEN + TRIM_EVERY):
            connection.request(
                "POST", repo.path("blobs/uploads/"), headers={"Authorization": theirs.authorization or ""}
            )
            answer = connection.getresponse()
            answer.read()
    last = answer.headers["Location"]
    assert theirs.get(first).status == 404
    assert theirs.get(last).status == repo.get(other).status == 204


def test_keys_without_a_row_go(server: Server, ann: Person) -> None:
    """Bytes without a row are kept while they may belong to a push under way."""
    repo = ann.new_repo()
    repo.push(image(), "v1")
    part = next((server.data / "blobs" / "sha256").iterdir())
    orphan = part / f"{part.name}{'0' * 62}.{'1' * 16}"
    orphan.write_bytes(b"orphan")
    assert "Collected 0 files that no image uses" in collect(server)
    assert orphan.exists()


def test_only_one_collects(server: Server) -> None:
    """A second collector says that another is running, and does nothing."""
    import fcntl  # noqa: PLC0415 - for this test alone

    with (server.data / "collector.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AssertionError, match="Another collection is running"):
            collect(server)
