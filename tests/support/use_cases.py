"""A registry inside the test's process: people with each role, and use cases in as few words as tests need."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy

from polly_dockers.auth import members, passwords
from polly_dockers.config import Config
from polly_dockers.db import schema
from polly_dockers.maintenance.garbage import Collector, Report
from polly_dockers.model import Actor, Digest, RepositoryName, Role, Tag
from polly_dockers.registry import deletion, history, pull, push, repositories, uploads
from polly_dockers.server import data_folder
from polly_dockers.system import boot
from support.memory_blob_store import MemoryBlobStore
from support.wire_client import OCI_MANIFEST, Image, descriptor, sha256

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest
    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.trash import Item
    from polly_dockers.model import Commit

ORG: Final = "acme"
OTHER_ORG: Final = "biolab"
PASSWORD: Final = "a good password"
"""The password of everybody."""


def _actor(number: int) -> Actor:
    return Actor(user_id=number, password_version=1, grants=None, address="203.0.113.1")


ADMIN: Final = _actor(1)
WRITER: Final = _actor(2)
READER: Final = _actor(3)
OUTSIDER: Final = _actor(4)
"""The admin of the other organisation."""
EMAILS: Final = {1: "ann@acme.example", 2: "wes@acme.example", 3: "rea@acme.example", 4: "otto@biolab.example"}
NAME: Final = RepositoryName(f"{ORG}/team/app")
"""The docker repository that the fixture ``repository`` creates."""


def email(actor: Actor) -> str:
    """The email address of one of the people above."""
    return EMAILS[actor.user_id or 0]


def prepare(folder: Path) -> None:
    """Make a data folder with both organisations and their members."""
    data_folder.prepare(folder)
    hashed = passwords.hash_now(PASSWORD)

    def add(connection: Connection) -> None:
        acme = members.create_organisation(connection, ORG)
        other = members.create_organisation(connection, OTHER_ORG)
        for number, role in ((1, Role.admin), (2, Role.writer), (3, Role.reader)):
            members.add(connection, acme, ORG, EMAILS[number], role, hashed)
        members.add(connection, other, OTHER_ORG, EMAILS[4], Role.admin, hashed)

    data_folder.transaction(folder, add)


async def open_context(template: Path, folder: Path, **settings: Any) -> Context:  # noqa: ANN401 - settings
    """A registry on a copy of a prepared folder, with its blobs in memory."""
    shutil.copytree(template, folder)
    made = await data_folder.open_context(Config(data=folder, **settings))
    made.blobs.close()
    return replace(made, blobs=MemoryBlobStore())


@dataclass
class Clock:
    """The time as this process reads it: it goes on, and a test can let more of it pass."""

    passed: int = 0
    """Seconds that tests let pass."""

    def advance(self, *, days: int = 0, seconds: int = 0) -> None:
        """Let time pass."""
        self.passed += days * 86_400 + seconds


def patch_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have this process read its time from a clock that the test advances: both wall clock and time since boot."""
    clock = Clock()
    wall, running = time.time_ns, boot.running
    monkeypatch.setattr(time, "time_ns", lambda: wall() + clock.passed * 1_000_000_000)
    monkeypatch.setattr(boot, "running", lambda: running() + clock.passed * 1_000_000)
    return clock


class Body:
    """The body of a request, in one piece or in several."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.length: int | None = sum(map(len, pieces))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        for piece in self._pieces:
            yield piece


async def create(
    context: Context, name: str, actor: Actor = ADMIN, *, org: str = ORG, public: bool = False
) -> RepositoryName:
    """Create a docker repository; its whole name."""
    made = await repositories.create(context, actor, org, name=name, description="For tests.", public=public)
    return made.name


async def audited(context: Context, event: str) -> list[str]:
    """The details of the entries of an event in the audit log, oldest first."""
    query = sqlalchemy.select(schema.audit.c.detail).where(schema.audit.c.event == event).order_by(schema.audit.c.id)
    return await context.database.read(lambda connection: list(connection.execute(query).scalars()))


async def push_blob(context: Context, data: bytes, *, actor: Actor = WRITER, name: RepositoryName = NAME) -> Digest:
    """Push a blob in one request; its digest."""
    digest = Digest(sha256(data))
    await uploads.push(context, actor, name, digest, Body(data))
    return digest


async def push_manifest(
    context: Context,
    body: bytes,
    *tags: str,
    actor: Actor = WRITER,
    name: RepositoryName = NAME,
    media_type: str = OCI_MANIFEST,
    digest: str | None = None,
) -> Digest:
    """Push a manifest to tags, or by its digest; its digest."""

    async def read() -> bytes:
        return body

    pushed = await push.manifest(
        context,
        actor,
        name,
        read=read,
        content_type=media_type,
        digest=Digest(digest) if digest is not None else None,
        tags=[Tag(tag) for tag in tags],
    )
    return pushed.digest


async def push_image(
    context: Context, made: Image, *tags: str, actor: Actor = WRITER, name: RepositoryName = NAME
) -> Digest:
    """Push an image with its blobs to tags, or by its digest; its digest."""
    for blob in made.blobs:
        await push_blob(context, blob, actor=actor, name=name)
    return await push_manifest(context, made.manifest, *tags, actor=actor, name=name, media_type=made.media_type)


async def pull_manifest(
    context: Context, reference: str, *, actor: Actor = READER, name: RepositoryName = NAME
) -> bytes:
    """The bytes of the manifest of a tag or of a digest."""
    wanted = Digest(reference) if ":" in reference else Tag(reference)
    found = await pull.manifest(context, actor, name, wanted, largest=1 << 22)
    assert found.body is not None
    return found.body


async def commits(
    context: Context, tag: str | None = None, *, actor: Actor = READER, name: RepositoryName = NAME
) -> list[Commit]:
    """The commits of a repository, newest first."""
    found, _, _ = await history.commits(context, actor, name, tag=tag, newest_first=True, limit=100, after=None)
    return found


def index_of(*images: Image) -> dict[str, Any]:
    """An index of images."""
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor(each.manifest, each.media_type) for each in images],
    }


async def delete(
    context: Context,
    actor: Actor = ADMIN,
    *,
    tag: str | None = None,
    commit: str | None = None,
    preview: bool = False,
) -> Item:
    """Move a tag or a commit of ``NAME``, or all of it, to the trash."""
    return await deletion.delete(context, actor, ORG, NAME.name, tag=tag, commit=commit, preview=preview)


async def restore(
    context: Context,
    actor: Actor = ADMIN,
    *,
    tag: str | None = None,
    commit: str | None = None,
    new_name: str | None = None,
) -> Item:
    """Restore a tag or a commit of ``NAME``, or all of it."""
    return await deletion.restore(context, actor, ORG, NAME.name, tag=tag, commit=commit, new_name=new_name)


async def collect(context: Context) -> Report:
    """Run the collector once over everything."""
    report = await Collector(context).run()
    assert report is not None
    return report
