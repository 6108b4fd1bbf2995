"""Rows of small images: pushed and pulled by many clients at once, from processes of their own.

As a program, it is one of those processes:

    python -m benchmarks.small push|pull PORT CLIENTS < job.json

Says ``ready``, begins at the next line of stdin, and says how many images it has moved, when it began and ended, by the
clock that all processes share. It fails where an answer is not what it has to be.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Final

from benchmarks import crowd, images
from benchmarks.figures import Figure, Result, Sample, cost
from benchmarks.processes import together
from benchmarks.registries import Registry, running_polly, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.scale import Scale

PUSH_8: Final = "push small images, 8 clients"
PUSH_64: Final = "push small images, 64 clients"
PULL: Final = "pull small images, 8 clients"
ROWS: Final = (PUSH_8, PUSH_64, PULL)
PROCESSES: Final = 2
GOAL: Final = 5.0
CPU_GOAL: Final = 5.0
"""Milliseconds of CPU for an image."""


def measure(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure those rows that are wanted."""
    with running_polly(folder) as polly, running_registry(folder, scale.peer) as registry:
        servers = (polly, registry)
        for server in servers:
            server.create("small")
        for row, clients in ((PUSH_8, 8), (PUSH_64, 64)):
            if row in wanted:
                yield _row(row, scale, servers, "push", clients)
        if PULL in wanted:
            for server in servers:
                _run(server, "push", 8, images.seeds(scale.images))
            yield _row(PULL, scale, servers, "pull", 8)


def _row(row: str, scale: Scale, servers: tuple[Registry, Registry], work: str, clients: int) -> Result:
    taken: tuple[list[Sample], list[Sample]] = ([], [])
    for _ in range(scale.pairs):
        seeds = images.seeds(scale.images)
        for server, samples in zip(servers, taken, strict=True):
            if work == "pull":
                _run(server, "push", 8, seeds)
            os.sync()
            samples.append(_run(server, work, clients, seeds))
    mine, its = taken
    beside = servers[1].name
    cpu = ([s.cpu_each * 1e3 for s in mine], [s.cpu_each * 1e3 for s in its])
    figures = [
        Figure("images/s", "", [s.rate for s in mine], GOAL, other=[s.rate for s in its], beside=beside),
        Figure("CPU an image", "ms", cpu[0], 1.0, at_least=False, other=cpu[1], beside=beside),
        Figure("CPU an image", "ms", cpu[0], CPU_GOAL, at_least=False, kind="value"),
    ]
    return Result(row, figures, [cost(server.name, some, "image") for server, some in zip(servers, taken, strict=True)])


def _run(server: Registry, work: str, clients: int, seeds: list[str]) -> Sample:
    """Move the images of these seeds."""
    job = {"path": server.path("small"), "headers": server.headers("small")}
    command = [sys.executable, "-m", "benchmarks.small", work, str(server.port), str(clients // PROCESSES)]
    jobs = [json.dumps(job | {"seeds": seeds[part::PROCESSES]}) for part in range(PROCESSES)]
    meter = together(server.process.pid, [command] * PROCESSES, jobs)
    return Sample(len(seeds), meter.seconds, meter.cpu, meter.memory)


def main() -> None:
    """Be a process of clients."""
    work, port, clients = sys.argv[1:]
    job = json.loads(sys.stdin.readline())
    moved = [images.image_of(seed) for seed in job["seeds"]]
    move = images.send if work == "push" else images.fetch
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic()
    crowd.run(int(port), int(clients), (move(job["path"], job["headers"], image) for image in moved))
    print(start, time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
