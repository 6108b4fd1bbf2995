"""A registry inside the test's process, on a data folder that is prepared once and copied for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import use_cases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from polly_dockers.context import Context
    from polly_dockers.model import RepositoryName
    from support.use_cases import Clock


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the people of ``support.use_cases``; tests only copy it."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    use_cases.prepare(folder)
    return folder


@pytest.fixture
async def open_context(prepared: Path, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Context]]]:
    """A function that opens a registry with settings of the test."""
    opened: list[Context] = []

    async def make(**settings: object) -> Context:
        opened.append(await use_cases.open_context(prepared, tmp_path / f"data-{len(opened)}", **settings))
        return opened[-1]

    yield make
    for context in opened:
        context.close()


@pytest.fixture
async def context(open_context: Callable[..., Awaitable[Context]]) -> Context:
    """A registry with two organisations, a member in each role, and no docker repository."""
    return await open_context()


@pytest.fixture
async def repository(context: Context) -> RepositoryName:
    """The docker repository ``NAME``, with nothing in it."""
    return await use_cases.create(context, use_cases.NAME.name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the test's process, for the test to advance."""
    return use_cases.patch_clock(monkeypatch)
