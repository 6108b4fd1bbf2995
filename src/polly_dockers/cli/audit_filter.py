"""Checks of the options that filter the audit log, for polly and polly-server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import datetime as dt

_NO_PEOPLE: Final = ("policy", "polly-server")


def problem(by: str | None, since: dt.datetime | int | None, until: dt.datetime | int | None) -> str:
    """Return what is wrong with the options; empty if nothing is. Both times must have the same type."""
    if by is not None and "@" not in by and by.lower() not in _NO_PEOPLE:
        return f"--by takes an email, or one of {', '.join(_NO_PEOPLE)}; {by!r} is neither."
    if since is not None and until is not None and since > until:  # type: ignore[operator]
        return "--since is later than --until, so no entry can match. Did you swap them?"
    return ""
