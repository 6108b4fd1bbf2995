"""Every table that polly and polly-server print, at every width."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers import cli
from polly_dockers.cli import actions, tables
from polly_dockers.cli.tables import Column, table
from polly_dockers.server import cli as server_cli

if TYPE_CHECKING:
    from types import ModuleType

    from polly_dockers.cli.tables import Columns

DAY = "2020-07-09T13:56:49Z"
MODULES = [
    importlib.import_module(each.name)
    for package in (cli, actions, server_cli)
    for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


def tables_of(module: ModuleType) -> dict[str, Columns[Any]]:
    """Return the tables of a module by name: its constants that are tuples of columns."""
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if isinstance(value, tuple) and value and all(isinstance(each, Column) for each in value)
    }


EVERY = {name: columns for module in MODULES for name, columns in tables_of(module).items()}


def shown(module: ModuleType) -> list[ast.expr]:
    """Return the columns that each ``tables.show(…)``, ``tables.display(…)`` and ``_print(…)`` of a module names.

    Where a function passes on its parameter ``columns``, its callers name them.
    """
    place = {"tables.show": 0, "tables.display": 2, "_print": 2}
    arguments = [
        node.args[place[ast.unparse(node.func)]]
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in place
    ]
    return [each for each in arguments if ast.unparse(each) != "columns"]


def test_every_table_is_a_constant() -> None:
    """The tests below find tables only if they are constants."""
    arguments = [(module, argument) for module in MODULES for argument in shown(module)]
    assert len(arguments) > 15
    for module, argument in arguments:
        assert f"{module.__name__}.{ast.unparse(argument)}" in EVERY or ast.unparse(argument) == "audit_log.COLUMNS"


def rows_of(columns: Columns[Any]) -> list[tables.Row]:
    """Return three rows: short texts, long ones, and dates and digests; each cell begins with its own mark."""
    many = range(len(columns))
    return [
        tuple(f"a{index}" for index in many),
        tuple(f"b{index} which is somewhat longer than all others are" for index in many),
        tuple(
            tables.date("2020-07-09T13:56:49Z", f"c{index} ") if index % 2 else f"c{index}:{'d' * 20}" for index in many
        ),
    ]


@pytest.mark.parametrize("name", EVERY)
def test_no_width_leaves_a_column_out(name: str) -> None:
    """From 40 columns to 200 every column is there, with its title, and a wider terminal cuts nothing more."""
    columns = EVERY[name]
    rows = rows_of(columns)
    before: set[str] = set()
    for width in range(40, 201):
        lines = table(columns, rows, width, coloured=False)
        words = " ".join(lines).split()
        text = " ".join(words)
        assert all(each.title in text for each in columns)
        assert all(f"{row}{index}" in text for row in "abc" for index in range(len(columns)))
        complete = {each.title for index, each in enumerate(columns) if rows[1][index] in text}
        assert complete >= before
        before = complete


@pytest.mark.parametrize("name", EVERY)
def test_a_wider_terminal_needs_no_more_lines(name: str) -> None:
    """As the terminal gets wider, a table needs fewer lines for each row, or the same number."""
    rows = rows_of(EVERY[name])
    counts = [len(table(EVERY[name], rows, width, coloured=False)) for width in range(40, 201)]
    assert counts == sorted(counts, reverse=True)
