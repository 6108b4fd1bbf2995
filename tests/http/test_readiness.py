"""/readyz and /metrics tell the truth however often they are asked, and do not slow down other requests."""

from __future__ import annotations

import concurrent.futures
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

from support.server import free_port, running_server
from support.wire_client import Client, Person, image

if TYPE_CHECKING:
    from pathlib import Path

TRANSACTIONS = "polly_db_transaction_seconds_count "


def transactions(port: int) -> int:
    """How many transactions the processes of a server have committed."""
    lines = Client(port).get("/metrics").body.decode().splitlines()
    return int(float(next(line for line in lines if line.startswith(TRANSACTIONS)).rpartition(" ")[2]))


def test_a_flood_of_questions(tmp_path: Path) -> None:
    """43: however many clients ask /readyz, in whichever process, it writes at most one row a second."""
    with running_server(tmp_path, "--workers", "2") as server:
        Client(server.port).get("/readyz")
        before, began = transactions(server.port), time.monotonic()

        def ask(_: int) -> set[int]:
            client = Client(server.port)
            return {client.get("/readyz").status for _ in range(60)}

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set.union(*pool.map(ask, range(24))) == {200}
        written, seconds = transactions(server.port) - before, time.monotonic() - began
        assert written <= seconds + 2, (written, seconds)  # counts come within a second


def test_a_database_that_cannot_be_written(tmp_path: Path) -> None:
    """37: /readyz is red while writing does not work; pulls and /healthz go on; it is green again afterwards."""
    with running_server(tmp_path, "--workers", "2") as server:
        repo = Person(server.port, server.org, *server.admin).new_repo()
        made = image()
        repo.push(made, "v1")
        lock = os.open(server.data / "writer.lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        probe = Client(server.port)
        while probe.get("/readyz").status == 200:  # the result of the last check is valid for a second
            pass
        answers: list[int] = []
        askers = [threading.Thread(target=lambda: answers.append(probe.get("/readyz").status)) for _ in range(20)]
        for asker in askers:
            asker.start()
        assert repo.manifest("v1").body == made.manifest
        assert probe.get("/healthz").status == 200
        for asker in askers:
            asker.join()
        assert set(answers) == {503}
        os.close(lock)
        while probe.get("/readyz").status != 200:
            pass
        assert repo.put("v2", made.manifest).status == 201


def test_metrics_on_another_address_with_the_same_port(tmp_path: Path) -> None:
    """Two listeners on one port are told apart by address: each serves its own paths and nothing else."""
    port = free_port()
    with running_server(tmp_path, "--metrics-listen", f"127.0.0.2:{port}", "--listen", f"127.0.0.1:{port}") as server:
        metrics = Client(port, host="127.0.0.2")
        main = Client(port)
        assert main.get("/healthz").status == 200
        assert main.get("/v2/").status == 401
        assert main.get("/metrics").status == 404
        assert metrics.get("/metrics").status == 200
        assert metrics.get("/v2/").status == 404
        assert metrics.get("/healthz").status == 404
        repo = Person(port, server.org, *server.admin).new_repo()
        repo.push(image(), "v1")
        for client, status in ((main, 200), (metrics, 404)):
            answer = client.get(repo.path("manifests/v1"), authorization=str(repo.authorization))
            assert answer.status == status
        assert server.process is not None
