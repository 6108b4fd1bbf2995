"""A collection of the garbage of a server, in the process of the test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers import db
from polly_dockers.config import Config
from polly_dockers.maintenance.garbage import Collector, Report
from polly_dockers.server import data_folder
from support.use_cases import patch_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.server import Server


def collect(
    server: Server,
    meanwhile: Callable[[], None] | None = None,
    number: int = 0,
    *,
    later: int = 0,
    **settings: Any,  # noqa: ANN401 - settings
) -> Report:
    """Collect as if ``later`` seconds had passed, with nothing kept for a while in the trash or after its last use.

    ``meanwhile`` is called before the transaction of that number. Raises what it raises.
    """
    lengths = {"trash_days": 0, "grace_seconds": 0, "lease_seconds": 10} | settings

    async def run() -> Report:
        registry = await data_folder.open_context(Config(data=server.data, **lengths))
        write, left = registry.database.write, number

        async def counted(fn: Callable[..., Any], *args: Any, **named: Any) -> Any:  # noqa: ANN401 - as the method
            nonlocal left
            left -= fn is not db.clock.observe  # a run begins with it
            if left == 0 and fn is not db.clock.observe and meanwhile is not None:
                await asyncio.to_thread(meanwhile)
            return await write(fn, *args, **named)

        registry.database.write = counted  # type: ignore[method-assign]
        try:
            report = await Collector(registry).run()
            assert report is not None
            return report
        finally:
            registry.close()

    with pytest.MonkeyPatch.context() as patched:
        patch_clock(patched).advance(seconds=later)
        return asyncio.run(run())
