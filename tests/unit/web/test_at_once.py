"""Small manifests are answered in the turn of the event loop in which their request arrives."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from polly_dockers import db
from polly_dockers.db.sqlite import FILE, connect
from polly_dockers.model import Grants, Tag
from polly_dockers.web.app import App, MetricsApp
from polly_dockers.web.connection import Connection, HttpServer
from polly_dockers.web.memory import SMALL
from polly_dockers.web.metrics import Counts
from support import use_cases
from support.use_cases import NAME, READER
from support.wire import Wire
from support.wire_client import image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from polly_dockers.context import Context
    from polly_dockers.model import RepositoryName


class Caller:
    """A reader with a connection of their own, whose token this process has verified or not."""

    def __init__(self, context: Context, folder: Path, kind: type[App] = App, *, verified: bool = True) -> None:
        token = context.signer.sign(replace(READER, grants=Grants(by_id={1: 1})), 60)
        if verified:
            context.signer.read(token)
        self.wire = Wire()
        self.connection = Connection(HttpServer(kind(context, Counts(folder, folder))))
        self.connection.connection_made(self.wire)
        self._head = f"Host: polly\r\nAuthorization: Bearer {token}\r\n\r\n"

    def ask(self, reference: str, method: str = "GET") -> bytes:
        """Send a request for a manifest; returns what was written before anything else had its turn."""
        self.wire.written = b""
        path = f"/v2/{NAME}/manifests/{reference}"
        self.connection.data_received(f"{method} {path} HTTP/1.1\r\n{self._head}".encode())
        return self.wire.written

    async def late(self) -> bytes:
        """What is written after other tasks have had their turn."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self.wire.written


@pytest.fixture
async def call(context: Context, repository: RepositoryName, tmp_path: Path) -> Callable[..., Caller]:
    """A function that makes a caller; the repository has an image under v1."""
    assert repository == NAME
    await use_cases.push_image(context, image("small"), "v1")

    def make(kind: type[App] = App, *, verified: bool = True) -> Caller:
        return Caller(context, tmp_path, kind, verified=verified)

    return make


async def test_a_manifest_is_answered_at_once(call: Callable[..., Caller]) -> None:
    """By tag and by digest, GET and HEAD, one after the other on a connection."""
    caller, made = call(), image("small")
    for reference in ("v1", made.digest):
        assert caller.ask(reference).endswith(b"\r\n\r\n" + made.manifest)
        head = caller.ask(reference, "HEAD")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.endswith(b"\r\n\r\n")


async def test_everything_else_has_a_task(context: Context, call: Callable[..., Caller]) -> None:
    """What is missing, what is large, and what a new token asks for."""
    large = image("large", annotations={"padding": "x" * SMALL})
    await use_cases.push_image(context, large, "large")
    for caller, reference, status in (
        (call(), "missing", b"404"),
        (call(), "large", b"200"),
        (call(verified=False), "v1", b"200"),
        (call(MetricsApp), "v1", b"404"),
    ):
        assert caller.ask(reference) == b""
        assert (await caller.late()).startswith(b"HTTP/1.1 " + status)


async def test_it_sees_what_was_stored_before_the_request(context: Context, call: Callable[..., Caller]) -> None:
    """Even if a task of the same turn has begun to read before: a snapshot is never older than a request."""
    caller, newer = call(), image("newer")
    await use_cases.push_image(context, newer, "v2")
    await context.database.read(db.keys.every)  # the tasks of this turn read as of now
    with connect(context.config.data / FILE) as other:  # as another process does
        other.exec_driver_sql(
            "UPDATE tags SET manifest_id = (SELECT manifest_id FROM tags WHERE name = 'v2') WHERE name = ?",
            (Tag("v1"),),
        )
    assert caller.ask("v1").endswith(newer.manifest)
