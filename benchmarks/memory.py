"""Rows of memory: many slow pulls at once, and one very large push."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from benchmarks import layer as layers
from benchmarks.client import Connection, head, target
from benchmarks.figures import Figure, Result
from benchmarks.layers import push
from benchmarks.processes import Meter
from benchmarks.registries import Polly, folder_for, running_polly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.layer import Layer
    from benchmarks.scale import Scale

SLOW: Final = "memory: slow pulls of a large layer"
PUSH: Final = "memory: one very large push"
ROWS: Final = (SLOW, PUSH)
LIMIT: Final = 150.0
MB: Final = 1e6
SIP: Final = 64 << 10
"""Bytes that a slow reader takes at a time."""


def measure(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure those rows that are wanted."""
    with running_polly(folder) as polly, folder_for("layer", folder) as place:
        polly.create("big")
        layer = layers.make(place, scale.layer)
        if SLOW in wanted:
            push(polly, "big", layer)
            yield _slow(scale, polly, layer)
        if PUSH in wanted:
            yield _push(scale, polly, layer)


def _slow(scale: Scale, polly: Polly, layer: Layer) -> Result:
    path = f"{polly.path('big')}/blobs/{layer.digest}"
    headers = polly.headers("big", "pull")
    with ExitStack() as stack, Meter(polly.process.pid) as meter:
        readers = [stack.enter_context(Connection(polly.port, window=SIP)) for _ in range(scale.readers)]
        for reader in readers:
            reader.socket.sendall(head("GET", path, headers, None))
        for reader in readers:
            reader.read_head().must(200)
        until = time.monotonic() + scale.reading
        while time.monotonic() < until:
            for reader in readers:
                if not reader.socket.recv(SIP):
                    raise ConnectionResetError
            time.sleep(0.05)
    figures = [Figure("peak of the largest process", "MB", [meter.largest / MB], LIMIT, at_least=False, kind="value")]
    return Result(
        SLOW, figures, remarks=[f"{scale.readers} readers of {layer.size / 1e9:.1f} GB, for {scale.reading} s."]
    )


def _push(scale: Scale, polly: Polly, layer: Layer) -> Result:
    path, headers = polly.path("big"), polly.headers("big")
    hasher = hashlib.sha256()
    times = scale.push // layer.size
    with layer.path.open("rb") as file:
        for _ in range(times):
            file.seek(0)
            while piece := file.read(layers.BLOCK):
                hasher.update(piece)
        with Meter(polly.process.pid) as meter, Connection(polly.port) as connection:
            place = target(connection.ask("POST", f"{path}/blobs/uploads/", headers, b"").must(202).headers["location"])
            size = times * layer.size
            sent = connection.send_file("PATCH", place, headers, file, size).must(202)
            place = target(sent.headers["location"])
            connection.ask("PUT", f"{place}?digest=sha256:{hasher.hexdigest()}", headers, b"").must(201)
    figures = [Figure("peak of the largest process", "MB", [meter.largest / MB], LIMIT, at_least=False, kind="value")]
    remark = f"{size / 1e9:.1f} GB in {meter.seconds:.0f} s, {size / meter.seconds / MB:.0f} MB/s."
    return Result(PUSH, figures, remarks=[remark])
