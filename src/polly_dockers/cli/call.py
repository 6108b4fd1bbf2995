"""One call of a command: its session, the questions that it may ask, and the line to repeat it without questions."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from polly_dockers.cli import terminal
from polly_dockers.cli.errors import DeclinedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from polly_dockers.cli.session import Session


@dataclass
class Call:
    """The options that every command has, and whether the command asked a person for something."""

    profile: str | None = None
    server: str | None = None
    org: str | None = None
    no_input: bool = False
    guided: bool = False
    """Whether the person chose the command from a menu."""
    alone: bool = False
    """Whether a group was called without a command."""
    line: list[str] = field(default_factory=list)
    """The same command in one line, shown at the end if the command asked for something."""
    asked: bool = False

    @cached_property
    def session(self) -> Session:
        """The server, the user and the organisation. Raises CommandError if nobody is signed in."""
        from polly_dockers.cli import session

        return session.resolve(self.profile, self.server, self.org)

    def may_ask(self) -> bool:
        """Return whether the command may ask questions: on a terminal, without --no-input."""
        return not self.no_input and terminal.asks()

    def need(self, option: str, question: Callable[[], str], reason: str = "") -> str:
        """Ask for a missing option and return the answer. Raises UsageError if the command may not ask.

        ``reason`` is a sentence that explains the option in that error, where its name does not.
        """
        self.need_all({option: (None, reason)})
        self.asked = True
        return question()

    def need_all(self, options: dict[str, tuple[object, str]]) -> None:
        """Raise UsageError that names all options that are missing, if the command may not ask for them.

        ``options`` has for each its value and a sentence that explains it; the value of a missing one is false.
        """
        missing = [
            f"{name} is missing.{reason and f' {reason}'}" for name, (value, reason) in options.items() if not value
        ]
        if missing and not self.may_ask():
            raise UsageError(" ".join(missing))

    def need_consent(self, option: str, value: object, *, yes: bool) -> None:
        """Raise UsageError that names --yes too if what ``option`` names is missing, and nobody can be asked."""
        if not value:
            self.need_all({option: (value, ""), "--yes": (yes, "It confirms the command without a question.")})

    def confirm(self, question: str, nothing: str, action: str) -> None:
        """Ask a yes-or-no question. Raises DeclinedError if the answer is no, UsageError if the command may not ask.

        ``nothing`` says that nothing was done; ``action`` completes "To … without a question, add --yes".
        """
        if not self.may_ask():
            msg = f"{nothing} To {action} without a question, add --yes."
            raise UsageError(msg)
        from polly_dockers.cli import prompts

        self.asked = True
        try:
            agreed = prompts.yes(question)
        except (KeyboardInterrupt, EOFError):
            terminal.say(nothing)
            raise
        if not agreed:
            raise DeclinedError(nothing)

    def remember(
        self, command: str, repository: tuple[str, str] | None = None, /, **options: str | bool | None
    ) -> None:
        """Record the command as one line, if anything was asked. True is a flag; None and False are left out.

        ``repository`` is (organisation, name) of the docker repository that --name selects.
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
        """Print the command as one line, if anything was asked."""
        if self.asked and self.line:
            terminal.say(f"The same in one line: {shlex.join(self.line)}")
