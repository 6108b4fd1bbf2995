"""security.md 7: keys that sign registry tokens are changed while clients push and pull, and old ones go."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import jwt
import pysqlite3.dbapi2 as sqlite
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from conftest import polly_server, running_server
from contract.wire_client import Repo, admin, bearer, image
from contract.workers import each_worker
from polly_dockers.db.keys import KEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Server

ROTATIONS = 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of two workers whose keys a test changes."""
    with running_server(tmp_path, "--workers", "2", "--collect-seconds", "0") as running:
        yield running


def kid(repo: Repo) -> str:
    """The key that signed the client's token."""
    return str(jwt.get_unverified_header(str(repo.authorization).removeprefix("Bearer "))["kid"])


class Crowd:
    """Clients that go on until they are told to stop; the first failure of any is kept."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def add(self, work: Callable[[], None]) -> None:
        """Let one more client do its work again and again."""

        def run() -> None:
            try:
                while not self.stopped.is_set():
                    work()
            except BaseException as error:  # noqa: BLE001 - told by the test
                self.failures.append(error)
                self.stopped.set()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def end(self) -> None:
        """Stop them all, and raise what went wrong."""
        self.stopped.set()
        for thread in self._threads:
            thread.join()
        for failure in self.failures:
            raise failure


def test_nobody_is_refused_by_rotations_under_load(server: Server) -> None:
    """7: through rotations, and a flood of made-up keys, clients sign in, push and pull without a refusal."""
    ann = admin(server)
    name = ann.new_repo().name
    first = ann.at(name)
    first.push(image("first"), "first")
    seen: dict[str, set[str]] = {"pusher": set(), "puller": set()}
    counts = {"pushed": 0, "pulled": 0, "forged": 0}

    def push() -> None:
        there = ann.at(name)
        there.push(image(), "pushed")
        seen["pusher"].add(kid(there))
        counts["pushed"] += 1

    def pull() -> None:
        there = ann.at(name)
        for client in (there, there, first):  # first's token is of the first key all the time
            answer = client.manifest("first")
            assert answer.status == 200, answer.body
            counts["pulled"] += 1
        seen["puller"].add(kid(there))

    def forge() -> None:
        made_up = jwt.encode({}, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": f"{time.time_ns()}"})
        assert bearer(server.port, made_up).get("/v2/").status == 401
        counts["forged"] += 1

    crowd = Crowd()
    try:
        for work in (push, pull, forge, forge):
            crowd.add(work)
        for _ in range(ROTATIONS):
            said = polly_server("key", "rotate", "--data", str(server.data))
            made = said.split()[1]
            while not crowd.stopped.is_set() and not all(made in kids for kids in seen.values()):
                crowd.stopped.wait(0.05)
    finally:
        crowd.end()
    assert all(len(kids) == ROTATIONS + 1 for kids in seen.values())
    assert first.manifest("first").status == 200
    assert min(counts.values()) > ROTATIONS


def test_a_retired_key_opens_nothing(server: Server) -> None:
    """7: a key is deleted once all that it signed has expired; a token of it that says otherwise is refused."""
    ann = admin(server)
    repo = ann.new_repo()
    repo.push(image("kept"), "v1")
    with contextlib.closing(sqlite.connect(server.data / "polly.db", timeout=30)) as connection:
        old, raw = connection.execute("SELECT kid, private_key FROM signing_keys").fetchone()
    claims = jwt.decode(str(repo.authorization).removeprefix("Bearer "), options={"verify_signature": False})
    endless = jwt.encode(
        claims | {"exp": claims["exp"] + 10 * KEPT},
        Ed25519PrivateKey.from_private_bytes(raw),
        algorithm="EdDSA",
        headers={"kid": old},
    )
    client = bearer(server.port, endless)
    with each_worker(server) as workers:
        rotate = ("key", "rotate", "--data", str(server.data))
        polly_server(*rotate)
        for worker in workers:
            assert worker.get(client, repo.path("manifests/v1")).status == 200
        with contextlib.closing(sqlite.connect(server.data / "polly.db", timeout=30)) as connection:
            connection.execute("UPDATE signing_keys SET created_at = created_at - ?", ((KEPT + 1) * 1_000_000,))
            connection.commit()
        polly_server(*rotate)
        for worker in workers:
            answer = worker.get(client, repo.path("manifests/v1"))
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert 'error="invalid_token"' in answer.header("WWW-Authenticate")
    assert ann.at(repo.name).manifest("v1").status == 200
