"""Every row of the benchmark, Polly beside its peers on one machine: run by scripts/bench.

scripts/bench                    everything, written to docs/benchmarks.md
scripts/bench --quick            less of everything, in under two minutes, printed only
scripts/bench --row 'docker push' --row 'docker pull'
scripts/bench --peer zot=http://127.0.0.1:5001    beside a registry that runs, for the rows that take one
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from benchmarks import commands, engine, layers, lists, manifests, memory, report, sign_in, small
from benchmarks.scale import FULL, QUICK

if TYPE_CHECKING:
    from benchmarks.figures import Result

MODULES: Final = (manifests, layers, small, engine, lists, sign_in, memory, commands)
ROWS: Final = [row for module in MODULES for row in module.ROWS]
PAGE: Final = Path("docs/benchmarks.md")


def _peer(text: str) -> tuple[str, int]:
    """Name and port of NAME=URL."""
    name, _, url = text.partition("=")
    found = urlsplit(url)
    if not name or found.scheme != "http" or found.hostname not in {"127.0.0.1", "localhost"} or not found.port:
        msg = f"{text!r} is not NAME=http://127.0.0.1:PORT"
        raise argparse.ArgumentTypeError(msg)
    return name, found.port


def main() -> int:
    """Measure, print, and write the page after a full run of all rows."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure Polly beside docker-registry and nginx."
    )
    parser.add_argument(
        "--quick", action="store_true", help="less of everything, in under two minutes; nothing is written"
    )
    parser.add_argument(
        "--row", action="append", choices=ROWS, help="only this row; may be given again; nothing is written"
    )
    parser.add_argument("--pairs", type=int, help="how often Polly and the peer take turns (5; quick: 2)")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="a folder on the disk to measure"
    )
    parser.add_argument(
        "--peer",
        metavar="NAME=URL",
        type=_peer,
        help="a registry that runs on this machine without sign-in, such as zot=http://127.0.0.1:5001, in place of "
        "docker-registry; rows of manifests, layers and small images only; nothing is written",
    )
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    if options.peer:
        scale = replace(scale, peer=options.peer)
    if options.pairs:
        scale = replace(scale, pairs=options.pairs)
    wanted = frozenset(options.row or ROWS)
    if options.peer:
        wanted &= {row for module in (manifests, layers, small) for row in module.ROWS}
    results: list[Result] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="polly-bench-", dir=options.folder) as folder:
        for module in MODULES:
            if wanted & set(module.ROWS):
                for result in module.measure(scale, Path(folder), wanted):
                    results.append(result)
                    print(report.table([result]).split("\n", 2)[2], flush=True)
    print(f"\n{report.machine(scale)}\n\n{report.costs(results)}\n\n{report.remarks(results)}")
    print(f"\nIt took {time.monotonic() - start:.0f} s.")
    if not (options.quick or options.row or options.peer):
        report.write(PAGE, scale, results)
        print(f"Written: {PAGE} and {PAGE.with_suffix('.svg')}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
