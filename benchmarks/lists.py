"""Rows of what a registry lists: tags, commits, repositories; and how fast tags are set, and a large server starts."""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from benchmarks import images, rows
from benchmarks.client import Connection
from benchmarks.figures import Figure, Result, Sample, cost
from benchmarks.processes import Meter
from benchmarks.registries import (
    ORG,
    Polly,
    Registry,
    folder_for,
    init_polly,
    running_polly,
    running_registry,
    serving_polly,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.scale import Scale

PUT: Final = "put one manifest under many tags"
PAGE: Final = "tags/list, a page of 100"
COMMITS: Final = "commit-list, a page of 20"
LIST: Final = "list of repositories, a page of 20"
START: Final = "start to first 200, a large database"
ROWS: Final = (PUT, PAGE, COMMITS, LIST, START)

PEER: Final = 10
"""docker-registry puts one tag for so many of Polly's; its rate does not depend on how many there are."""
CLIENTS: Final = 8
TURN: Final = 1000


def measure(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure those rows that are wanted."""
    if wanted & {PUT, PAGE}:
        yield from _tags(scale, folder, wanted)
    if wanted & {COMMITS, LIST, START}:
        yield from _grown(scale, folder, wanted)


def _tags(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    image = images.image_of(images.seeds(1)[0])
    with running_polly(folder) as polly, running_registry(folder) as registry:
        taken: tuple[list[Sample], list[Sample]] = ([], [])
        thousands: list[Sample] = []
        for server in (polly, registry):
            server.create("tagged")
            images.push(server, "tagged", image)
        each = scale.tags // scale.pairs
        for pair in range(scale.pairs):
            last = pair == scale.pairs - 1
            parts = [TURN, each - TURN] if pair == 0 else [each - TURN, TURN] if last else [each]
            done, samples = pair * each, []
            for count in parts:
                samples.append(_put(polly, image, done, count))
                if count == TURN:
                    thousands.append(samples[-1])
                done += count
            taken[0].append(_joined(samples))
            taken[1].append(_put(registry, image, pair * each // PEER, each // PEER))
        if PUT in wanted:
            mine, its = taken
            first, latest = thousands[0], thousands[-1]
            figures = [
                Figure("manifests/s", "", [s.rate for s in mine], 4.0, other=[s.rate for s in its]),
                Figure(
                    f"the last {TURN:,} compared with the first",
                    "of its rate",
                    [latest.rate / first.rate],
                    0.9,
                    kind="value",
                ),
            ]
            costs = [cost("Polly", mine, "manifest"), cost("docker-registry", its, "manifest")]
            yield Result(PUT, figures, costs, [f"{scale.tags:,} tags for Polly; one of {PEER} for docker-registry."])
        if PAGE in wanted:
            yield _tag_pages(scale, polly)


def _joined(samples: list[Sample]) -> Sample:
    return Sample(
        sum(s.done for s in samples),
        sum(s.seconds for s in samples),
        sum(s.cpu for s in samples),
        max(s.memory for s in samples),
    )


def name_of(number: int) -> str:
    """Tags in the order of their numbers."""
    return f"t{number:07}"


def _put(server: Registry, image: images.Image, first: int, count: int) -> Sample:
    """Put the manifest under so many new tags, from a process of several clients."""
    job = {
        "path": f"{server.path('tagged')}/manifests/",
        "headers": server.headers("tagged") | {"Content-Type": images.MANIFEST},
        "body": image.manifest.decode(),
        "tags": [name_of(number) for number in range(first, first + count)],
    }
    command = [sys.executable, "-m", "benchmarks.putter", str(server.port), str(CLIENTS)]
    with Meter(server.process.pid) as meter:
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=True)
    return Sample(count, float(done.stdout), meter.cpu, meter.memory)


def latencies(ask: Callable[[int], None], count: int) -> list[float]:
    """Milliseconds that each of so many requests took, one after the other."""
    times = []
    for number in range(count):
        start = time.perf_counter()
        ask(number)
        times.append((time.perf_counter() - start) * 1000)
    return times


def _latency(what: str, times: list[float], goal: float) -> Figure:
    return Figure(f"p50, {what}", "ms", [statistics.median(times)], goal, at_least=False, kind="value")


def _tag_pages(scale: Scale, polly: Polly) -> Result:
    figures = []
    with Connection(polly.port) as connection:
        headers, path = polly.headers("tagged", "pull"), f"{polly.path('tagged')}/tags/list?n=100&last="
        for what, first in (("at the start", 0), ("in the middle", scale.tags // 2), ("at the end", scale.tags - 102)):

            def ask(_number: int, first: int = first) -> None:
                answer = connection.ask("GET", path + name_of(first), headers).must(200)
                if answer.json()["tags"] != [name_of(number) for number in range(first + 1, first + 101)]:
                    msg = f"a page of tags after {first} is not what it has to be"
                    raise RuntimeError(msg)

            figures.append(_latency(what, latencies(ask, scale.requests), 1.5))
    return Result(PAGE, figures, remarks=[f"Of {scale.tags:,} tags."])


def cursor(*parts: int) -> str:
    """What an answer of /api/v1 calls next."""
    return base64.urlsafe_b64encode("\0".join(map(str, parts)).encode()).decode().rstrip("=")


def _grown(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    with folder_for("grown", folder) as place:
        password = init_polly(place / "data")
        rows.fill(place / "data/polly.db", scale)
        starts = []
        for _ in range(scale.pairs):
            begun = time.perf_counter()
            with serving_polly(place, password) as polly:
                starts.append(polly.answered - begun)
        if START in wanted:
            figures = [Figure("until the first 200", "s", starts, 1.0, at_least=False, kind="value")]
            yield Result(START, figures, remarks=[f"With {scale.commits:,} commits."])
        with serving_polly(place, password) as polly, Connection(polly.port) as connection:
            base = f"/api/v1/organisations/{ORG}"

            def page(query: str) -> Callable[[int], None]:
                def ask(_number: int) -> None:
                    answer: Any = connection.ask("GET", f"{base}/{query}", polly.api).must(200).json()
                    items = answer.get("commits") or answer.get("repositories") or answer.get("items")
                    if len(items) != 20:  # noqa: PLR2004 - the page that was asked for
                        msg = f"{query} gives {len(items)} items"
                        raise RuntimeError(msg)

                return ask

            half = cursor(rows.START + scale.commits // 2 * 1000, scale.commits // 2)
            late = cursor(rows.START + 30_000 * 1000, 30_000)
            if COMMITS in wanted:
                query = f"commits?repository={quote(rows.COMMITS)}&limit=20"
                places = (("first page", ""), ("in the middle", f"&cursor={half}"), ("near the end", f"&cursor={late}"))
                figures = [
                    _latency(f"{what}{also}", latencies(page(f"{query}{tag}{after}"), scale.requests), 5.0)
                    for tag, also in (("", ""), (f"&tag={rows.LATEST}", ", --tag"))
                    for what, after in places
                ]
                yield Result(COMMITS, figures, remarks=[f"Of {scale.commits:,} commits in one repository."])
            if LIST in wanted:
                after = cursor(rows.START + scale.repositories // 2, 10**9)
                figures = [
                    _latency(what, latencies(page(f"repositories?limit=20{more}"), scale.requests), 10.0)
                    for what, more in (("first page", ""), ("in the middle", f"&cursor={after}"))
                ]
                yield Result(LIST, figures, remarks=[f"Of {scale.repositories:,} repositories with sizes."])
