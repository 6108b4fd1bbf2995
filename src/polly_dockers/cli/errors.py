"""How a command ends when it can't do what was asked."""

from __future__ import annotations


class CommandError(Exception):
    """A refusal or a failure: one message that says what was wrong and what to run; exit code 1."""

    code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(CommandError):
    """The command was called wrongly, or on a pipe without something that it needs; exit code 2."""

    code = 2


class DeclinedError(CommandError):
    """The person answered no, and nothing was done; exit code 1, for what comes behind ``&&`` was to follow it."""


class RequestError(CommandError):
    """The server refused a request; ``status`` and ``codes`` are its answer."""

    def __init__(self, message: str, status: int, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes


class AmbiguousError(RequestError):
    """The beginning of a digest that was given is that of several; exit code 2."""

    code = 2


class UnreachableError(CommandError):
    """The server did not answer at all."""
