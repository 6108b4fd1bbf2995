"""What finishing uploads costs, alone on four threads and together on the store's thread that shares syncs.

Run it as ``python benchmarks/syncs.py [--rounds 30] [--size 200000] [--folder DIR]``, with a folder on ext4 that
has a journal. Each round finishes as many uploads at once as the first column says, in both ways by turns. It prints
medians: milliseconds until all are durable, and CPU milliseconds of the process for one upload.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from unittest import mock

from polly_dockers.blobs import filesystem, finisher, linux
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.model import Digest

GROUPS: Final = (1, 2, 4, 8, 32)
WAYS: Final = {"alone": sys.maxsize, "together": 0}
"""How many uploads at once sync their own files."""


async def finish(store: FileBlobStore, data: bytes, digest: Digest) -> None:
    """Make a blob, as the last request of an upload does."""
    upload = secrets.token_hex(8)
    await store.start(upload)
    async with store.append(upload) as segment:
        await segment.finish([data], hashlib.sha256(), digest)


async def measure(store: FileBlobStore, group: int, size: int) -> tuple[float, float]:
    """Seconds and CPU seconds of a group of new blobs."""
    blobs = [secrets.token_bytes(size) for _ in range(group)]
    digests = [Digest(f"sha256:{hashlib.sha256(data).hexdigest()}") for data in blobs]
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(finish, [store] * group, blobs, digests))
    return time.perf_counter() - began, time.process_time() - used


async def compare(folder: Path, rounds: int, size: int) -> None:
    """Print a line for each size of the group."""
    if linux.open_to_sync(folder) is None:
        sys.exit("Uploads in this folder can't share their syncs: that takes ext4 with a journal.")
    store = FileBlobStore(folder)
    print(f"{'uploads':>7}  " + "  ".join(f"{way:>8} ms  CPU ms each" for way in WAYS))
    for group in GROUPS:
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, alone in WAYS.items():
                with mock.patch.object(filesystem, "ALONE", alone):
                    found[way].append(await measure(store, group, size))
        medians = [tuple(map(statistics.median, zip(*found[way], strict=True))) for way in WAYS]
        print(f"{group:>7}  " + "  ".join(f"{wall * 1e3:>11.1f}  {cpu / group * 1e3:>11.2f}" for wall, cpu in medians))
    store.close()


def main() -> None:
    """Measure in a folder that goes away at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--size", type=int, default=200_000, help="bytes of an upload")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a folder of the disk to measure")
    given = parser.parse_args()
    if given.size > finisher.SMALL:
        print("Uploads of this size never share their syncs in the server.")
    with (
        mock.patch.object(finisher, "SMALL", sys.maxsize),
        tempfile.TemporaryDirectory(prefix="syncs-", dir=given.folder) as folder,
    ):
        asyncio.run(compare(Path(folder), given.rounds, given.size))


if __name__ == "__main__":
    main()
