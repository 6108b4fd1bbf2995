"""17, 18: the power fails and what was not synced is lost; the disk is full, or returns EIO."""

from __future__ import annotations

import secrets
import threading
from concurrent import futures
from typing import TYPE_CHECKING

import pytest

from failures.client import Pusher, check, kill, mounted, scenario, shut_down, verify
from failures.serving import fill, serving
from failures.tracer import SLOW, watch
from support.wire_client import Person, image, sha256

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("turn", range(6))
def test_the_power_goes_away(tmp_path: Path, turn: int) -> None:
    """17: in the middle of a push, right after answers: everything that was answered is there and complete."""
    with mounted(tmp_path, 192) as (place, lose_power), serving(place) as server:
        ann = Person(server.port, server.org, *server.admin)
        repo = ann.new_repo()
        pusher = Pusher(repo)
        scenario(pusher)
        for number in range(turn):
            pusher.image(f"more-{number}", whole=bool(turn % 2))
        started = repo.start()
        assert repo.send("PATCH", started, secrets.token_bytes(100_000)).status == 202
        shut_down(place)
        kill(server)
        lose_power()
        server.start()
        verify(Person(server.port, server.org, *server.admin).at(repo.name), pusher.record)
        assert pusher.record.refusals == []
        kill(server)
        check(server)


def test_the_power_goes_away_while_many_push(tmp_path: Path) -> None:
    """17: uploads that share their syncs: everything that was answered is there and complete."""
    with mounted(tmp_path, 192) as (place, lose_power), serving(place, "--workers", "1") as server:
        ann = Person(server.port, server.org, *server.admin)
        pushers = [Pusher(ann.new_repo()) for _ in range(12)]
        answered = threading.Semaphore(0)

        def push(pusher: Pusher) -> None:
            while not pusher.record.refusals:
                made, before = image(), pusher.record.tags.get("v1", {""})
                if all(pusher.blob(blob, whole=False) for blob in made.blobs) and not pusher.manifest(made, "v1"):
                    pusher.record.tags["v1"] = before | {made.digest}  # the journal may have it
                answered.release()

        syncs = tmp_path / "syncs"
        with watch(server, "syncfs", syncs, SLOW), futures.ThreadPoolExecutor(len(pushers)) as threads:
            pushing = [threads.submit(push, pusher) for pusher in pushers]
            for _ in range(40):
                answered.acquire()
            while syncs.read_text().count("syncfs(") < 2:  # none while the machine has much to write
                answered.acquire()
            shut_down(place)
        for each in pushing:
            each.result()
        kill(server)
        lose_power()
        server.start()
        ann = Person(server.port, server.org, *server.admin)
        for pusher in pushers:
            verify(ann.at(pusher.repo.name), pusher.record)
            assert set(pusher.record.refusals) <= {503, 507}
        kill(server)
        check(server)


def test_a_full_disk(tmp_path: Path) -> None:
    """18: a push gets 507 and changes nothing, pulls go on, and pushes work again when there is room."""
    with mounted(tmp_path, 64) as (place, _), serving(place) as server:
        repo = Person(server.port, server.org, *server.admin).new_repo()
        pusher = Pusher(repo)
        assert pusher.image("v1")
        filler = place / "filler"
        fill(filler)
        big = secrets.token_bytes(2_000_000)
        for whole in (True, False):
            assert not pusher.blob(big, whole=whole)
        made = image()
        refused = [repo.put("v1", made.manifest).status for _ in range(3)]
        assert set(pusher.record.refusals) <= {507}
        assert all(status in {400, 507} for status in refused)
        verify(repo, pusher.record)
        filler.unlink()
        assert pusher.blob(big, whole=False)
        assert pusher.image("v2")
        verify(repo, pusher.record)
        assert repo.blob(sha256(big)).body == big
        kill(server)
        check(server)
