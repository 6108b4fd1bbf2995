"""The audit log as polly and polly-server print it: its table, and checks of the options that filter it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from polly_dockers.cli import tables
from polly_dockers.cli.tables import Column, Columns

if TYPE_CHECKING:
    import datetime as dt

    from polly_dockers.api_types import AuditItem

COLUMNS: Final[Columns[AuditItem]] = (
    Column("at", lambda each: tables.date(each.at)),
    Column("event", lambda each: each.event),
    Column("by", lambda each: each.by or "-"),
    Column("from", lambda each: each.address or "-"),
    Column("subject", lambda each: each.subject or "-"),
    Column("detail", lambda each: each.detail, own_line=True),
)

_NO_PEOPLE: Final = ("policy", "polly-server")


T = TypeVar("T", "dt.datetime", int)


def problem(by: str | None, since: T | None, until: T | None, now: T) -> str:
    """Return what is wrong with the options; empty if nothing is."""
    if by is not None and "@" not in by and by.lower() not in _NO_PEOPLE:
        return f"--by takes an email, or one of {', '.join(_NO_PEOPLE)}; {by!r} is neither."
    if since is not None and since > now:
        return "--since is in the future, so no entry can match."
    if since is not None and until is not None and since > until:
        return "--since is later than --until, so no entry can match. Did you swap them?"
    return ""
