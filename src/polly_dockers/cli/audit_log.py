"""The audit log as polly and polly-server print it: its table, and checks of the options that filter it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from polly_dockers.cli import tables
from polly_dockers.cli.tables import Column

if TYPE_CHECKING:
    import datetime as dt

    from polly_dockers.api_types import AuditItem

COLUMNS: Final = (
    Column("at"),
    Column("event"),
    Column("by"),
    Column("from"),
    Column("subject"),
    Column("detail", own_line=True),
)

_NO_PEOPLE: Final = ("policy", "polly-server")


def row(item: AuditItem) -> tables.Row:
    """Return the row of an entry, in the order of COLUMNS."""
    return (tables.date(item.at), item.event, item.by or "-", item.address or "-", item.subject or "-", item.detail)


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
