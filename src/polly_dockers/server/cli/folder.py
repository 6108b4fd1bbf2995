"""The data folder that a command works on: the option that names it, opening it, and naming it in printed commands."""

from __future__ import annotations

import asyncio
import os
import re
from contextvars import ContextVar
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from polly_dockers import config
from polly_dockers.db.sqlite import is_backup
from polly_dockers.server import data_folder
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Connection

    from polly_dockers.context import Context

T = TypeVar("T")

_OPTION: Final[ContextVar[str]] = ContextVar("option", default="")
"""`` --data DIR`` where the command line had it."""


# --- options ---------------------------------------------------------------------------------------------------


def _choose(context: typer.Context, given: Path) -> Path:
    """The folder of --data or POLLY_DATA, else of the settings file, else ./data. Raises BadRequest."""
    if context.resilient_parsing:
        return given
    source = context.get_parameter_source("data")
    if source is not None and source.name == "DEFAULT":
        return config.find_data_folder(os.environ, context.params.get("config_file"))
    _OPTION.set(f" --data {quote(str(given))}" if source is not None and source.name == "COMMANDLINE" else "")
    return given


Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="POLLY_DATA",
        show_envvar=False,
        readable=False,
        metavar="DIR",
        callback=_choose,
        help="Data folder. Without it, the settings file names the folder.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", readable=False, metavar="FILE", is_eager=True, help="TOML file of the server's settings."),
]
"""Read before --data, which the file may set."""


def option() -> str:
    """`` --data DIR`` for a command that is printed; empty where the command line did not have it."""
    return _OPTION.get()


def with_option(message: str) -> str:
    """The message, with ``option`` added to every polly-server command in it that has no --data."""
    commands = r"\bpolly-server (?:(?:org|user|key) [a-z-]+|check|gc|rebuild)\b(?!.* --data )"
    return re.sub(commands, lambda command: command[0] + option(), message)


# --- opening ---------------------------------------------------------------------------------------------------


def settings(data: Path, file: Path | None = None) -> config.Config:
    """The settings of the folder: those of the file and the environment, else those of the server that ran last."""
    running = config.read_running(data)
    with ownership.acting(None):  # only root may be allowed to read the settings file
        return config.load({"data": str(data)}, os.environ, file, running)


def transaction(data: Path, fn: Callable[[Connection], T]) -> T:
    """Open the registry in the folder, and return what ``fn`` returns, called in one transaction.

    A server may be running. Raises Unavailable where the folder has no registry, or one that can't be used.
    """
    data_folder.require(data)
    return data_folder.transaction(data, fn)


def read(data: Path, fn: Callable[[Connection], T]) -> T:
    """As ``transaction``, for a function that only reads. The folder may be a backup, and is not changed then."""
    data_folder.require(data, reads=True)
    return (data_folder.read_backup if is_backup(data) else data_folder.transaction)(data, fn)


def run(
    data: Path, work: Callable[[Context], Awaitable[T]], config_file: Path | None = None, *, reads: bool = False
) -> T:
    """Open the registry in the folder, and return what ``work`` returns. A server may be running.

    With ``reads``, ``work`` only reads, and the folder may be a backup. Raises Unavailable as ``transaction``, and
    BadRequest for settings that are wrong.
    """
    data_folder.require(data, reads=reads)
    found = settings(data, config_file)
    if not reads:
        data_folder.catch_up(data)

    async def run() -> T:
        context = await data_folder.open_context(found)
        try:
            return await work(context)
        finally:
            context.close()

    with data_folder.damage_explained(data) if is_backup(data) else data_folder.explained(data):
        return asyncio.run(run())
