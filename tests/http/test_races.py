"""Many clients at once on one thing: a digest, a tag, a docker repository (6, 7, 8)."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from support.wire_client import Person, Repo, image, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.server import Server

CLIENTS = 20


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run all of them at the same time; return what each returned."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
        gate.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def test_one_digest_from_many_clients(server: Server, ann: Person) -> None:
    """6: twenty clients push a digest to four repositories; each has it, byte for byte, and the disk has it once."""
    repos = [ann.new_repo() for _ in range(4)]
    data = secrets.token_bytes(1 << 20)
    digest = sha256(data)

    def whole(repo: Repo) -> int:
        return repo.send("POST", repo.path(f"blobs/uploads/?digest={digest}"), data).status

    def parts(repo: Repo) -> int:
        place = repo.send("POST", repo.path("blobs/uploads/"), b"").header("Location")
        place = repo.send("PATCH", place, data).header("Location")
        return repo.send("PUT", f"{place}?digest={digest}", b"").status

    works = [lambda at=at: (whole, parts)[at % 2](repos[at % 4]) for at in range(CLIENTS)]
    assert at_once(*works) == [201] * CLIENTS
    for repo in repos:
        assert repo.blob(digest).body == data
    assert len(list((server.data / "blobs").glob(f"*/*/{digest.partition(':')[2]}*"))) == 1


def test_one_tag_from_many_clients(ann: Person) -> None:
    """7: every reader sees the pushes in the order of the commits; each overwritten commit can be pulled."""
    repo = ann.new_repo()
    made = [image() for _ in range(CLIENTS)]
    for each in made:
        for blob in each.blobs:
            repo.push_blob(blob)
    over = threading.Event()

    def push(at: int) -> int:
        return repo.put("v1", made[at].manifest).status

    def read() -> list[str]:
        seen = [""]
        while not over.is_set() or not seen[-1]:
            answer = repo.manifest("v1")
            digest = answer.header("Docker-Content-Digest") if answer.status == 200 else ""
            if digest != seen[-1]:
                seen.append(digest)
        return seen[1:]

    with ThreadPoolExecutor(4) as readers:
        reading = [readers.submit(read) for _ in range(4)]
        statuses = at_once(*(lambda at=at: push(at) for at in range(CLIENTS)))
        over.set()
        views = [each.result() for each in reading]
    assert statuses == [201] * CLIENTS
    commits = ann.commits(repo.name.partition("/")[2], limit=1000)["items"]
    order = [each["commit"] for each in reversed(commits)]
    assert sorted(order) == sorted(each.digest for each in made)
    assert [each["status"] for each in commits] == ["active"] + ["inactive"] * (CLIENTS - 1)
    for seen in views:
        places = [order.index(digest) for digest in seen]
        assert places == sorted(set(places))
    assert repo.manifest("v1").header("Docker-Content-Digest") == order[-1]
    for each in made:
        assert repo.manifest(each.digest).body == each.manifest


def test_a_tag_is_deleted_while_it_is_pushed(ann: Person) -> None:
    """8: the tag has its newest commit, or does not exist; every push is a commit that can be pulled."""
    repo = ann.new_repo()
    made = [image() for _ in range(CLIENTS)]
    for each in made:
        for blob in each.blobs:
            repo.push_blob(blob)

    def push(at: int) -> int:
        return repo.put("v1", made[at].manifest).status

    def delete() -> int:
        return repo.delete("manifests/v1").status

    statuses = at_once(*(lambda at=at: push(at) for at in range(CLIENTS)), *([delete] * CLIENTS))
    assert statuses[:CLIENTS] == [201] * CLIENTS
    assert set(statuses[CLIENTS:]) <= {202, 404}
    commits = ann.commits(repo.name.partition("/")[2], limit=1000)["items"]
    assert len(commits) == CLIENTS
    tag = repo.manifest("v1")
    active = [each["commit"] for each in commits if each["status"] == "active"]
    assert active == ([commits[0]["commit"]] if tag.status == 200 else [])
    assert tag.status == 404 or tag.header("Docker-Content-Digest") == active[0]
    for each in made:
        assert repo.manifest(each.digest).body == each.manifest


def test_a_repository_is_deleted_while_it_is_pushed_to(ann: Person) -> None:
    """8: a push is stored and comes back with the repository, or it is refused; there is nothing between.

    A push may be a 401: a token names the repository by its id, and is worth nothing once that one is deleted.
    """
    repo = ann.new_repo()
    name = repo.name.partition("/")[2]
    made = [image() for _ in range(CLIENTS)]

    def push(at: int) -> int:
        for blob in made[at].blobs:
            status = repo.send("POST", repo.path(f"blobs/uploads/?digest={sha256(blob)}"), blob).status
            if status != 201:
                return status
        return repo.put(f"v{at}", made[at].manifest).status

    def delete() -> int:
        while not ann.commits(name)["items"]:
            pass
        return ann.api.send("DELETE", f"{ann.base}/repository?name={name}").status

    *statuses, deleted = at_once(*(lambda at=at: push(at) for at in range(CLIENTS)), delete)
    assert deleted == 200
    assert set(statuses) <= {201, 401, 404}
    assert repo.manifest("v0").status == 401
    assert ann.at(repo.name).manifest("v0").status == 404
    assert ann.api.json("POST", f"{ann.base}/trash", {"repository": name}).status == 200
    stored = {at for at, status in enumerate(statuses) if status == 201}
    assert stored
    for at, each in enumerate(made):
        assert repo.manifest(f"v{at}").status == (200 if at in stored else 404)
        if at in stored:
            assert repo.manifest(f"v{at}").body == each.manifest
            assert all(repo.blob(sha256(blob)).body == blob for blob in each.blobs)
    assert {each["commit"] for each in ann.commits(name)["items"]} == {made[at].digest for at in stored}
