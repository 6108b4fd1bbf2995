"""Rows of signing in: the token endpoint, and what a password's check costs the others."""

from __future__ import annotations

import statistics
import threading
from typing import TYPE_CHECKING, Final

from benchmarks import wrk
from benchmarks.client import Connection
from benchmarks.figures import Figure, Result, cost
from benchmarks.lists import latencies
from benchmarks.registries import Polly, running_polly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.scale import Scale

TOKENS: Final = "token endpoint, by access token"
OTHERS: Final = "others while passwords are checked"
ROWS: Final = (TOKENS, OTHERS)


def measure(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure those rows that are wanted."""
    with running_polly(folder) as polly:
        polly.create("app")
        if TOKENS in wanted:
            load = wrk.Load("GET", polly.scope("app"), polly.basic(polly.registry_token), scale.seconds, 500)
            taken = [wrk.run(polly, load, folder) for _ in range(scale.pairs)]
            figures = [Figure("tokens/s", "", [sample.rate for sample in taken], 2000.0, kind="value")]
            yield Result(TOKENS, figures, [cost("Polly", taken, "token")])
        if OTHERS in wanted:
            yield _password(scale, polly)


def _password(scale: Scale, polly: Polly) -> Result:
    over = threading.Event()

    def sign_in() -> None:
        with Connection(polly.port) as connection:
            while not over.is_set():
                connection.ask("GET", polly.scope("app"), polly.basic(polly.password)).must(200)

    with Connection(polly.port) as connection:

        def ask(_number: int) -> None:
            connection.ask("GET", "/healthz").must(200)

        alone = latencies(ask, scale.requests)
        thread = threading.Thread(target=sign_in)
        thread.start()
        try:
            beside = latencies(ask, scale.requests)
        finally:
            over.set()
            thread.join()
    figures = [
        Figure("p50 of GET /healthz", "ms", [statistics.median(beside)], 5.0, at_least=False, kind="value"),
        Figure(
            "p99 of GET /healthz", "ms", [sorted(beside)[len(beside) * 99 // 100]], 25.0, at_least=False, kind="value"
        ),
    ]
    idle = statistics.median(alone)
    remark = f"While nobody signs in, p50 is {idle:.2f} ms. Checking a password takes a core for tens of ms."
    return Result(OTHERS, figures, remarks=[remark])
