"""A large restore takes several transactions. A rebuild repeats exactly those that took place."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from polly_dockers import db
from polly_dockers.db.journal import compaction, frames, records
from polly_dockers.maintenance import rebuild
from support.registry_rows import held
from support.use_cases import commits, delete, pull_manifest, push_manifest, restore
from support.wire_client import OCI_INDEX, descriptor, dumps, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.trash import Item

pytestmark = pytest.mark.usefixtures("repository")

PORTION = 2
IMAGES = 5
CASES = pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed"])


class Killed(Exception):
    """The server ends between two transactions."""


async def push(context: Context, *bodies: bytes, note: object, tag: str) -> bytes:
    """Push an index of indexes to a tag; its bytes."""
    items = [descriptor(body, OCI_INDEX) for body in bodies]
    made = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": items, "annotations": {"note": str(note)}})
    await push_manifest(context, made, tag, media_type=OCI_INDEX)
    return made


async def fill(context: Context, first: int = 0) -> tuple[bytes, list[bytes]]:
    """Delete an index that had the tag t, then its images, two of which from ``first`` on had t later; returns all."""
    images = [await push(context, note=number, tag=f"t{number}") for number in range(IMAGES)]
    top = await push(context, *images, note="top", tag="t")
    await delete(context, commit=sha256(top))
    later = images[first : first + 2]
    for each in later:
        await push_manifest(context, each, "t", media_type=OCI_INDEX)
        await delete(context, commit=sha256(each))
    for each in images:
        if each not in later:
            await delete(context, commit=sha256(each))
    return top, images


async def restore_all(context: Context, monkeypatch: pytest.MonkeyPatch, top: bytes, *, killed: bool) -> None:
    """Restore the index and its images; if the server is killed, only the first transaction takes place."""
    monkeypatch.setattr(db.restore, "PORTION", PORTION)
    restore_parts, calls = db.restore.restore_parts, 0

    def once(connection: Connection, item: Item, tag: str | None) -> list[Item]:
        nonlocal calls
        calls += 1
        if killed and calls > 1:
            raise Killed
        return restore_parts(connection, item, tag)

    monkeypatch.setattr(db.restore, "restore_parts", once)
    if killed:
        with pytest.raises(Killed):
            await restore(context, commit=sha256(top))
    else:
        await restore(context, commit=sha256(top))
    assert calls == (2 if killed else 3)


def rebuilt(folder: Path, old: Path | None = None) -> Path:
    """A copy of the data folder whose database is rebuilt from the journal: from nothing, or from an old database."""
    copy = folder.with_name(f"{folder.name}-{'again' if old is None else 'caught-up'}")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("polly.db*"))
    for path in old.glob("polly.db*") if old is not None else ():
        shutil.copy(path, copy)
    rebuild.rebuild(copy)
    return copy


@CASES
async def test_a_tag_is_at_its_newest_image(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, killed: bool
) -> None:
    """A rebuild, and an old database brought up to date, have each tag where it was, or also lack it."""
    folder, old = context.config.data, tmp_path / "old"
    top, images = await fill(context)
    shutil.copytree(folder, old)
    await restore_all(context, monkeypatch, top, killed=killed)
    at = {each.tag: each.digest for each in await commits(context) if each.active}
    assert at.get("t") == (None if killed else sha256(images[1]))
    before = held(folder)
    assert held(await asyncio.to_thread(rebuilt, folder)) == before
    assert held(await asyncio.to_thread(rebuilt, folder, old)) == before


async def test_a_compaction_between_two_portions(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the journal begins with a snapshot made during a restore, the rest of the restore is applied to it."""
    top, images = await fill(context, 2)
    with monkeypatch.context() as patched:
        await restore_all(context, patched, top, killed=True)
    compaction.compact(context.config.data, lambda _took: None)
    monkeypatch.setattr(db.restore, "PORTION", PORTION)
    await restore(context, commit=sha256(top))
    assert await pull_manifest(context, "t") == images[3]
    assert held(await asyncio.to_thread(rebuilt, context.config.data)) == held(context.config.data)


async def test_a_journal_of_an_older_version(context: Context) -> None:
    """A record without tags restores all that belonged to the item."""
    top, images = await fill(context)
    await restore(context, commit=sha256(top))
    before = held(context.config.data)
    count = 0
    for path in frames.files(context.config.data):
        whole = b""
        for batch in frames.read_file(path):
            changes = [msgspec.to_builtins(each, builtin_types=(bytes,)) for each in batch.records]
            for change, record in zip(changes, batch.records, strict=True):
                if isinstance(record, records.Restored):
                    assert record.tags is None
                    del change[3:]
                    count += 1
            whole += frames.frame(batch.id, batch.previous, changes)
        path.write_bytes(whole)
    assert count == 1 + len(images)
    assert held(await asyncio.to_thread(rebuilt, context.config.data)) == before
