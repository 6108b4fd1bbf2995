"""39: the server's clock jumps back or ahead by a day."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from failures.client import check, kill
from failures.clock import DAY, Clock
from failures.serving import serving
from support.server import BIN, Server, polly_server
from support.wire_client import Client, Person, bearer, image, sha256

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """The clock of the server."""
    return Clock(tmp_path / "clock")


def listed(person: Person, path: str) -> list[dict[str, Any]]:
    """All items of a list, by pages of one."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        sign = "&" if "?" in path else "?"
        page = person.api.get(f"{person.base}/{path}{sign}limit=1&cursor={cursor}").json()
        found += page["items"]
        cursor = page["next"]
    return found


def history(person: Person, repository: str) -> dict[str, list[Any]]:
    """Every list of the organisation that has an order."""
    return {
        "commits": [(item["commit"], item["status"]) for item in listed(person, f"commits?repository={repository}")],
        "oldest": [item["commit"] for item in listed(person, f"commits?repository={repository}&order=oldest")],
        "of the tag": [item["commit"] for item in listed(person, f"commits?repository={repository}&tag=v1")],
        "made": [item["name"] for item in listed(person, "repositories?sort=created")],
        "pushed": [item["name"] for item in listed(person, "repositories?sort=pushed")],
        "trash": [item["name"] for item in listed(person, "trash")],
        "tags": [item["tag"] for item in listed(person, "tags?repository=second")],
        "oldest tags": [item["tag"] for item in listed(person, "tags?repository=second&order=oldest")],
        "audit": [item["subject"] for item in listed(person, "audit?event=push")],
        "oldest audit": [item["subject"] for item in listed(person, "audit?event=push&order=oldest")],
    }


def last(person: Person, *command: str) -> dict[str, Any]:
    """What a command of ``polly`` lists with ``--latest 1``."""
    env = os.environ | {"POLLY_SERVER": f"http://127.0.0.1:{person.port}", "POLLY_TOKEN": person.secret}
    line = [str(BIN / "polly"), *command, "--latest", "1", "--output", "json"]
    [item] = json.loads(subprocess.run(line, env=env, check=True, capture_output=True).stdout)
    assert isinstance(item, dict)
    return item


def test_a_clock_that_was_set_back(tmp_path: Path, clock: Clock) -> None:
    """Every list, page by page, is in the order in which things happened, also after a rebuild."""
    with serving(tmp_path, clock=clock) as server:
        ann = Person(server.port, server.org, *server.admin)
        first, second = ann.create("first"), ann.create("second")
        made = [image() for _ in range(3)]
        ann.repo(first).push(made[0], "v1", "gone-1")
        ann.repo(second).push(image(), "v1")
        assert ann.repo(first).delete("manifests/gone-1").status == 202
        clock.set(-DAY)
        ann = Person(server.port, server.org, *server.admin)
        ann.repo(second).push(image(), "v2")
        third = ann.create("third")
        ann.repo(third).push(image(), "v1")
        ann.repo(first).push(made[1], "v1")
        ann.repo(first).push(made[2], "v1", "gone-2")
        assert ann.repo(first).delete("manifests/gone-2").status == 202
        found = history(ann, first)
        digests = [each.digest for each in made]
        assert [digest for digest, _ in found["commits"]] == [
            digests[2],
            digests[2],
            digests[1],
            digests[0],
            digests[0],
        ]
        assert [status == "active" for _, status in found["commits"]] == [False, True, False, False, False]
        assert found["oldest"] == [digests[0], digests[0], digests[1], digests[2], digests[2]]
        assert found["of the tag"] == [digests[2], digests[1], digests[0]]
        assert found["made"] == ["third", "second", "first"]
        assert found["pushed"] == ["first", "third", "second"]
        assert found["trash"] == ["gone-2", "gone-1"]
        assert found["tags"] == ["v2", "v1"]
        assert found["oldest tags"] == ["v1", "v2"]
        pushes = (
            "first:v1",
            "first:gone-1",
            "second:v1",
            "second:v2",
            "third:v1",
            "first:v1",
            "first:v1",
            "first:gone-2",
        )
        assert [item.partition("@")[0] for item in found["oldest audit"]] == [f"acme/{name}" for name in pushes]
        assert found["audit"] == found["oldest audit"][::-1]
        assert last(ann, "dockers", "commit-list", "--name", first, "--tag", "v1")["commit_hash"] == digests[2]
        assert last(ann, "dockers", "commit-list", "--name", second)["tag"] == "v2"
        assert last(ann, "dockers", "list")["name"] == third
        kill(server)
        server.lose_database()
        polly_server("rebuild", "--data", str(server.data))
        server.give_admin_back()
        server.start()
        assert history(Person(server.port, server.org, *server.admin), first) == found


def collections(server: Server, more: int) -> None:
    """Wait until so many more collections have ended in the server's processes."""

    def ended() -> int:
        lines = Client(server.port).get("/metrics").body.decode().splitlines()
        return int(float(next(line for line in lines if line.startswith("polly_gc_runs_total ")).rpartition(" ")[2]))

    wanted = ended() + more
    while ended() < wanted:
        pass


def test_a_clock_that_jumps_ahead(tmp_path: Path, clock: Clock) -> None:
    """An unfinished push, an upload and the trash are kept; real garbage is deleted later."""
    with serving(tmp_path, "--collect-seconds", "1", clock=clock) as server:
        ann = Person(server.port, server.org, *server.admin)
        repo, made, old = ann.new_repo(), image(), image()
        repo.push(old, "v1")
        assert repo.delete(f"manifests/{old.digest}").status == 202
        for blob in made.blobs:
            repo.push_blob(blob)
        upload = repo.start()
        assert repo.send("PATCH", upload, b"half").status == 202
        for days in (1, 40, 39, 400):
            clock.set(days * DAY)
            collections(server, 3)
        ann = Person(server.port, server.org, *server.admin)
        repo = ann.at(repo.name)
        assert repo.put("v2", made.manifest).status == 201
        assert repo.send("PUT", f"{upload}?digest={sha256(b'half and half')}", b" and half").status == 201
        assert [item["name"] for item in listed(ann, "trash")] == [old.digest]
        assert "the clock was set ahead" in server.log.read_text()
        kill(server)
        check(server)


def test_tokens_and_a_clock_that_jumps(tmp_path: Path, clock: Clock) -> None:
    """A registry token of another day is refused, and a new one is given at once; access tokens stay valid."""
    with serving(tmp_path, clock=clock) as server:
        ann = Person(server.port, server.org, *server.admin)
        secret = ann.access_token("registry", 30 * DAY)
        repo, made = ann.new_repo(), image()
        repo.push(made, "v1")
        for days in (0, 1, 0, -1, 0, 1):
            before = ann.at(repo.name, secret=secret)
            assert before.manifest("v1").status == 200
            clock.set(days * DAY + DAY // 2)
            for _ in range(8):  # whichever process answers
                refused = before.manifest("v1")
                assert refused.status == 401
                assert 'error="invalid_token"' in refused.header("WWW-Authenticate")
            assert ann.at(repo.name, secret=secret).manifest("v1").body == made.manifest
            assert ann.by_password.get("/token").status == 200
            clock.set(days * DAY)
            ann.by_password.get("/token")


def test_what_expired_by_a_wrong_clock_comes_back(tmp_path: Path, clock: Clock) -> None:
    """Tokens and invitations that expire because the clock is ahead are valid again when it is right."""
    with serving(tmp_path, clock=clock) as server:
        ann = Person(server.port, server.org, *server.admin)
        api = bearer(server.port, ann.access_token("full", DAY // 2))
        guest = Person(server.port, server.org, "guest@acme.example", secrets.token_urlsafe(12))
        code = ann.invite(guest.email, "reader")
        clock.set(8 * DAY)
        assert api.get("/api/v1/tokens").status == 401
        later = Person(server.port, server.org, *server.admin)  # a new token, and an invitation: those over could go
        later.invite("other@acme.example", "reader")
        assert guest.accept(code).status != 201
        clock.set(0)
        assert api.get("/api/v1/tokens").status == 200
        assert guest.accept(code).status < 300
