"""What all commands have in common: options, help with examples, questions, and how they end.

A command is a function whose first argument is the ``Call``; its other arguments are its options. ``Group.command``
adds the options that every command has, and the one place where errors become messages and exit codes.
"""

from __future__ import annotations

import inspect
import shlex
import sys
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from polly_dockers.cli import server_url, terminal
from polly_dockers.cli.errors import CommandError, DeclinedError, UsageError
from polly_dockers.system import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from polly_dockers.cli.session import Session

Output: TypeAlias = Annotated[
    Literal["table", "json"],
    typer.Option("--output", metavar="table|json", help="A table for people, or JSON for programs."),
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="All of them, newest first.")]
Latest: TypeAlias = Annotated[int | None, typer.Option(min=1, metavar="N", help="The N newest.")]
Oldest: TypeAlias = Annotated[int | None, typer.Option(min=1, metavar="N", help="The N oldest, oldest first.")]
_PANEL = "Options of every command"
_SENTENCE = 1000
"""Letters that a sentence of the help never has."""


@dataclass
class Call:
    """One call of a command: the options that every command has, and what a person was asked."""

    profile: str | None = None
    server: str | None = None
    org: str | None = None
    no_input: bool = False
    guided: bool = False
    """Whether the command was chosen from a menu."""
    alone: bool = False
    """Whether a group was called without a command."""
    line: list[str] = field(default_factory=list)
    """The same command in one line, to be shown where something was asked."""
    asked: bool = False

    @cached_property
    def session(self) -> Session:
        """Who is signed in where. Raises CommandError when nobody is."""
        from polly_dockers.cli import session

        return session.resolve(self.profile, self.server, self.org)

    def may_ask(self) -> bool:
        """Tell whether a person can be asked."""
        return not self.no_input and terminal.asks()

    def need(self, option: str, question: Callable[[], str], reason: str = "") -> str:
        """Return the answer to the question for a missing option. Raises UsageError where nobody can be asked.

        ``reason`` says what the option is for, where its name does not.
        """
        if not self.may_ask():
            msg = f"{option} is missing{reason and f': {reason}'}."
            raise UsageError(msg)
        self.asked = True
        return question()

    def remember(
        self, command: str, repository: tuple[str, str] | None = None, /, **options: str | bool | None
    ) -> None:
        """Note the command in one line, where something was asked: True is a flag, None and False are left out.

        ``repository`` is organisation and name of the docker repository that --name means.
        """
        if not self.asked:
            return
        if repository:
            options = {"name": self.session.spelled(*repository), **options}
        chosen = self.__dict__["session"].chosen if "session" in self.__dict__ else self.org
        common = {"profile": self.profile, "server": self.server, "org": chosen or None}
        self.line = command.split()
        for name, value in {**common, **options}.items():
            if value not in {None, False}:
                self.line.append("--" + name.replace("_", "-"))
                self.line += [value] if isinstance(value, str) else []

    def finish(self) -> None:
        """Show the command in one line, where the person had to answer something."""
        if self.asked and self.line:
            terminal.say(f"The same in one line: {shlex.join(self.line)}")


_NAMES = ("name", "email")
"""Options that say what a command is about; their value may stand without the option's name."""
_ARGUMENT = "argument"

_COMMON: dict[str, tuple[Any, Any]] = {
    "profile": (
        Annotated[
            str | None,
            typer.Option(
                metavar="NAME", help="The name of a signed-in server; also POLLY_PROFILE.", rich_help_panel=_PANEL
            ),
        ],
        None,
    ),
    "server": (
        Annotated[
            str | None,
            typer.Option(metavar="URL", help="The address of the server; also POLLY_SERVER.", rich_help_panel=_PANEL),
        ],
        None,
    ),
    "org": (
        Annotated[
            str | None, typer.Option(metavar="NAME", help="The organisation; also POLLY_ORG.", rich_help_panel=_PANEL)
        ],
        None,
    ),
    "no_input": (
        Annotated[
            bool, typer.Option("--no-input", help="Never ask; fail if something is missing.", rich_help_panel=_PANEL)
        ],
        False,
    ),
}


class _Help:
    """Help in sections: the command's own options, those of every command, and examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer gives them no public name
        sections: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):  # type: ignore[attr-defined]
            record = each.get_help_record(ctx)
            if record:
                kind = "Options"
                if each.param_type_name == "argument":
                    kind, record = "Argument", (each.metavar, record[1])
                sections.setdefault(getattr(each, "rich_help_panel", None) or kind, []).append(record)
        for title in sorted(sections, key=["Argument", "Options", _PANEL].index):
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


class HelpedCommand(_Help, TyperCommand):
    """A command with such a help, which takes each option once: of two values one would be passed over in silence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer gives it no public name
        """As of every command, and exit code 2 for an option that is there twice, or a path that is empty."""
        try:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        except Exception as error:
            if getattr(error, "ctx", self) is None:
                error.ctx = ctx  # type: ignore[attr-defined]  # for the message, which says where help is
            raise
        for each in order:
            if getattr(each, "metavar", None) in {"DIR", "FILE"} and given.get(each.name) == "":
                ctx.fail(f"{each.opts[0]} is empty.")  # the folder that one happens to be in is written "."
            if order.count(each) > 1 and not getattr(each, "is_flag", False):
                ctx.fail(f"{each.opts[0]} is there twice: give it once.")
            if set(each.opts) & set(args) and set(each.secondary_opts) & set(args) and order.count(each) > 1:
                ctx.fail(f"{each.opts[0]}/{each.secondary_opts[0]} is there twice: give it once.")
        return super().parse_args(ctx, args)


class HelpedGroup(_Help, TyperGroup):
    """A group with such a help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer gives them no public name
        """List the commands, each with its whole first sentence, which goes on below itself where there is no room."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(_SENTENCE)) for name, each in found if each and not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Group:
    """A group of commands; called alone on a terminal it asks which one."""

    def __init__(self, name: str, help: str, examples: str, question: str) -> None:  # noqa: A002
        """Take the whole name (``polly dockers``), what help says, examples (a line each), and the question."""
        self.name = name
        self.question = question
        self.commands: dict[str, Callable[..., None]] = {}
        self.app = typer.Typer(
            cls=HelpedGroup,
            help=help,
            epilog=examples,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,  # some versions print the values of variables, secrets among them
            add_completion=" " not in name,  # at the root
            context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
        )

    def command(
        self, name: str, examples: str, argument: str | None = None
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Register the function as a command; its docstring is the help, ``examples`` (a line each) stand below.

        ``argument`` is the option whose value may also stand without the option's name; without one it is the first
        of ``name`` and ``email`` that the command has.
        """

        def register(function: Callable[..., None]) -> Callable[..., None]:
            self.commands[name] = function
            self.app.command(name, epilog=examples, cls=HelpedCommand)(_bounded(function, argument=argument))
            return function

        return register

    def add(self, group: Group) -> None:
        """Put a group below this one."""
        name = group.name.rpartition(" ")[2]
        self.app.add_typer(group.app, name=name)
        self.commands[name] = group.ask

    def alone(self, **extra: tuple[Any, Any]) -> None:
        """Let the group ask which command is meant where none is given; ``extra`` are options of the group alone."""

        def callback(call: Call, **_: object) -> None:
            if call.alone:
                self.ask(call)

        self.app.callback(invoke_without_command=True)(_bounded(callback, extra))

    def ask(self, call: Call) -> None:
        """Ask which command is meant, and run it with questions for all that it needs."""
        if not call.may_ask():
            msg = f"Which command? {', '.join(self.commands)}; see {self.name} --help."
            raise UsageError(msg)
        from polly_dockers.cli import prompts

        call.guided = call.asked = True
        self.commands[prompts.choose(self.question, list(self.commands))](call)


def _bounded(
    function: Callable[..., None], extra: dict[str, tuple[Any, Any]] | None = None, argument: str | None = None
) -> Callable[..., None]:
    """Return the function as typer takes it: with the common options, and with every known error made a message."""
    hints = get_type_hints(function, include_extras=True)
    own = [each for each in list(inspect.signature(function).parameters.values())[1:] if each.kind != each.VAR_KEYWORD]
    annotations = {each.name: hints[each.name] for each in own}
    defaults = {each.name: each.default for each in own}
    annotations["context"], defaults["context"] = typer.Context, inspect.Parameter.empty
    for name, (annotation, default) in ((extra or {}) | _COMMON).items():
        annotations[name], defaults[name] = annotation, default
    argument = argument or next((each for each in _NAMES if each in hints), None)
    if argument:
        flag = _flag(argument, annotations[argument])
        annotations[_ARGUMENT], defaults[_ARGUMENT] = _as_argument(argument, annotations[argument]), None

    @wraps(function)
    def bounded(context: typer.Context, **values: object) -> None:
        common: dict[str, Any] = context.ensure_object(dict)  # the groups' own: `polly --no-input dockers list`
        try:
            if argument:
                values[argument] = _either(flag, values.pop(_ARGUMENT), values[argument])
            _check_empty({_flag(name, annotations[name]): values[name] for name in values if defaults[name] is None})
            common |= {name: value for name in _COMMON if (value := values.pop(name))}
            call = Call(**{name: common[name] for name in _COMMON if name in common})
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

    kind = inspect.Parameter.KEYWORD_ONLY
    bounded.__annotations__ = annotations
    bounded.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, default=defaults[name], annotation=annotations[name]) for name in annotations]
    )
    return bounded


def _as_argument(name: str, annotation: Any) -> object:  # noqa: ANN401 - an annotation of typer
    """Return the annotation of the argument that stands for an option."""
    option = _option(annotation)
    words = f"The same as {_flag(name, annotation)}, which may be left out before it."
    return Annotated[str | None, typer.Argument(metavar=option.metavar, help=words, show_default=False)]


def _option(annotation: Any) -> OptionInfo:  # noqa: ANN401 - an annotation of typer
    return next(each for each in get_args(annotation)[1:] if isinstance(each, OptionInfo))


def _flag(name: str, annotation: Any) -> str:  # noqa: ANN401 - an annotation of typer
    """Return ``--name`` of an option."""
    option = _option(annotation)
    words = (option.default, *(option.param_decls or ()))  # typer takes the first word for the default until it runs
    return next(
        (each for each in words if isinstance(each, str) and each.startswith("--")), f"--{name.replace('_', '-')}"
    )


def _check_empty(values: dict[str, object]) -> None:
    """Raise UsageError for an option that is there without a value: it would mean what leaving it out means."""
    for flag, value in values.items():
        if value == "":
            msg = f"{flag} is empty. Give it a value, or leave it out."
            raise UsageError(msg)


def _either(flag: str, argument: object, option: object) -> object:
    """Return the value of an option that may also be the argument. Raises UsageError where they differ."""
    if argument is not None and option not in {None, argument}:
        shown = [str(each) if flag == "--email" else server_url.masked(str(each)) for each in (argument, option)]
        msg = f"{shown[0]!r} and {flag} {shown[1]!r} are different. Give one of them."
        raise UsageError(msg)
    return option if argument is None else argument
