"""Questions to a person, on stderr, because stdout is for data. Ctrl-C at a question ends the command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from polly_dockers import password_rules
from polly_dockers.cli import terminal
from polly_dockers.cli.errors import UsageError
from polly_dockers.system import process, secret_input

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


FEW = 20
"""The most suggestions that are shown before the person types something."""


def choose(message: str, choices: Sequence[str], default: str | None = None) -> str:
    """Return the choice that the person selects with the arrow keys."""
    return str(_answer("select", message, choices=list(choices), default=default))


def text(
    message: str,
    *,
    prefix: str = "",
    default: str = "",
    suggested: str = "",
    check: Callable[[str], str | None] | None = None,
    at_end: bool = False,
) -> str:
    """Return the text that the person types.

    ``prefix`` is shown before the cursor. ``check`` returns what is wrong with the text, or None; it runs at each key,
    or with ``at_end`` only on the whole text, for checks that ask the server. ``default`` can be edited; ``suggested``
    disappears at the first key, and is returned if nothing is typed.
    """
    whole = f"{message} {prefix}".rstrip()
    options: dict[str, Any] = {"default": default, "validate": _validator(check, empty=bool(suggested))}
    if suggested:
        options["placeholder"] = [("class:placeholder", suggested)]
    return str(_answer("text", whole, validate_while_typing=not at_end, **options)).strip() or suggested


def one_of(
    message: str, known: Sequence[str], *, prefix: str = "", check: Callable[[str], str | None] | None = None
) -> str:
    """Return the text that the person types, and offer the ``known`` texts that match it; if they are few, all at once.

    ``check`` is as in ``text``, for the whole text only.
    """
    if not known:
        return text(message, prefix=prefix, check=check, at_end=True)
    whole = f"{message} {prefix}".rstrip()
    options: dict[str, Any] = {"choices": list(known), "validate": _validator(check), "validate_while_typing": False}
    return str(_answer("autocomplete", whole, opened=len(known) <= FEW, **options)).strip()


def password(message: str) -> str:
    """Return a password, which is not shown. Raises UsageError if it is not text in the terminal's encoding."""
    return of_environment(str(_answer("password", message)))


def new_password(message: str, check: Callable[[str], str | None] | None = None) -> str:
    """Return a password that the rules allow. Another one is refused, and the person may correct it.

    ``check`` returns what else is wrong with it, or None. Raises UsageError as ``password``.
    """

    def wrong(typed: str) -> str | None:
        try:
            text = of_environment(typed)
        except UsageError as error:
            return error.message
        return password_rules.problem(text) or (check(text) if check else None)

    options: dict[str, Any] = {"validate": _validator(wrong), "validate_while_typing": False}
    return of_environment(str(_answer("password", message, **options)))


def line_of_stdin(what: str) -> str:
    """Return the next line of stdin as a password. ``what`` names it in messages: "the new password".

    Raises UsageError if it is not a password; the message shows nothing of it.
    """
    try:
        return secret_input.line(what)
    except secret_input.UnreadableError as error:
        raise UsageError(error.message) from error


def of_environment(text: str, what: str = "the password") -> str:
    """Return a password from the terminal or the environment. Raises UsageError as ``line_of_stdin``."""
    try:
        return secret_input.typed(text, what)
    except secret_input.UnreadableError as error:
        raise UsageError(error.message) from error


def yes(message: str) -> bool:
    """Return whether the person answers yes."""
    return bool(_answer("confirm", message, default=False))


def _validator(check: Callable[[str], str | None] | None, *, empty: bool = False) -> Callable[[str], bool | str]:
    def validate(answer: str) -> bool | str:
        if not answer.strip():
            if empty:
                return True
            return _hint("Please enter something, or press Ctrl-C to quit.")
        wrong = check(answer) if check else None
        return _hint(wrong) if wrong else True

    return validate


def _hint(text: str) -> str:
    """Return what is wrong with an answer in lines that fit the terminal."""
    return "\n".join(terminal.wrapped(text, terminal.width(sys.stderr)))


def _show_whole_hints(application: Any) -> None:  # noqa: ANN401 - the library is only imported if needed
    """Give the hint at the lower edge as many lines as it has. The library shows one, and cuts off the rest."""
    from prompt_toolkit.filters import Always
    from prompt_toolkit.layout import Window

    for each in application.layout.walk():
        text = getattr(each.content, "text", None) if isinstance(each, Window) else None
        if getattr(text, "__qualname__", "").startswith("ValidationToolbar."):
            each.height = None
            each.dont_extend_height = Always()


def _answer(kind: str, message: str, *, opened: bool = False, **options: object) -> object:
    """Ask a question of the library. ``opened``: its list of suggestions is shown before a key is pressed."""
    import questionary
    from prompt_toolkit.output import create_output

    room = terminal.width(sys.stderr) - len("?  ")
    shown = "\n".join(terminal.wrapped(message, room))
    question = getattr(questionary, kind)(shown, output=create_output(stdout=sys.stderr), **options)
    application = question.application
    _show_whole_hints(application)
    if opened:
        application.pre_run_callables.append(lambda: application.current_buffer.start_completion(select_first=False))
    with process.restored_terminal():
        return question.unsafe_ask()
