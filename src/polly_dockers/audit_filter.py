"""What narrows a list of the audit log, checked before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import datetime as dt

_NO_PEOPLE: Final = ("policy", "polly-server")


def check(by: str | None, since: dt.datetime | None, until: dt.datetime | None) -> None:
    """Raise ValueError, in words, for what no entry can be by, and for a span that is the wrong way round."""
    if by is not None and "@" not in by and by.lower() not in _NO_PEOPLE:
        msg = f"--by takes an email, or one of {', '.join(_NO_PEOPLE)}; {by!r} is none of them."
        raise ValueError(msg)
    if since is not None and until is not None and since > until:
        msg = "--since is later than --until, so nothing lies between them. It may be meant the other way round."
        raise ValueError(msg)
