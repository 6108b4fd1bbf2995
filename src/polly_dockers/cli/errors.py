"""The errors that end a command with a message and an exit code."""

from __future__ import annotations


class CommandError(Exception):
    """A refusal or a failure, with a message that says what is wrong and what to do; exit code 1."""

    code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(CommandError):
    """An invalid command line, or an option that is missing and that nobody can be asked for; exit code 2."""

    code = 2


class DeclinedError(CommandError):
    """The person answered no, so nothing was done; exit code 1, so that a command after ``&&`` does not run."""


class RequestError(CommandError):
    """The server refused a request; ``status`` and ``codes`` are those of its response."""

    def __init__(self, message: str, status: int, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes


class AmbiguousError(RequestError):
    """The beginning of a digest matches several commits; exit code 2."""

    code = 2


class UnreachableError(CommandError):
    """The server did not respond."""
