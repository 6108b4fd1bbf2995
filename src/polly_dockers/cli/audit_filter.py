"""What narrows a list of the audit log, checked before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import datetime as dt

_NO_PEOPLE: Final = ("policy", "polly-server")


def wrong(by: str | None, since: dt.datetime | int | None, until: dt.datetime | int | None) -> str:
    """What no entry can be by, or a span the wrong way round, in words; else empty. Both times are of one kind."""
    if by is not None and "@" not in by and by.lower() not in _NO_PEOPLE:
        return f"--by takes an email, or one of {', '.join(_NO_PEOPLE)}; {by!r} is none of them."
    if since is not None and until is not None and since > until:  # type: ignore[operator]
        return "--since is later than --until, so nothing lies between them. It may be meant the other way round."
    return ""
