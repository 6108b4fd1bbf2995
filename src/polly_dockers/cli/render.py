"""Tables for people, aligned text for pipes, JSON for programs.

A cell is never broken: where the terminal is too narrow, the columns that may be missing go one by one, from the right;
then the widest column stands on a line of its own; then every cell does.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from polly_dockers import process
from polly_dockers.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = "  "
_BOLD = "1"
GREEN, YELLOW = "32", "33"


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it may be left out, and whether it stands on a line of its own when it must."""

    title: str
    optional: bool = False
    own_line: bool = False
    right: bool = False
    colours: tuple[tuple[str, str], ...] = ()
    """Which texts are coloured, and how."""
    longest: int | None = None
    """Where a terminal's cell is cut, between two words."""


Row = tuple[str, ...]


def show(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print the table on stdout, in the form that fits where stdout goes."""
    width = shutil.get_terminal_size().columns if terminal.shows() else None
    for line in table(columns, [tuple(map(terminal.clean, row)) for row in rows], width, coloured=terminal.colours()):
        print(line)


def document(value: object) -> None:
    """Print what ``/api/v1`` answered, indented, on stdout.

    It is ASCII, so that a program can read it in every locale, and text of other people can't act on a terminal.
    """
    process.write_data(json.dumps(msgspec.to_builtins(value), indent=2).replace("\x7f", "\\u007f") + "\n")


def table(columns: Sequence[Column], rows: Sequence[Row], width: int | None, *, coloured: bool) -> list[str]:
    """Return the lines of a table. ``width`` is the terminal's, None for a pipe: there every column is on one line."""
    if width is None:
        return _grid(columns, rows, range(len(columns)), plain=True, coloured=False)
    rows = [tuple(_shortened(cell, each.longest) for each, cell in zip(columns, row, strict=True)) for row in rows]
    widths = _widths(columns, rows)
    every = list(range(len(columns)))
    needed = [index for index in every if not columns[index].optional]
    own = [index for index in needed if columns[index].own_line]
    if _total(widths, needed) <= width:
        return _grid(columns, rows, _fitting(columns, widths, every, width), plain=False, coloured=coloured)
    beside = [index for index in every if index not in own]
    if own and len(_GAP) + _total(widths, [index for index in needed if index not in own]) <= width:
        return _two_lines(
            columns, rows, own[0], _fitting(columns, widths, beside, width - len(_GAP)), coloured=coloured
        )
    return _stacked(columns, rows, needed, coloured=coloured)


def date(text: str | None) -> str:
    """Return ``July 9, 2020, 03:56:49 PM`` in the local time zone; ``never`` for None."""
    if text is None:
        return "never"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    with contextlib.suppress(ValueError, OverflowError, OSError):  # TZ names no zone, or one that can't be
        moment = moment.astimezone()
    return f"{moment:%B} {moment.day}, {moment:%Y, %I:%M:%S %p}"


def _cells(text: str) -> int:
    """Return how many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    import wcwidth  # only where it counts: it takes some milliseconds

    return max(0, wcwidth.wcswidth(text))


def _widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    return [max(_cells(each.title), *(_cells(row[index]) for row in rows), 0) for index, each in enumerate(columns)]


def _total(widths: Sequence[int], chosen: Sequence[int]) -> int:
    return sum(widths[index] for index in chosen) + len(_GAP) * (len(chosen) - 1)


def _fitting(columns: Sequence[Column], widths: Sequence[int], chosen: Sequence[int], width: int) -> list[int]:
    """Leave out optional columns from the right until the others fit."""
    kept = list(chosen)
    for index in reversed(chosen):
        if _total(widths, kept) > width and columns[index].optional:
            kept.remove(index)
    return kept


def _line(columns: Sequence[Column], row: Row, widths: Sequence[int], chosen: Iterable[int], *, coloured: bool) -> str:
    cells = []
    for index in chosen:
        room = " " * (widths[index] - _cells(row[index]))
        colour = dict(columns[index].colours).get(row[index]) if coloured else None
        cell = _painted(row[index], colour)
        cells.append(room + cell if columns[index].right else cell + room)
    return _GAP.join(cells).rstrip()


def _grid(
    columns: Sequence[Column], rows: Sequence[Row], chosen: Iterable[int], *, plain: bool, coloured: bool
) -> list[str]:
    widths, chosen = _widths(columns, rows), list(chosen)
    titles = _line(columns, tuple(each.title for each in columns), widths, chosen, coloured=False)
    lines = [_painted(titles, _BOLD if coloured else None)]
    if not plain:
        lines.append(_GAP.join(_rule() * widths[index] for index in chosen))
    return lines + [_line(columns, row, widths, chosen, coloured=coloured) for row in rows]


def _two_lines(
    columns: Sequence[Column], rows: Sequence[Row], own: int, beside: Sequence[int], *, coloured: bool
) -> list[str]:
    """Put the widest column above the others where it comes first, and below them where it does not."""
    widths = _widths(columns, rows)
    first = own < min(beside)

    def pair(row: Row, *, coloured: bool) -> list[str]:
        cells = _line(columns, row, widths, beside, coloured=coloured)
        return [row[own], _GAP + cells] if first else [cells, _GAP + row[own]]

    titles = pair(tuple(each.title for each in columns), coloured=False)
    length = max(_total(widths, beside) + len(_GAP) * first, widths[own] + len(_GAP) * (not first))
    lines = [_painted(title, _BOLD if coloured else None) for title in titles] + [_rule() * length]
    for row in rows:
        lines += pair(row, coloured=coloured)
    return lines


def _stacked(columns: Sequence[Column], rows: Sequence[Row], chosen: Sequence[int], *, coloured: bool) -> list[str]:
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        for index in chosen:
            colour = dict(columns[index].colours).get(row[index]) if coloured else None
            title = _painted(columns[index].title, _BOLD if coloured else None)
            lines += [title, _GAP + _painted(row[index], colour)]
    return lines


def _shortened(text: str, longest: int | None) -> str:
    if longest is None or _cells(text) <= longest:
        return text
    while text and _cells(text) > longest - 2:
        text = text.rpartition(" ")[0]
    return f"{text} …" if text else "…"


def _painted(text: str, colour: str | None) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _rule() -> str:
    return "─" if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" else "-"
