"""Messages for an invalid command line: one line each, with exit code 2."""

from __future__ import annotations

import difflib
import re
import shlex
from typing import Any

from polly_dockers.cli import server_url
from polly_dockers.cli.options import ARGUMENTS

_WORDS = (
    (
        r"No such option: (\S+?)\.?(?: Did you mean (.+?)\??| \(Possible options: (.+)\))?$",
        "There is no option {0}.{1}",
    ),
    (r"No such command '(.+?)'\.(?: Did you mean (.+)\?)?$", "There is no command {0!r}.{1}"),
    (r"Option '(.+?)' requires an argument\.", "{0} needs a value."),
    (r"Option '(.+?)' does not take a value\.", "{0} takes no value."),
    (r"Got unexpected extra argument\S* \((.+)\)", "There are too many arguments: {0}."),
    (r"Missing command\.", "Which command is missing."),
    (r"(.+ can't be together: choose one)\.", "{0}."),  # ours, as the next ones
    (
        r"(\S+ is (?:given twice: give it once|empty)|.+ are different\. Give one of them)\.",
        "{0}.",
    ),  # ours
    (r"(\S+ is missing\..*)$", "{0}"),  # ours
)
"""The library's messages about the command line, in several of its versions, and ours."""
_VALUES = (
    (r"\binteger\b", "{name} takes a whole number."),
    (r"\b(?:number|float)\b", "{name} takes a number."),
)
"""The same for invalid values."""
_CHOICE = r"'(.*)' is not one of (.+?)\.?$"


_MEANT = {
    **dict.fromkeys(("remove", "rm", "del", "delete"), ("delete", "remove", "revoke")),
    **dict.fromkeys(("undelete", "recover"), ("restore",)),
    **dict.fromkeys(("invite", "new", "make"), ("add", "create")),
    **dict.fromkeys(("ls", "show"), ("list",)),
}
"""Words of other tools, and the commands here that they may mean; the first that the group has."""
_CONSENT = "--yes"
"""The option that nobody is told of by a guess, because it confirms what can't be undone."""
_MEANT_OPTION = {
    **dict.fromkeys(("--newest", "--latest", "--last", "--limit"), ("--latest", "--newest")),
    **dict.fromkeys(("--keep", "--count", "--number"), ("--newest", "--latest")),
    **dict.fromkeys(("--days", "--age", "--older-than", "--newer-than", "--keep-days"), ("--younger-than",)),
    **dict.fromkeys(("--force", "-f"), (_CONSENT,)),
    "--json": ("--output json",),
}
"""Options of other commands or tools, and those that they may mean here; the first that the command has."""
_NEAR = 0.7
"""How alike the names of two options are at least, if one may be a misspelt form of the other: from 0 to 1."""
_OPERATORS = {
    "polly org": ("create", "delete", "restore", "update"),
    "polly": ("audit", "backup", "check", "gc", "init", "key", "rebuild", "restore", "run", "usage", "user"),
}
"""Commands of polly-server that people may expect in a group of polly."""


def message(error: Any) -> str:  # noqa: ANN401 - the exceptions of the library that typer brings
    """Return what is wrong with the command line, and the command that shows the help."""
    option = getattr(error, "param", None)
    name = option.opts[0] if option is not None and getattr(option, "opts", None) else ""
    if type(error).__name__ == "MissingParameter":
        text = f"{name} is missing."
    else:
        text = _bad_value(option, name, str(error.message)) if name else _bad_line(str(error.message))
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "polly"
    if unknown := re.match(r"There is no command '(.+?)'\.", text):
        text = f"{unknown[0]}{_meant(unknown[1], context, path) or text[unknown.end() :]}"
    if wrong := re.match(r"There is no option (\S+)\.", text):
        text = f"{wrong[0]}{_option_meant(wrong[1], _options(context))}"
    if extra := re.match(r"There are too many arguments: (\S+)\.$", text):
        text += _extra_meant(extra[1], context, path)
    return f"{text} See {path} --help."


def _options(context: Any) -> list[str]:  # noqa: ANN401 - the context of that library
    """Return the options of the command."""
    return [name for each in context.command.params for name in [*each.opts, *each.secondary_opts]] if context else []


def _option_meant(word: str, known: list[str]) -> str:
    """Return a suggestion for an option that the command does not have; empty if none is near."""
    meant = [each for each in _MEANT_OPTION.get(word, ()) if each.split()[0] in known]
    names = {each.removeprefix("--"): each for each in known if each.startswith("--") and each != _CONSENT}
    name = word.removeprefix("--")
    meant += [names[each] for each in names if name and word.startswith("--") and each.startswith(name)]
    near = meant or [names[each] for each in difflib.get_close_matches(name, names, 1, _NEAR)]
    return f" Did you mean {near[0]}?" if near else ""


def _extra_meant(word: str, context: Any, path: str) -> str:  # noqa: ANN401 - the context of that library
    """Return what an argument too many may be: the value of an option left out, or of a flag; empty if neither."""
    args, params = context.meta[ARGUMENTS], context.command.params
    takes = any(each.param_type_name == "argument" for each in params)  # then the first argument is its value
    near = "--org" if path.startswith("polly-server") else "--search"
    if near in {*_options(context)} - {*args} and not takes:
        return f" Did you mean {near} {shlex.quote(word)}?"
    before = args[args.index(word) - 1] if word in args[1:] else ""
    flags = [each for each in params if getattr(each, "is_flag", False)]
    return f" {before} takes no value." if any(before in [*each.opts, *each.secondary_opts] for each in flags) else ""


def _meant(word: str, context: Any, path: str) -> str:  # noqa: ANN401 - the context of that library
    """Return a suggestion for a word of another tool or of polly-server; empty if there is none."""
    if word in _OPERATORS.get(path, ()):
        return f" Operators of the server use: {path.replace('polly', 'polly-server', 1)} {word}."
    known = getattr(context.command, "commands", {}) if context else {}
    near = next((each for each in _MEANT.get(word, ()) if each in known), "")
    if not near and word not in known:
        below = [f"{name} {word}" for name, each in known.items() if word in getattr(each, "commands", {})]
        near = below[0] if len(below) == 1 else ""
    return f" Did you mean {near!r}?" if near else ""


def _out_of_range(option: Any, name: str, text: str) -> str:  # noqa: ANN401 - the option of that library
    """Return which numbers the option takes, if the library's ``text`` is about that; else an empty string."""
    ranged = option if hasattr(option, "min") else getattr(option, "type", None)  # as the library's version has it
    least, most = (getattr(ranged, each, None) for each in ("min", "max"))
    if least is None or not re.search(r"(?:greater|less) than or equal to|not in the range", text):
        return ""
    return f"{name} takes a number{f' from {least} to {most}' if most is not None else f', {least} or more'}."


def _bad_value(option: Any, name: str, text: str) -> str:  # noqa: ANN401 - the option of that library
    if numbers := _out_of_range(option, name, text):
        return numbers
    if choice := re.search(_CHOICE, text):
        return f"{name} {choice[1]!r} is not one of {choice[2].replace(chr(39), '')}."
    for pattern, words in _VALUES:
        if found := re.search(pattern, text):
            return words.format(*found.groups(), name=name)
    return f"{name} does not take this value."


def _bad_line(text: str) -> str:
    for pattern, words in _WORDS:
        if found := re.match(pattern, text):
            first, *others = [*found.groups(), None]
            first = server_url.masked(first) if first and "://" in first else first
            near = next(filter(None, others), None)
            return words.format(first, f" Did you mean {near}?" if near else "")
    return "The command line can't be understood."
