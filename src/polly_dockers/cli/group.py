"""Groups of commands: they add the options of every command, ask for what is missing, and end with an exit code.

A command is a function whose first argument is the ``Call``; its other arguments are its options. Errors become
messages and exit codes in one place, ``_runnable``.
"""

from __future__ import annotations

import inspect
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from polly_dockers.cli import server_url, terminal
from polly_dockers.cli.call import Call
from polly_dockers.cli.errors import CommandError, DeclinedError, UsageError
from polly_dockers.cli.help import HelpedCommand, HelpedGroup, argument_for, set_parameters
from polly_dockers.cli.options import COMMON
from polly_dockers.system import process

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = ("name", "email")
"""Options that say what a command is about; their value may stand without the option's name."""
_ARGUMENT = "argument"
_NEEDED = frozenset({"--name", "--description", "--email", "--label"})
"""Options that a command refuses to miss, so its error for an empty one does not offer to leave it out."""


class Commands:
    """The commands of one noun, for a group to include."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - settings of typer
        self.functions: dict[str, Callable[..., None]] = {}
        self.app = typer.Typer(**settings)

    def command(
        self, name: str, examples: str, argument: str | None = None
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Register the function as a command; its docstring is the help, ``examples`` (a line each) follow it.

        ``argument`` names the option whose value may also stand without the option's name. The default is the first
        of ``name`` and ``email`` that the command has.
        """

        def register(function: Callable[..., None]) -> Callable[..., None]:
            self.functions[name] = function
            self.app.command(name, epilog=examples, cls=HelpedCommand)(_runnable(function, argument=argument))
            return function

        return register


class Group(Commands):
    """A group of commands; on a terminal, without a command, it asks which one to run."""

    def __init__(self, name: str, help: str, examples: str, question: str) -> None:  # noqa: A002
        """Take the full name (``polly dockers``), the help, examples (a line each), and the question of the menu."""
        self.name = name
        self.question = question
        super().__init__(
            cls=HelpedGroup,
            help=help,
            epilog=examples,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,  # some versions print the values of variables, secrets among them
            add_completion=" " not in name,  # at the root
            context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
        )

    def include(self, commands: Commands, *, at: int | None = None) -> None:
        """Add the commands of another noun to this group: at the end, or before its command number ``at``."""
        names = list(self.functions)
        at = len(names) if at is None else at
        self.app.registered_commands[at:at] = commands.app.registered_commands
        self.functions |= commands.functions
        self.functions = {name: self.functions[name] for name in [*names[:at], *commands.functions, *names[at:]]}

    def add(self, group: Group) -> None:
        """Add a group below this one."""
        name = group.name.rpartition(" ")[2]
        self.app.add_typer(group.app, name=name)
        self.functions[name] = group.ask

    def ask_if_alone(self, **extra: tuple[Any, Any]) -> None:
        """Make the group ask which command to run if none is given; ``extra`` are options of the group itself."""

        def callback(call: Call, **_: object) -> None:
            if call.alone:
                self.ask(call)

        self.app.callback(invoke_without_command=True)(_runnable(callback, extra))

    def ask(self, call: Call) -> None:
        """Ask which command to run, and run it; it asks for everything that it needs."""
        if not call.may_ask():
            msg = f"Which command? {', '.join(self.functions)}; see {self.name} --help."
            raise UsageError(msg)
        from polly_dockers.cli import prompts

        call.guided = call.asked = True
        self.functions[prompts.choose(self.question, list(self.functions))](call)


def _runnable(
    function: Callable[..., None], extra: dict[str, tuple[Any, Any]] | None = None, argument: str | None = None
) -> Callable[..., None]:
    """Return the function for typer: with the options of every command, and with every known error as a message."""
    hints = get_type_hints(function, include_extras=True)
    own = [each for each in list(inspect.signature(function).parameters.values())[1:] if each.kind != each.VAR_KEYWORD]
    annotations = {each.name: hints[each.name] for each in own}
    defaults = {each.name: each.default for each in own}
    annotations["context"], defaults["context"] = typer.Context, inspect.Parameter.empty
    for name, (annotation, default) in ((extra or {}) | COMMON).items():
        annotations[name], defaults[name] = annotation, default
    argument = argument or next((each for each in _NAMES if each in hints), None)
    if argument:
        flag = _flag(argument, annotations[argument])
        metavar = _option(annotations[argument]).metavar
        annotations[_ARGUMENT], defaults[_ARGUMENT] = argument_for(flag, metavar), None

    @wraps(function)
    def run(context: typer.Context, **values: object) -> None:
        common: dict[str, Any] = context.ensure_object(dict)  # the groups' own: `polly --no-input dockers list`
        try:
            if argument:
                values[argument] = _either(flag, values.pop(_ARGUMENT), values[argument])
            _check_empty({_flag(name, annotations[name]): values[name] for name in values if defaults[name] is None})
            common |= {name: value for name in COMMON if (value := values.pop(name))}
            call = Call(**{name: common[name] for name in COMMON if name in common})
            call.alone = context.invoked_subcommand is None
            function(call, **values)
            sys.stdout.flush()
            call.finish()
        except CommandError as error:
            terminal.say(error.message if isinstance(error, DeclinedError) else f"Error: {error.message}")
            raise typer.Exit(error.code) from error
        except (KeyboardInterrupt, EOFError) as error:
            process.drop_output()
            raise typer.Exit(process.INTERRUPTED) from error
        except BrokenPipeError as error:
            process.drop_output()
            raise typer.Exit(process.PIPE_CLOSED) from error
        except OSError as error:
            process.drop_output()
            place = f"{error.filename}: " if error.filename else "The output can't be written: "
            terminal.say(f"Error: {place}{error.strerror or 'it failed'}.")
            raise typer.Exit(1) from error

    set_parameters(run, annotations, defaults)
    return run


def _option(annotation: Any) -> OptionInfo:  # noqa: ANN401 - an annotation of typer
    return next(each for each in get_args(annotation)[1:] if isinstance(each, OptionInfo))


def _flag(name: str, annotation: Any) -> str:  # noqa: ANN401 - an annotation of typer
    """Return the name of an option as it is typed: ``--name``."""
    option = _option(annotation)
    words = (option.default, *(option.param_decls or ()))  # until it runs, typer keeps the first word as the default
    return next(
        (each for each in words if isinstance(each, str) and each.startswith("--")), f"--{name.replace('_', '-')}"
    )


def _check_empty(values: dict[str, object]) -> None:
    """Raise UsageError for an option with an empty value, which would act as if the option were missing."""
    for flag, value in values.items():
        if value == "":
            msg = f"{flag} is empty. Give it a value{'' if flag in _NEEDED else ', or leave it out'}."
            raise UsageError(msg)


def _either(flag: str, argument: object, option: object) -> object:
    """Return the value of an option that may also be given as the argument. Raises UsageError if the two differ."""
    if argument is not None and option not in {None, argument}:
        shown = [str(each) if flag == "--email" else server_url.masked(str(each)) for each in (argument, option)]
        msg = f"{shown[0]!r} and {flag} {shown[1]!r} are different. Give one of them."
        raise UsageError(msg)
    return option if argument is None else argument
