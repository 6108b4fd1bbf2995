"""Help, arguments and exit codes of polly-server's commands, as polly has them."""

from __future__ import annotations

import datetime as dt
import inspect
import sys
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Final, get_type_hints

import typer

from polly_dockers.cli import terminal, usage_errors
from polly_dockers.cli.help import HelpedGroup, argument_for, set_parameters
from polly_dockers.system import process
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

CONTEXT: Final = {"help_option_names": ["--help", "-h"], "max_content_width": 100}


def group(help: str, *, root: bool = False) -> typer.Typer:  # noqa: A002 - typer's word
    """A group of commands with help as polly's groups have. The root group also has completion for shells."""
    return typer.Typer(
        cls=HelpedGroup,
        no_args_is_help=True,
        add_completion=root,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=help,
        context_settings=CONTEXT,
    )


def complete(app: typer.Typer) -> int:
    """Run the command that the arguments of the process name, and return its exit code: 2 for a wrong command line.

    Raises OSError if stdout can't be written.
    """
    try:
        code = app(prog_name="polly-server", standalone_mode=False)
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            return process.INTERRUPTED
        tell("Nothing was changed.", aside=True)
        return 1
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error, file=sys.stderr)
            return 2
        if hasattr(error, "format_message"):  # click's errors for a wrong command line
            tell(f"Error: {usage_errors.message(error)}", aside=True)
            return 2
        raise
    finally:
        sys.stdout.flush()
    return code if isinstance(code, int) else 0


def named_by(option: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the command also takes the value of the option as an argument, without the option's name."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        annotations = get_type_hints(function, include_extras=True)
        annotations.pop("return", None)
        defaults = {each.name: each.default for each in inspect.signature(function).parameters.values()}
        annotations["argument"], defaults["argument"] = argument_for(f"--{option}", option.upper()), None
        annotations[option], defaults[option] = Annotated[str | None, annotations[option].__metadata__[0]], None
        annotations["context"], defaults["context"] = typer.Context, inspect.Parameter.empty

        @wraps(function)
        def named(context: typer.Context, **values: object) -> None:
            bare, given = values.pop("argument"), values[option]
            if bare is not None and given not in {None, bare}:
                context.fail(f"{bare!r} and --{option} {given!r} are different. Give one of them.")
            values[option] = bare if given is None else given
            function(**values)

        named.named_by = option  # type: ignore[attr-defined]  # HelpedCommand refuses to miss it
        set_parameters(named, annotations, defaults)
        return named

    return decorate


def tell(text: str, *, aside: bool = False) -> None:
    """Print a message on stdout, or with ``aside`` on stderr. On a terminal it is wrapped between words."""
    stream = sys.stderr if aside else sys.stdout
    print(terminal.fitted(text, stream), file=stream)


def confirm(what: str, question: str, nothing: str, action: str) -> None:
    """Say on stderr what the command does, and ask. Raises SystemExit if there is no terminal, and Abort for a no.

    ``nothing`` says that nothing was done; ``action`` completes "To … without a question, add --yes".
    """
    tell(what, aside=True)
    if not sys.stdin.isatty():
        tell(f"Error: {nothing} To {action} without a question, add --yes.", aside=True)
        raise SystemExit(2)
    typer.confirm(question, abort=True, err=True)


def moment(microseconds: int) -> str:
    """A time of the database, in microseconds, as ISO 8601 in UTC with milliseconds, as ``/api/v1`` has it."""
    at = dt.datetime.fromtimestamp(microseconds / SECOND, dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
