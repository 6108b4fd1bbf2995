"""Tables for people, aligned text for pipes, JSON for programs.

Every column is shown at every width. If the terminal is too narrow, the table changes step by step: dates become short;
the widest column gets its own line, with the others on one to four lines; a cell wider than the terminal gets its own
line; at last every cell has its own line. A cell is only broken if it is alone on its line, between words.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec

from polly_dockers.cli import terminal
from polly_dockers.cli.terminal import cells as _cells
from polly_dockers.system import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_GAP = "  "
_BOLD = "1"
GREEN, YELLOW = "32", "33"


T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True)
class Column(Generic[T_contra]):
    """A column: its title, its cell in the row of an item, and whether it may get its own line."""

    title: str
    cell: Callable[[T_contra], str]
    own_line: bool = False
    right: bool = False
    colours: tuple[tuple[str, str], ...] = ()
    """Texts with the colour that each gets."""
    longest: int | None = None
    """Characters at which a cell is cut on a terminal of any width, between two words."""


Columns: TypeAlias = tuple[Column[T], ...]
Row = tuple[str, ...]
_LINES = 4
"""The most lines of a row, without that of the widest column."""


class Moment(str):
    """A date in its long form, with its short form."""

    __slots__ = ("short",)
    short: str


def show(columns: Columns[T], items: Iterable[T], *, aside: bool = False) -> None:
    """Print a table of the items on stdout, or with ``aside`` on stderr, in the form that fits terminal or pipe."""
    stream = sys.stderr if aside else sys.stdout
    width = terminal.width(stream) if stream.isatty() else None
    rows = [tuple(_clean(each.cell(item)) for each in columns) for item in items]
    for line in table(columns, rows, width, coloured=terminal.colours(stream)):
        print(line, file=stream)


def _clean(cell: str) -> str:
    return cell if isinstance(cell, Moment) else terminal.clean(cell)


def display(output: str, value: object, columns: Columns[T], items: Sequence[T], empty: str = "") -> None:
    """Print what --output wants: the value as JSON, or a table of the items. ``empty`` is said if there are none."""
    if output == "json":
        document(value)
    elif items or not empty:
        show(columns, items)
    else:
        terminal.say(empty)


def document(value: object) -> None:
    """Print a value as indented JSON on stdout.

    It is ASCII, so that programs can read it in every locale, and other people's text can't control a terminal.
    """
    process.write_data(json.dumps(msgspec.to_builtins(value), indent=2).replace("\x7f", "\\u007f") + "\n")


def table(columns: Columns[Any], rows: Sequence[Row], width: int | None, *, coloured: bool) -> list[str]:
    """Return the lines of a table. ``width`` is that of the terminal; None for a pipe: one line for each row."""
    if width is None:
        return _grid(columns, rows, plain=True, coloured=False)
    everything = range(len(columns))
    long = _cut(columns, rows)
    short = [tuple(getattr(cell, "short", cell) for cell in row) for row in long]
    for some in (long, short):
        if _total(_widths(columns, some), everything) <= width:
            return _grid(columns, some, plain=False, coloured=coloured)
    several = range(1, _LINES + 1)
    for some, most, over in (
        (long, 1, False),
        *((short, number, False) for number in several),
        *((short, number, True) for number in several),
    ):
        lines = _lines(columns, _widths(columns, some), width, most, over=over)
        if lines:
            return _wrapped(columns, some, lines, width, coloured=coloured)
    return _stacked(columns, short, coloured=coloured)


def _lines(
    columns: Columns[Any], widths: Sequence[int], width: int, most: int, *, over: bool
) -> list[list[int]] | None:
    """Return which columns stand on which line of a row; None if they do not fit.

    The widest column has the first line or the last, and the others ``most`` lines at most, all but the first indented.
    ``over``: what is wider than the terminal stands alone on its line, so that one long cell, which the terminal
    breaks, does not change how all others look.
    """
    own = next((index for index, each in enumerate(columns) if each.own_line), None)
    above: list[list[int]] = [[own]] if own == 0 else []

    def fits(line: Sequence[int], number: int) -> bool:
        alone = over and len(line) == 1
        return alone or _total(widths, line) + len(_GAP) * (number > 0) <= width

    lines = list(above)
    for index in range(len(columns)):
        if index == own:
            continue
        if lines != above and fits([*lines[-1], index], len(lines) - 1):
            lines[-1].append(index)
        else:
            lines.append([index])
    if len(lines) - len(above) > most or not all(fits(line, each) for each, line in enumerate(lines) if line != [own]):
        return None
    return lines + ([[own]] if own else [])


def date(text: str | None, before: str = "") -> str:
    """Return ``July 9, 2020, 03:56:49 PM`` in the local time zone, with words before it; ``never`` for None.

    In a table that has no room for it, it becomes ``2020-07-09 15:56``.
    """
    if text is None:
        return "never"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    with contextlib.suppress(ValueError, OverflowError, OSError):  # TZ names no zone, or one that can't be
        moment = moment.astimezone()
    shown = Moment(f"{before}{moment:%B} {moment.day}, {moment:%Y, %I:%M:%S %p}")
    shown.short = f"{before}{moment:%Y-%m-%d %H:%M}"
    return shown


def _cut(columns: Columns[Any], rows: Sequence[Row]) -> list[Row]:
    """Cut the cells that are longer than the column's ``longest``."""
    return [tuple(_shortened(cell, each.longest) for each, cell in zip(columns, row, strict=True)) for row in rows]


def _widths(columns: Columns[Any], rows: Sequence[Row]) -> list[int]:
    return [max(_cells(each.title), *(_cells(row[index]) for row in rows), 0) for index, each in enumerate(columns)]


def _total(widths: Sequence[int], chosen: Sequence[int]) -> int:
    return sum(widths[index] for index in chosen) + len(_GAP) * (len(chosen) - 1)


def _line(columns: Columns[Any], row: Row, widths: Sequence[int], chosen: Iterable[int], *, coloured: bool) -> str:
    cells = []
    for index in chosen:
        room = " " * (widths[index] - _cells(row[index]))
        colour = dict(columns[index].colours).get(row[index]) if coloured else None
        cell = _painted(row[index], colour)
        cells.append(room + cell if columns[index].right else cell + room)
    return _GAP.join(cells).rstrip()


def _grid(columns: Columns[Any], rows: Sequence[Row], *, plain: bool, coloured: bool) -> list[str]:
    widths, chosen = _widths(columns, rows), range(len(columns))
    titles = _line(columns, tuple(each.title for each in columns), widths, chosen, coloured=False)
    lines = [_painted(titles, _BOLD if coloured else None)]
    if not plain:
        lines.append(_GAP.join(_rule() * widths[index] for index in chosen))
    return lines + [_line(columns, row, widths, chosen, coloured=coloured) for row in rows]


def _wrapped(
    columns: Columns[Any], rows: Sequence[Row], lines: Sequence[Sequence[int]], width: int, *, coloured: bool
) -> list[str]:
    """Print each row on several lines; all but the first are indented."""
    widths = _widths(columns, rows)

    def several(row: Row, *, coloured: bool) -> list[str]:
        cells = [_line(columns, row, widths, line, coloured=coloured) for line in lines]
        shown = _broken(cells[0], width, "") if len(lines[0]) == 1 else cells[:1]
        for cell, line in zip(cells[1:], lines[1:], strict=True):
            if cell:
                shown += _broken(cell, width, _GAP) if len(line) == 1 else [_GAP + cell]
        return shown

    titles = several(tuple(each.title for each in columns), coloured=False)
    length = max(_total(widths, line) + len(_GAP) * (number > 0) for number, line in enumerate(lines))
    shown = [_painted(title, _BOLD if coloured else None) for title in titles] + [_rule() * min(length, width)]
    for row in rows:
        shown += several(row, coloured=coloured)
    return shown


def _broken(text: str, width: int, indent: str) -> list[str]:
    """Break a cell that is alone on its line, and wider than the terminal, between two words."""
    lines = [indent + text]
    while _cells(lines[-1]) > width and " " in lines[-1].strip():
        line, rest = lines[-1], ""
        while _cells(line) > width and " " in line.strip():
            line, _, word = line.rpartition(" ")
            rest = f"{word} {rest}" if rest else word
        lines[-1:] = [line, f"{indent}{_GAP}{rest}"]
    return lines


def _stacked(columns: Columns[Any], rows: Sequence[Row], *, coloured: bool) -> list[str]:
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        for each, cell in zip(columns, row, strict=True):
            colour = dict(each.colours).get(cell) if coloured else None
            lines += [_painted(each.title, _BOLD if coloured else None), _GAP + _painted(cell, colour)]
    return lines


def _shortened(text: str, longest: int | None) -> str:
    if longest is None or _cells(text) <= longest:
        return text
    words = text
    while words and _cells(words) > longest - 2:
        words = words.rpartition(" ")[0]
    if _cells(words) >= longest // 2:
        return f"{words} …"
    while _cells(text) > longest - 1:  # a script without spaces, or one very long word
        text = text[:-1]
    return text.rstrip("\u200d") + "…"


def _painted(text: str, colour: str | None) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _rule() -> str:
    return "─" if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" else "-"
