"""Rows of large layers: pushed, pulled by one stream and by eight, and by TLS."""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from benchmarks import layer as layers
from benchmarks.client import Connection, target
from benchmarks.figures import Figure, Result, Sample, cost
from benchmarks.processes import Meter, Process, together
from benchmarks.registries import (
    Registry,
    folder_for,
    free_port,
    listens,
    make_certificate,
    running_nginx,
    running_polly,
    running_registry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.layer import Layer
    from benchmarks.scale import Scale

PUSH: Final = "push a large layer"
PULL: Final = "pull it, 1 stream"
STREAMS: Final = "pull it, 8 streams"
TLS: Final = "pull it by TLS"
ROWS: Final = (PUSH, PULL, STREAMS, TLS)
MB: Final = 1e6


def measure(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure those rows that are wanted."""
    if PUSH in wanted:
        yield _push(scale, folder)
    if wanted & {PULL, STREAMS}:
        yield from _pull(scale, folder, wanted)
    if TLS in wanted:
        yield _tls(scale, folder)


def push(registry: Registry, repository: str, layer: Layer) -> None:
    """POST, PATCH and PUT, until 201."""
    path, headers = registry.path(repository), registry.headers(repository)
    with Connection(registry.port, tls=registry.tls) as connection, layer.path.open("rb") as file:
        started = connection.ask("POST", f"{path}/blobs/uploads/", headers, b"").must(202)
        place = target(started.headers["location"])
        kind = {"Content-Type": "application/octet-stream"}
        sent = connection.send_file("PATCH", place, headers | kind, file, layer.size).must(202)
        place = target(sent.headers["location"])
        joint = "&" if "?" in place else "?"
        connection.ask("PUT", f"{place}{joint}digest={layer.digest}", headers, b"").must(201)


def _send_to_limit(port: int, layer: Layer) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client, layer.path.open("rb") as file:
        client.sendall(layer.size.to_bytes(8, "big"))
        client.sendfile(file)
        answer = client.recv(32, socket.MSG_WAITALL)
    if answer.hex() != layer.digest[7:]:
        msg = "the limit program has received other bytes"
        raise RuntimeError(msg)


def timed(pid: int, size: int, work: Callable[[], None]) -> Sample:
    """One run of some work of a server."""
    os.sync()
    with Meter(pid) as meter:
        work()
    return Sample(size, meter.seconds, meter.cpu, meter.memory)


def _push(scale: Scale, folder: Path) -> Result:
    mine: list[Sample] = []
    its: list[Sample] = []
    least: list[Sample] = []
    with (
        running_polly(folder) as polly,
        running_registry(folder, scale.peer) as registry,
        folder_for("limit", folder) as own,
    ):
        polly.create("big")
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.limit", str(port), str(own)]
        limit = Process(command, own / "log", lambda: listens(port))
        try:
            for _ in range(scale.pairs):
                with folder_for("layer", folder) as place:
                    layer = layers.make(place, scale.layer)
                    mine.append(timed(polly.process.pid, layer.size, functools.partial(push, polly, "big", layer)))
                    its.append(timed(registry.process.pid, layer.size, functools.partial(push, registry, "big", layer)))
                    least.append(timed(limit.pid, layer.size, functools.partial(_send_to_limit, port, layer)))
                for server in (polly, registry):
                    server.make_room(layer.digest)
        finally:
            limit.stop()
    rates = [sample.rate / MB for sample in mine]
    figures = [
        Figure("bytes/s", "MB/s", rates, 3.0, other=[sample.rate / MB for sample in its], beside=registry.name),
        cpu_figure(mine, its, 0.4, registry.name),
        Figure("bytes/s", "MB/s", rates, 0.8, other=[sample.rate / MB for sample in least], beside="the limit"),
    ]
    costs = [
        cost(name, taken, "MB", MB) for name, taken in (("Polly", mine), (registry.name, its), ("the limit", least))
    ]
    return Result(PUSH, figures, costs)


def cpu_figure(mine: list[Sample], its: list[Sample], goal: float, beside: str = "docker-registry") -> Figure:
    """CPU seconds for a gigabyte, which have to be few."""
    each = ([sample.cpu_each * 1e9 for sample in mine], [sample.cpu_each * 1e9 for sample in its])
    return Figure("CPU a gigabyte", "s", each[0], goal, at_least=False, other=each[1], beside=beside)


def pull(registry: Registry, path: str, layer: Layer, streams: int, headers: dict[str, str]) -> Sample:
    """Pull the layer by several processes at once, which all begin together and check what comes."""
    kind = "tls" if registry.tls else "plain"
    command = [
        sys.executable,
        "-m",
        "benchmarks.reader",
        str(registry.port),
        path,
        str(layer.size),
        str(layer.block),
        kind,
    ]
    meter = together(registry.process.pid, [command] * streams, [json.dumps(headers)] * streams)
    return Sample(layer.size * streams, meter.seconds, meter.cpu, meter.memory)


def _pull(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    with (
        running_polly(folder) as polly,
        running_registry(folder, scale.peer) as registry,
        folder_for("layer", folder) as place,
    ):
        layer = layers.make(place, scale.layer)
        polly.create("big")
        for server in (polly, registry):
            push(server, "big", layer)
        with running_nginx(folder, place) as nginx:
            for row, streams, goals in ((PULL, 1, (1.9, 0.5)), (STREAMS, scale.streams, (1.7, 0.35))):
                if row in wanted:
                    yield _pull_row(row, scale, layer, streams, goals, (polly, registry, nginx))


def _pull_row(
    row: str, scale: Scale, layer: Layer, streams: int, goals: tuple[float, float], servers: tuple[Registry, ...]
) -> Result:
    taken: tuple[list[Sample], ...] = ([], [], [])
    for _ in range(scale.pairs):
        for server, samples in zip(servers, taken, strict=True):
            path = "/layer" if server is servers[2] else f"{server.path('big')}/blobs/{layer.digest}"
            samples.append(pull(server, path, layer, streams, server.headers("big", "pull")))
    mine, its, _ = taken
    rates = [[sample.rate / MB for sample in samples] for samples in taken]
    figures = [
        Figure("bytes/s", "MB/s", rates[0], goals[0], other=rates[1], beside=servers[1].name),
        cpu_figure(mine, its, goals[1], servers[1].name),
        Figure("bytes/s", "MB/s", rates[0], 1.0, other=rates[2], beside="nginx"),
    ]
    names = ("Polly", servers[1].name, "nginx")
    return Result(row, figures, [cost(name, some, "MB", MB) for name, some in zip(names, taken, strict=True)])


def _tls(scale: Scale, folder: Path) -> Result:
    with (
        folder_for("tls", folder) as place,
        running_polly(folder, certificate := make_certificate(place)) as polly,
        running_polly(folder) as plain,
        running_nginx(folder, place, certificate, behind=plain.port) as nginx,
    ):
        layer = layers.make(place, scale.layer)
        for server in (polly, plain):
            server.create("big")
            push(server, "big", layer)
        path = f"{polly.path('big')}/blobs/{layer.digest}"
        taken: tuple[list[Sample], ...] = ([], [], [])
        for _ in range(scale.pairs):
            taken[0].append(pull(polly, path, layer, 1, polly.headers("big", "pull")))
            taken[1].append(pull(nginx, "/layer", layer, 1, {}))
            taken[2].append(pull(nginx, path, layer, 1, plain.headers("big", "pull")))
    mine, its, proxied = taken
    rates = [[sample.rate / MB for sample in samples] for samples in taken]
    figures = [
        Figure("bytes/s", "MB/s", rates[0], 1.0, other=rates[1], beside="nginx"),
        cpu_figure(mine, its, 1.0, "nginx"),
        Figure("bytes/s", "MB/s", rates[0], 1.0, other=rates[2], beside="Polly behind nginx"),
    ]
    names = ("Polly", "nginx", "nginx before Polly, without Polly's part")
    return Result(
        TLS, figures, [cost(name, some, "MB", MB) for name, some in zip(names, (mine, its, proxied), strict=True)]
    )
