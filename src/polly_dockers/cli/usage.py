"""A command line that can't be understood, in the words of the product: one line, and exit code 2."""

from __future__ import annotations

import re
from typing import Any

_WORDS = (
    (
        r"No such option: (\S+?)\.?(?: Did you mean (.+?)\??| \(Possible options: (.+)\))?$",
        "There is no option {0}.{1}",
    ),
    (r"No such command '(.+?)'\.(?: Did you mean (.+)\?)?$", "There is no command {0!r}.{1}"),
    (r"Option '(.+?)' requires an argument\.", "{0} needs a value."),
    (r"Option '(.+?)' does not take a value\.", "{0} takes no value."),
    (r"Got unexpected extra argument\S* \((.+)\)", "There is an argument too many: {0}."),
    (r"Missing command\.", "Which command is missing."),
    (r"(\S+) is there twice: give it once\.", "{0} is there twice: give it once."),
)
_LEAST = r"greater than or equal to (\d+)"
_MOST = r"less than or equal to (\d+)"
_CHOICE = r"'(.*)' is not one of (.+?)\.?$"


def message(error: Any) -> str:  # noqa: ANN401 - the exceptions of the library that typer brings
    """Return what is wrong with the command line, and where the right form is."""
    option = getattr(error, "param", None)
    name = option.opts[0] if option is not None and getattr(option, "opts", None) else ""
    text = _bad_value(name, str(error.message)) if name else _bad_line(str(error.message))
    path = error.ctx.command_path if getattr(error, "ctx", None) else "polly"
    return f"{text} See {path} --help."


def _bad_value(name: str, text: str) -> str:
    if choice := re.search(_CHOICE, text):
        return f"{name} {choice[1]!r} is not one of {choice[2].replace(chr(39), '')}."
    if least := re.search(_LEAST, text):
        return f"{name} takes a whole number from {least[1]}."
    if most := re.search(_MOST, text):
        return f"{name} takes a whole number up to {most[1]}."
    return f"{name} takes a whole number." if "integer" in text else f"{name} does not take this value."


def _bad_line(text: str) -> str:
    for pattern, words in _WORDS:
        if found := re.match(pattern, text):
            first, *others = [*found.groups(), None]
            near = next(filter(None, others), None)
            return words.format(first, f" Did you mean {near}?" if near else "")
    return "The command line can't be understood."
