"""security.md 7: signing keys are replaced while clients push and pull, and old ones are deleted."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import jwt
import pysqlite3.dbapi2 as sqlite
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from polly_dockers.db.keys import KEPT
from polly_dockers.server.cli import keys
from support.server import polly_server, running_server
from support.use_cases import patch_clock
from support.wire_client import Repo, admin, basic, bearer, image
from support.workers import Worker, each_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.server import Server

ROTATIONS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers whose keys the tests change."""
    with running_server(tmp_path_factory.mktemp("keys"), "--workers", "2", "--collect-seconds", "0") as running:
        yield running


def kid(repo: Repo) -> str:
    """Return the id of the key that signed the client's token."""
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
    """7: clients sign in, push and pull without a refusal, through rotations and a flood of made-up keys.

    One worker signs all tokens, so the other learns of a new key only from the tokens that it receives.
    """
    ann = admin(server)
    name = ann.new_repo().name
    first = ann.at(name)
    first.push(image("first"), "first")
    secret = basic(server.port, "POLLY", ann.secret)
    kids: dict[str, set[str]] = {"pusher": set(), "puller": set()}
    forged = []

    def signed_in(worker: Worker) -> Repo:
        answer = worker.get(secret, f"/token?scope=repository:{name}:pull,push")
        assert answer.status == 200, answer.body
        return Repo(server.port, f"Bearer {answer.json()['token']}", name)

    with each_worker(server) as pushing, each_worker(server) as pulling:

        def push() -> None:
            there = signed_in(pushing[0])
            there.push(image(), "pushed")
            kids["pusher"].add(kid(there))

        def pull() -> None:
            there = signed_in(pulling[0])
            for client in (there, first):  # whose token is of the first key all the time
                for worker in pulling[::-1]:
                    answer = worker.get(client, there.path("manifests/first"))
                    assert answer.status == 200, answer.body
            kids["puller"].add(kid(there))

        def forge() -> None:
            header = {"kid": f"{time.time_ns()}"}
            made_up = jwt.encode({}, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers=header)
            forged.append(bearer(server.port, made_up).get("/v2/").status)

        crowd = Crowd()
        try:
            for work in (push, pull, forge, forge):
                crowd.add(work)
            for _ in range(ROTATIONS):
                made = polly_server("key", "rotate", "--data", str(server.data)).split()[1]
                while not crowd.stopped.is_set() and not all(made in seen for seen in kids.values()):
                    crowd.stopped.wait(0.05)
        finally:
            crowd.end()
    assert [len(seen) for seen in kids.values()] == [ROTATIONS + 1] * 2
    assert set(forged) == {401}


@pytest.fixture
def lone_server(tmp_path: Path) -> Iterator[Server]:
    """A server for one test, which makes a key by a clock that is ahead."""
    with running_server(tmp_path, "--workers", "2", "--collect-seconds", "0") as running:
        yield running


def test_a_retired_key_opens_nothing(lone_server: Server) -> None:
    """7: a key is deleted once all its tokens have expired; a token with a later expiry is refused."""
    server = lone_server
    ann = admin(server)
    repo = ann.new_repo()
    repo.push(image("kept"), "v1")
    with contextlib.closing(sqlite.connect(server.data / "polly.db", timeout=30)) as connection:
        (raw,) = connection.execute("SELECT private_key FROM signing_keys WHERE kid = ?", (kid(repo),)).fetchone()
    claims = jwt.decode(str(repo.authorization).removeprefix("Bearer "), options={"verify_signature": False})
    endless = jwt.encode(
        claims | {"exp": claims["exp"] + 10 * KEPT},
        Ed25519PrivateKey.from_private_bytes(raw),
        algorithm="EdDSA",
        headers={"kid": kid(repo)},
    )
    client = bearer(server.port, endless)
    with each_worker(server) as workers:
        made = polly_server("key", "rotate", "--data", str(server.data)).split()[1]
        while kid(ann.at(repo.name)) != made:
            pass  # a key signs only when every worker can know it
        for worker in workers:
            assert worker.get(client, repo.path("manifests/v1")).status == 200
        with pytest.MonkeyPatch.context() as patched:
            patch_clock(patched).advance(seconds=KEPT + 1)
            keys.run_rotate(server.data)
        for worker in workers:
            answer = worker.get(client, repo.path("manifests/v1"))
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert 'error="invalid_token"' in answer.header("WWW-Authenticate")
    assert ann.at(repo.name).manifest("v1").status == 200
