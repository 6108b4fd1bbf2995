"""If a blob was deleted and only the trash needs it, it stays hidden after a rebuild, unless it came back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from pysqlite3 import dbapi2 as sqlite

from polly_dockers.db.journal import compaction
from polly_dockers.maintenance import rebuild
from polly_dockers.model import Digest
from polly_dockers.registry import deletion
from support.use_cases import ADMIN, NAME, delete, push_blob, push_image, restore
from support.wire_client import Image, image, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from polly_dockers.context import Context

pytestmark = pytest.mark.usefixtures("repository")


def hidden(folder: Path) -> list[tuple[Any, ...]]:
    """The digests of hidden blobs, and the size of each repository with deltas that were not added yet."""
    queries = (
        "SELECT b.digest FROM repository_blobs AS r JOIN blobs AS b ON b.id = r.blob_id WHERE r.leased_until = -1",
        (
            "SELECT id, size + coalesce((SELECT sum(d.size) FROM repository_deltas AS d WHERE d.repository_id = r.id), "
            "0) FROM repositories AS r"
        ),
    )
    with contextlib.closing(sqlite.connect(f"file:{folder / 'polly.db'}?mode=ro", uri=True)) as connection:
        return [tuple(sorted(connection.execute(query).fetchall())) for query in queries]


async def layer_gone(context: Context) -> tuple[Image, str]:
    """An image in the trash whose layer was deleted too; the layer's digest."""
    made = image()
    await push_image(context, made)
    await delete(context, commit=made.digest)
    layer = sha256(made.blobs[1])
    await deletion.delete_blob(context, ADMIN, NAME, Digest(layer))
    return made, layer


async def fill(context: Context) -> list[str]:
    """Five deleted layers, of which three come back in different ways; the digests of the two others."""
    (_, first), (_, second) = await layer_gone(context), await layer_gone(context)
    restored, _ = await layer_gone(context)
    await restore(context, commit=restored.digest)
    await delete(context, commit=restored.digest)
    pushed, _ = await layer_gone(context)
    await push_blob(context, pushed.blobs[1])
    again, _ = await layer_gone(context)
    await push_image(context, again)
    await delete(context, commit=again.digest)
    return [first, second]


def rebuilt(folder: Path, store: Path, old: Path | None = None) -> Path:
    """A copy of the data folder with these blobs, its database rebuilt, or an old database brought up to date."""
    copy = folder.with_name(f"{folder.name}-{'again' if old is None else 'caught-up'}")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("polly.db*", "blobs"))
    shutil.copytree(store, copy / "blobs", dirs_exist_ok=True)
    for path in old.glob("polly.db*") if old is not None else ():
        shutil.copy(path, copy)
    assert rebuild.rebuild(copy).lost == []
    return copy


def files(folder: Path, store: Path) -> None:
    """Create files of the right sizes for the blobs of the database, which the test has only in memory."""
    with contextlib.closing(sqlite.connect(f"file:{folder / 'polly.db'}?mode=ro", uri=True)) as connection:
        for key, size in connection.execute("SELECT storage_key, size FROM blobs"):
            (store / key).parent.mkdir(parents=True, exist_ok=True)
            (store / key).write_bytes(bytes(size))


@pytest.mark.parametrize("compacted", [False, True])
async def test_it_stays_hidden(context: Context, tmp_path: Path, *, compacted: bool) -> None:
    """A rebuild from changes or a snapshot hides the same blobs, and so does an old database brought up to date."""
    folder, old, store = context.config.data, tmp_path / "old", tmp_path / "store"
    wanted = await fill(context)
    shutil.copytree(folder, old)
    wanted += await fill(context)
    before = hidden(folder)
    assert [digest for (digest,) in before[0]] == sorted(wanted)
    if compacted:
        compaction.compact(folder, lambda _took: None)
    files(folder, store)
    for database in (None, old):
        assert hidden(await asyncio.to_thread(rebuilt, folder, store, database)) == before
