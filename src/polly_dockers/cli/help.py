"""Help in sections with examples, and parameters that typer reads: for polly and polly-server."""

from __future__ import annotations

import inspect
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from polly_dockers.cli.options import ARGUMENTS, COMMON_PANEL

if TYPE_CHECKING:
    from collections.abc import Callable

_SENTENCE = 1000
"""More characters than any first sentence of the help has."""


_HYPHEN = "\u2011"
"""A hyphen at which the library breaks no line. The help has no such character of its own."""


class _Formatter:
    """Break the lines of the help between words only: an option such as --code-stdin stays whole."""

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _HYPHEN))  # type: ignore[misc]

    def write_dl(self, rows: Any, *args: Any, **named: Any) -> None:  # noqa: ANN401 - as the library's
        whole = [(name, text.replace("-", _HYPHEN)) for name, text in rows]
        super().write_dl(whole, *args, **named)  # type: ignore[misc]

    def getvalue(self) -> str:
        return str(super().getvalue()).replace(_HYPHEN, "-")  # type: ignore[misc]


class _Help:
    """Print the options of the command, then the options of every command, then the examples."""

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - typer gives it no public name
        """Return the whole help of the command."""
        ctx.formatter_class = type("Formatter", (_Formatter, ctx.formatter_class), {})
        return str(super().get_help(ctx))  # type: ignore[misc]

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer gives them no public name
        sections: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):  # type: ignore[attr-defined]
            record = each.get_help_record(ctx)
            if record:
                record = record[0], _ranges(record[1])
                kind = "Options"
                if each.param_type_name == "argument":
                    kind, record = "Argument", (each.metavar, record[1])
                sections.setdefault(getattr(each, "rich_help_panel", None) or kind, []).append(record)
        for title in sorted(sections, key=["Argument", "Options", COMMON_PANEL].index):
            with formatter.section(title):
                formatter.write_dl(sections[title])
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer gives them no public name
        del ctx
        examples = (self.epilog or "").splitlines()  # type: ignore[attr-defined]
        if examples:
            with formatter.section("Example" if len(examples) == 1 else "Examples"):
                formatter.write("".join(f"  {each}\n" for each in examples))


def _ranges(text: str) -> str:
    """Return a help text with the library's ranges in words: 1 to 1000, or 1 or more."""
    return re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", re.sub(r"x>=([\d.]+)", r"\1 or more", text))


class HelpedCommand(_Help, TyperCommand):
    """A command with this help. It accepts each option once, because the first of two values would be ignored."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer gives it no public name
        """Parse the arguments; exit with code 2 for an option that is missing or given twice, or an empty path."""
        ctx.meta[ARGUMENTS] = list(args)
        try:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        except Exception as error:
            if getattr(error, "ctx", self) is None:
                error.ctx = ctx  # type: ignore[attr-defined]  # for the message, which names the command's help
            raise
        for each in order:
            if getattr(each, "metavar", None) in {"DIR", "FILE"} and given.get(each.name) == "":
                ctx.fail(f"{each.opts[0]} is empty.")  # the current folder is written "."
            if order.count(each) > 1 and not getattr(each, "is_flag", False):
                ctx.fail(f"{each.opts[0]} is given twice: give it once.")
            if set(each.opts) & set(args) and set(each.secondary_opts) & set(args) and order.count(each) > 1:
                ctx.fail(f"{each.opts[0]} and {each.secondary_opts[0]} can't be together: choose one.")
        missing = self._missing(given)
        if missing and not ctx.resilient_parsing and all(each.name != "help" for each in order):
            ctx.fail(" ".join(missing))
        return super().parse_args(ctx, args)

    def _missing(self, given: dict[str, Any]) -> list[str]:
        """Return a sentence for each option that is needed and not among the ``given`` ones."""
        named_by = getattr(self.callback, "named_by", "")  # this one may stand without its name
        missing = [
            f"{each.opts[0]} is missing."
            for each in self.params
            if given.get(each.name or "") is None
            and (each.required or (each.name == named_by and given.get("argument") is None))
        ]
        asks = any(each.name == "password_stdin" for each in self.params)
        if missing and asks and not (given.get("password_stdin") or given.get("keep_password") or sys.stdin.isatty()):
            missing.append("--password-stdin is missing. Give it, and the password on stdin.")
        if missing and any(each.name == "yes" for each in self.params) and not (given.get("yes") or sys.stdin.isatty()):
            missing.append("--yes is missing. It confirms the command without a question.")
        return missing


class HelpedGroup(_Help, TyperGroup):
    """A group of commands with this help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer gives them no public name
        """List the commands, each with its whole first sentence, wrapped to the width of the terminal."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(_SENTENCE)) for name, each in found if each and not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def argument_for(flag: str, metavar: str | None) -> object:
    """Return the annotation of an argument that stands for the value of an option."""
    words = f"The same as {flag}; you may leave out {flag}."
    return Annotated[str | None, typer.Argument(metavar=metavar, help=words, show_default=False)]


def set_parameters(function: Callable[..., None], annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Give a function the keyword parameters that typer is to make options of."""
    kind = inspect.Parameter.KEYWORD_ONLY
    function.__annotations__ = annotations
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, default=defaults[name], annotation=annotations[name]) for name in annotations]
    )
