"""Rows of manifests: GET by tag, GET by digest and HEAD, on 16 connections of wrk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from benchmarks import images, wrk
from benchmarks.client import once
from benchmarks.figures import Figure, Result, cost
from benchmarks.registries import Registry, running_polly, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.figures import Sample
    from benchmarks.scale import Scale

BY_TAG: Final = "manifest GET by tag"
BY_DIGEST: Final = "manifest GET by digest"
HEAD: Final = "manifest HEAD"
ROWS: Final = (BY_TAG, BY_DIGEST, HEAD)

_CPU, _P99 = 0.05, 0.2
_GOALS: Final = {BY_TAG: 18.0, BY_DIGEST: 13.0, HEAD: 18.0}


def measure(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure those rows that are wanted."""
    image = images.image_of(images.seeds(1)[0])
    with running_polly(folder) as polly, running_registry(folder, scale.peer) as registry:
        for server in (polly, registry):
            server.create("app")
            images.push(server, "app", image)
        for row in ROWS:
            if row in wanted:
                yield _row(row, scale, folder, image, (polly, registry))


def _row(row: str, scale: Scale, folder: Path, image: images.Image, servers: tuple[Registry, Registry]) -> Result:
    samples: tuple[list[Sample], list[Sample]] = ([], [])
    for _ in range(scale.pairs):
        os.sync()
        for server, taken in zip(servers, samples, strict=True):
            taken.append(_sample(row, scale, folder, image, server))
    mine, its = samples
    beside = servers[1].name
    rates = ([s.rate for s in mine], [s.rate for s in its])
    figures = [Figure("requests/s", "", rates[0], _GOALS[row], other=rates[1], beside=beside)]
    if row == BY_TAG:
        each = ([s.cpu_each * 1e6 for s in mine], [s.cpu_each * 1e6 for s in its])
        figures.append(Figure("CPU a request", "µs", each[0], _CPU, at_least=False, other=each[1], beside=beside))
        late = ([s.p99 * 1e3 for s in mine], [s.p99 * 1e3 for s in its])
        figures.append(Figure("p99", "ms", late[0], _P99, at_least=False, other=late[1], beside=beside))
    costs = [cost(server.name, taken, "request") for server, taken in zip(servers, samples, strict=True)]
    return Result(row, figures, costs)


def _sample(row: str, scale: Scale, folder: Path, image: images.Image, server: Registry) -> Sample:
    reference = image.digest if row == BY_DIGEST else image.tag
    path = f"{server.path('app')}/manifests/{reference}"
    headers = server.headers("app", "pull") | {"Accept": images.MANIFEST}
    answer = once(server.port, "GET", path, headers).must(200)
    if answer.body != image.manifest:
        msg = f"{server.name} answers another manifest than was pushed"
        raise RuntimeError(msg)
    if row == HEAD:
        return wrk.run_heads(server, path, headers, scale.seconds, image.digest)
    return wrk.run(server, wrk.Load("GET", path, headers, scale.seconds, len(image.manifest)), folder)
