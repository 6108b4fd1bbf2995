"""Tables, dates and sizes of the commands."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.cli import tables
from polly_dockers.cli.tables import Column, table
from polly_dockers.cli.terminal import clean, say
from polly_dockers.formatting import size

if TYPE_CHECKING:
    from collections.abc import Iterator

column = partial(Column, cell=str)
"""A column; the tests give the cells themselves."""

COLUMNS = (
    column("path", own_line=True),
    column("by"),
    column("count", right=True),
    column("notes", longest=12),
)
ROWS = [("host/org/one", "ann", "7", "some words that are many"), ("host/org/two/three", "bob", "1234", "")]


def test_a_pipe_gets_every_column_whole() -> None:
    """A pipe gets no rule and no colour, and nothing is cut."""
    assert table(COLUMNS, ROWS, None, coloured=True) == [
        "path                by   count  notes",
        "host/org/one        ann      7  some words that are many",
        "host/org/two/three  bob   1234",
    ]


def test_a_wide_terminal_cuts_between_words_only() -> None:
    """A text longer than its column's limit is cut after a whole word, and ends with a mark."""
    lines = table(COLUMNS, ROWS, 80, coloured=False)
    assert lines[2] == "host/org/one        ann      7  some words …"


def test_a_narrow_terminal_gives_a_row_more_lines() -> None:
    """In narrower terminals, first the widest column gets a line of its own, then several do, then each cell."""
    assert table(COLUMNS, ROWS, 40, coloured=False)[:2] == ["path", "  by   count  notes"]
    assert table(COLUMNS, ROWS, 20, coloured=False)[:3] == ["path", "  by   count", "  notes"]
    many = (COLUMNS[0], *(column(title) for title in ("made by", "made at", "for what", "how much", "how long")))
    rows = [("host/org/one", "ann", "today", "words", "7", "8")]
    assert table(many, rows, 4, coloured=False)[:4] == ["path", "  host/org/one", "made by", "  ann"]


def test_one_long_cell_does_not_change_how_all_others_look() -> None:
    """A cell wider than the terminal has a line of its own, which the terminal wraps; other rows do not change."""
    columns = (column("tag"), column("by"), column("digest", own_line=True), column("size", right=True))
    lines = table(columns, [("t" * 50, "ann", "d" * 45, "1 kB"), ("v1", "bob", "e" * 45, "20 kB")], 40, coloured=False)
    assert lines[:3] == ["tag", "  by    size", "  digest"]
    assert lines[4:] == ["t" * 50, "  ann   1 kB", "  " + "d" * 45, "v1", "  bob  20 kB", "  " + "e" * 45]


def test_a_text_that_is_alone_on_its_line_is_broken_between_words() -> None:
    """The table wraps it, not the terminal in the middle of a word. An empty cell leaves no empty line."""
    columns = (column("name", own_line=True), column("keeps"))
    rows = [("one", "what was pushed in the last 90d"), ("two", "")]
    lines = table(columns, rows, 20, coloured=False)
    assert lines[3:] == ["one", "  what was pushed in", "    the last 90d", "two"]
    assert table(columns, [("one", "漢字 漢字 漢字 漢字")], 15, coloured=False)[3:] == [
        "one",
        "  漢字 漢字",
        "    漢字 漢字",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("論文のための画像解析", "論文のため…"),
        ("https://example.org/x", "https://exa…"),
        ("of averyverylongword", "of averyver…"),
        ("0123456789👩\u200d🔬👩\u200d🔬", "0123456789…"),
        ("012345678e\u0301e\u0301e\u0301e\u0301", "012345678e\u0301e\u0301…"),
        ("some words that", "some words …"),
    ],
)
def test_a_text_without_spaces_is_cut_too(text: str, shown: str) -> None:
    """Its beginning is shown before the mark, and no letter loses its accents."""
    assert table((column("notes", longest=12),), [(text,)], 80, coloured=False)[2] == shown


@given(
    st.lists(st.tuples(*[st.text("abc/:.", min_size=1, max_size=30)] * 4), min_size=1, max_size=4),
    st.integers(1, 120),
)
def test_a_cell_is_always_whole(rows: list[tables.Row], width: int) -> None:
    """At any width, each cell that is not cut is in one line of the table."""
    lines = table(COLUMNS, rows, width, coloured=False)
    for row in rows:
        assert all(any(cell in line for line in lines) for cell in row[:3])


@given(
    st.lists(st.tuples(*[st.text("abc", min_size=1, max_size=20)] * 4), min_size=1, max_size=4), st.integers(47, 120)
)
def test_no_line_is_wider_than_the_terminal(rows: list[tables.Row], width: int) -> None:
    """If the columns fit, no line is wider than the terminal."""
    assert all(len(line) <= width for line in table(COLUMNS, rows, width, coloured=False))


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("漢字", 4),
        ("한국어", 6),
        ("e\u0301", 1),
        ("สวัสดีครับ", 7),
        ("नमस्ते", 4),
        ("हिन्दी", 4),
        ("தமிழ்", 4),
        ("👨\u200d👩\u200d👧", 2),
        ("👍🏽", 2),
        ("🇩🇪", 2),
        ("❤\ufe0f", 2),
        ("a\u200bb", 2),
    ],
)
def test_letters_of_every_script_keep_the_columns_in_line(text: str, cells: int) -> None:
    """With wide letters, combining marks and joined emoji, the next column begins at the same place in each line."""
    rows = [(text, "a", "1", ""), ("path", "b", "1", "")]
    for lines in (table(COLUMNS, rows, None, coloured=False)[1:], table(COLUMNS, rows, 80, coloured=False)[2:]):
        width = max(cells, len("path"))
        assert lines[0].index("a", len(text)) == len(text) + width - cells + 2
        assert lines[1].index("b") == width + 2


def test_colours_are_around_the_cell_alone() -> None:
    """The spaces that align a cell are outside of its colour."""
    columns = (column("status", colours=(("active", tables.GREEN),)), column("x"))
    assert table(columns, [("active", "1")], 80, coloured=True)[2] == "\x1b[32mactive\x1b[0m  1"


@pytest.fixture
def berlin() -> Iterator[None]:
    """Be in another time zone for a while."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


WIDE = (column("path", own_line=True), column("by"), column("at"), column("notes", longest=30), column("size"))


def wide(width: int | None) -> list[str]:
    """Return a table of one row with a date, at that width."""
    at = tables.date("2020-07-09T13:56:49Z")
    return table(WIDE, [("host/org/one", "ann@acme.example", at, "what it is for", "3.6 MB")], width, coloured=False)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160, None])
def test_what_people_look_for_is_there_at_every_width(width: int | None, berlin: None) -> None:
    """Columns that are not optional are always shown, and no line is wider than the terminal."""
    del berlin
    lines = wide(width)
    for cell in ("host/org/one", "ann@acme.example", "what it is for", "3.6 MB"):
        assert any(cell in line for line in lines)
    date = "2020-07-09 15:56" if width and width <= 80 else "July 9, 2020, 03:56:49 PM"
    assert any(date in line for line in lines)
    assert width is None or all(len(line) <= width for line in lines)


def test_dates_are_short_before_a_row_takes_two_lines(berlin: None) -> None:
    """At 75 columns the row is on one line with the short date; narrower, on several."""
    del berlin
    assert wide(75)[2] == "host/org/one  ann@acme.example  2020-07-09 15:56  what it is for  3.6 MB"
    assert wide(50)[4:] == ["host/org/one", "  ann@acme.example  2020-07-09 15:56", "  what it is for  3.6 MB"]


def test_dates_are_local(berlin: None) -> None:
    """Dates are in the time zone of the person."""
    del berlin
    assert tables.date("2020-07-09T13:56:49Z") == "July 9, 2020, 03:56:49 PM"
    assert tables.date("2020-12-31T23:30:00.123456Z") == "January 1, 2021, 12:30:00 AM"
    assert tables.date(None) == "never"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (999_950, "1.0 MB"),
        (5 * 10**15, "5.0 PB"),
    ],
)
def test_sizes_are_decimal(count: int, shown: str) -> None:
    """Sizes are decimal, as docker shows them."""
    assert size(count) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ntext\there", "plain text here"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x9b2Jc1", "2Jc1"),
        ("turn\u202eed", "turned"),
        ("é 漢", "é 漢"),
    ],
)
def test_clean_leaves_what_can_be_read(text: str, shown: str) -> None:
    """Escape sequences, control characters and marks of direction are removed."""
    assert clean(text) == shown


def test_messages_show_control_characters_and_obey_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A name from a server or an image can't move the cursor, change colours or turn the direction of reading."""
    say("There is no \x1b[2J\x9bK\x07\r\u202eorg\x7f: ü 漢\n\tnext line")
    assert capsys.readouterr().err == "There is no \\x1b[2J\\x9bK\\x07\\x0d\\u202eorg\\x7f: ü 漢\n\tnext line\n"


@given(st.text())
def test_clean_never_leaves_a_control_character(text: str) -> None:
    """Nothing that comes from the server leaves one."""
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in clean(text))
