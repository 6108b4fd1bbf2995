"""A server whose wall clock the test sets while it runs. Its monotonic clock and its files keep the real time."""

from __future__ import annotations

import datetime as dt
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOUR = 3600
DAY = 24 * HOUR


@dataclass
class Clock:
    """The clock of the processes that ``command`` starts."""

    file: Path

    def __post_init__(self) -> None:
        """Begin with the real time."""
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set the clock ahead of the real time, or behind it."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self.file)

    @property
    def command(self) -> tuple[str, ...]:
        """The command that runs polly-server with this clock."""
        return (sys.executable, __file__, str(self.file))


def _follow(file: Path) -> None:
    """Make this process, and those that it forks, read the time that the file says."""
    wall = time.time_ns

    def shifted() -> int:
        return wall() + int(file.read_text()) * 1_000_000_000

    class Datetime(dt.datetime):
        """The class from which PyJWT takes the time."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:  # noqa: ANN401 - the type is that of the class it replaces
            return cls.fromtimestamp(shifted() / 1_000_000_000, tz)

    time.time_ns = shifted
    time.time = lambda: shifted() / 1_000_000_000
    import jwt.api_jwt  # noqa: PLC0415 - after the time is another

    jwt.api_jwt.datetime = Datetime  # type: ignore[attr-defined]


if __name__ == "__main__":
    _follow(Path(sys.argv.pop(1)))
    from polly_dockers.server.cli.main import main

    main()
