"""Questions to a person, on stderr, so that stdout stays the data's. Ctrl-C at any of them ends the command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from polly_dockers.cli.errors import UsageError
from polly_dockers.system import process, secret_input

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def choose(message: str, choices: Sequence[str], default: str | None = None) -> str:
    """Return one of the choices, taken with the arrow keys."""
    return str(_answer("select", message, choices=list(choices), default=default))


def text(
    message: str,
    *,
    before: str = "",
    default: str = "",
    suggested: str = "",
    check: Callable[[str], str | None] | None = None,
    at_end: bool = False,
) -> str:
    """Return what was typed. ``before`` stands before the cursor; ``check`` returns what is wrong with an answer.

    With ``at_end`` it is asked about the whole answer only, not at each key: where it asks the server.
    ``default`` is a text to go on with; ``suggested`` is the answer where nothing is typed, and gives way to what is.
    """
    whole = f"{message} {before}".rstrip()
    options: dict[str, object] = {"default": default, "validate": _validator(check, empty=bool(suggested))}
    if suggested:
        options["placeholder"] = [("class:placeholder", suggested)]
    return str(_answer("text", whole, validate_while_typing=not at_end, **options)).strip() or suggested


def one_of(
    message: str, known: Sequence[str], *, before: str = "", check: Callable[[str], str | None] | None = None
) -> str:
    """Return what was typed; what is known and fits is offered while typing.

    ``check`` is as in ``text``, about the whole answer only.
    """
    if not known:
        return text(message, before=before, check=check, at_end=True)
    whole = f"{message} {before}".rstrip()
    options = {"choices": list(known), "validate": _validator(check), "validate_while_typing": False}
    return str(_answer("autocomplete", whole, **options)).strip()


def password(message: str) -> str:
    """Return a password, which is not shown. Raises UsageError for what is not text in the terminal's encoding."""
    return of_environment(str(_answer("password", message)))


def line_of_stdin(what: str) -> str:
    """Return a password that is the next line of stdin. Raises UsageError, which shows nothing of it, for what is none.

    ``what`` names it in a message: "the new password".
    """
    try:
        return secret_input.line(what)
    except secret_input.UnreadableError as error:
        raise UsageError(error.message) from error


def of_environment(text: str, what: str = "the password") -> str:
    """Return a password that the terminal or the environment gave. Raises UsageError as ``line_of_stdin``."""
    try:
        return secret_input.typed(text, what)
    except secret_input.UnreadableError as error:
        raise UsageError(error.message) from error


def yes(message: str, *, default: bool = False) -> bool:
    """Return whether the answer was yes."""
    return bool(_answer("confirm", message, default=default))


def _validator(check: Callable[[str], str | None] | None, *, empty: bool = False) -> Callable[[str], bool | str]:
    def validate(answer: str) -> bool | str:
        if not answer.strip():
            if empty:
                return True
            return "An answer is needed here; Ctrl-C leaves."
        return (check and check(answer)) or True

    return validate


def _answer(kind: str, message: str, **options: object) -> object:
    import questionary
    from prompt_toolkit.output import create_output

    question = getattr(questionary, kind)(message, output=create_output(stdout=sys.stderr), **options)
    with process.restored_terminal():
        return question.unsafe_ask()
