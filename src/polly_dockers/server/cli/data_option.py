"""Which data folder a command of polly-server means, and how a command that is printed names the same one."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from pathlib import Path
from shlex import quote
from typing import Annotated, Final

import typer

from polly_dockers import config
from polly_dockers.system import ownership

_SAME: Final[ContextVar[str]] = ContextVar("same", default="")


def same() -> str:
    """`` --data DIR`` where the command line had it; empty where a variable, the settings or nothing did."""
    return _SAME.get()


def with_same(message: str) -> str:
    """The message, with that option in every command of polly-server that it names and that has none."""
    return re.sub(r"\bpolly-server (?:(?:org|user|key) [a-z-]+|check|gc|rebuild)\b(?!.* --data )", _with, message)


def _with(command: re.Match[str]) -> str:
    return command[0] + same()


def _chosen(context: typer.Context, given: Path) -> Path:
    """The folder of --data or POLLY_DATA, else of the settings file, else ./data. Raises BadRequest."""
    if context.resilient_parsing:
        return given
    source = context.get_parameter_source("data")
    if source is not None and source.name == "DEFAULT":
        return config.find_data_folder(os.environ, context.params.get("config_file"))
    _SAME.set(f" --data {quote(str(given))}" if source is not None and source.name == "COMMANDLINE" else "")
    return given


Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="POLLY_DATA",
        show_envvar=False,
        readable=False,
        metavar="DIR",
        callback=_chosen,
        help="Data folder; else that of the settings file.",
    ),
]
Org = Annotated[str, typer.Option("--org", metavar="NAME", help="Slug of the organisation, such as acme.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", readable=False, metavar="FILE", is_eager=True, help="TOML file of the server's settings."),
]
"""Read before --data, which may be a line of it."""


def settings(data: Path, file: Path | None = None) -> config.Config:
    """The settings of the folder's server: those of a file or the variables, else those of the one that runs."""
    running = config.read_running(data)
    with ownership.acting(None):  # the file of the settings may be for root alone
        return config.load({"data": str(data)}, os.environ, file, running)
