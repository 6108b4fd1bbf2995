"""How quickly garbage is given back: blobs that nothing needs, beside many that live, and what unlink alone takes.

Run it as ``python benchmarks/collector_rate.py [--garbage 20000] [--living 100000]``. It fills a data folder of its own
through the functions that pushes use, and lets ``polly-server gc`` work on it until all that is garbage is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.auth import members
from polly_dockers.db.sqlite import Database
from polly_dockers.model import Digest
from polly_dockers.server import data_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

CHUNK: Final = 2000
"""Blobs of one transaction while the folder is filled."""
SIZE: Final = 512
"""Bytes of each blob."""


def keys(what: str, count: int) -> Iterator[tuple[str, str]]:
    """Digests, and keys as the store makes them."""
    for number in range(count):
        name = hashlib.sha256(f"{what} {number}".encode()).hexdigest()
        yield f"sha256:{name}", f"sha256/{name[:2]}/{name}.{number:08x}"


def write_files(folder: Path, what: str, count: int) -> None:
    """The bytes of the blobs."""
    for number in range(256):
        (folder / "sha256" / f"{number:02x}").mkdir(parents=True, exist_ok=True)
    for _, key in keys(what, count):
        (folder / key).write_bytes(b"\0" * SIZE)


async def fill(data: Path, what: str, count: int, lease: int) -> None:
    """Rows of the blobs, linked to a repository for so many seconds."""
    database = Database(data)

    def repository(connection: Connection) -> int:
        organisation = db.accounts.organisation_id(connection, "bench") or members.create_organisation(
            connection, "bench"
        )
        user = db.accounts.user(connection, "bench@acme.example")
        user_id = user.id if user is not None else db.accounts.add_user(connection, "bench@acme.example", "-")
        made = db.repositories.add(
            connection, organisation_id=organisation, name=what, description="-", access="private", user_id=user_id
        )
        assert made is not None  # noqa: S101 - a folder of our own
        return made

    repository_id = await database.write(repository)

    def add(connection: Connection, some: list[tuple[str, str]]) -> None:
        for digest, key in some:
            db.blobs.add(
                connection,
                repository_id=repository_id,
                digest=Digest(digest),
                size=SIZE,
                storage_key=key,
                lease=lease,
            )

    every = list(keys(what, count))
    for at in range(0, count, CHUNK):
        await database.write(add, every[at : at + CHUNK])
    database.close()


def unlink_alone(folder: Path, count: int) -> float:
    """Seconds of unlinking as many files in the same layout."""
    write_files(folder, "alone", count)
    began = time.perf_counter()
    for _, key in keys("alone", count):
        os.unlink(folder / key)  # noqa: PTH108 - what is measured
    return time.perf_counter() - began


def collect(data: Path) -> str:
    """Let polly-server gc work; what it says."""
    settings = data.with_name("settings.toml")
    settings.write_text("grace_seconds = 0\n")
    command = [str(Path(sys.executable).parent / "polly-server"), "gc", "--data", str(data), "--config", str(settings)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--garbage", type=int, default=20_000)
    parser.add_argument("--living", type=int, default=100_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="polly-collector-"))
    try:
        data = folder / "data"
        data_folder.prepare(data)
        asyncio.run(fill(data, "living", given.living, 86_400))
        for part, count in (("warm-up", 200), ("garbage", given.garbage)):
            asyncio.run(fill(data, part, count, -1))
            write_files(data / "blobs", part, count)
            began = time.perf_counter()
            said = collect(data)
            took = time.perf_counter() - began
        alone = unlink_alone(folder / "alone", given.garbage)
        print(said.strip())
        print(
            f"{given.garbage} blobs beside {given.living} that live: {took:.1f} s, {given.garbage / took:,.0f} a second"
        )
        print(f"unlink alone: {alone:.1f} s, {given.garbage / alone:,.0f} a second")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
