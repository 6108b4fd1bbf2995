"""Points in time as people write them."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import pytest

from polly_dockers.cli import times

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = dt.datetime(2026, 3, 28, 15, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone whose clocks go forward on the night after NOW."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("today", False, "2026-03-28T00:00:00+01:00"),
        ("yesterday", False, "2026-03-27T00:00:00+01:00"),
        ("tomorrow", True, "2026-03-29T23:59:59.999000+02:00"),
        ("2026-12-24", False, "2026-12-24T00:00:00+01:00"),
        (" 2026-12-24 ", True, "2026-12-24T23:59:59.999000+01:00"),
        ("2026-07-01 18:00", True, "2026-07-01T18:00:00+02:00"),
        ("2026-07-01t18:00z", False, "2026-07-01T18:00:00+00:00"),
        ("2026-07-01T18:00:30-05:00", False, "2026-07-01T18:00:30-05:00"),
        ("+30d", True, "2026-04-27T15:30:00+01:00"),
        ("+12h", False, "2026-03-29T03:30:00+01:00"),
        ("7d", False, "2026-03-21T15:30:00+01:00"),
        ("-90m", False, "2026-03-28T14:00:00+01:00"),
    ],
)
def test_what_people_write(text: str, expected: str, *, end: bool) -> None:
    """A day means its first or last moment in local time; a span counts from now, or back from now."""
    assert times.parse(text, NOW, end=end) == dt.datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "7", "7w", "-999999d", "2026-13-01", "2026-02-30", "2026-1-1", "24.12.2026", "18:00"],
)
def test_what_is_no_moment(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError):  # noqa: PT011 - the caller makes a message of it
        times.parse(text, NOW, end=False)
