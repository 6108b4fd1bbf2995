"""Rows of the commands: how long a person waits for them to begin."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import cli_startup
from benchmarks.figures import Figure, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scale import Scale

ROWS: Final = tuple(cli_startup.CASES)


def measure(scale: Scale, _folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure those rows that are wanted."""
    with tempfile.TemporaryDirectory() as home:
        env = cli_startup.environment(Path(home))
        for row in ROWS:
            if row in wanted:
                arguments, stdin, limit = cli_startup.CASES[row]
                command = [sys.executable, "-m", *arguments]
                times = [cli_startup.milliseconds(command, stdin, env) for _ in range(3 * scale.pairs)]
                yield Result(row, [Figure("time", "ms", times, float(limit), at_least=False, kind="value")])
