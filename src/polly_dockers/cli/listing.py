"""Which part of a long list a command prints: --latest, --oldest or --all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.cli import prompts, terminal
from polly_dockers.cli.errors import UsageError
from polly_dockers.formatting import counted

if TYPE_CHECKING:
    from typing import Literal

    from polly_dockers.cli.call import Call

SHORT = 20
"""How many items a command lists without an option."""


class Range:
    """How many items to list, and from which end."""

    def __init__(self, call: Call, latest: int | None, oldest: int | None, *, every: bool) -> None:
        """Take --latest, --oldest and --all. Raises UsageError if more than one is given."""
        given = [name for name, value in (("--all", every), ("--latest", latest), ("--oldest", oldest)) if value]
        if len(given) > 1:
            msg = f"{' and '.join(given)} can't be together: choose one."
            raise UsageError(msg)
        self.every, self.latest, self.oldest = every, latest, oldest
        self.given = bool(given)
        self._call = call

    def ask(self, question: str) -> None:
        """Ask for the range, if the person chose the command from a menu and gave no option."""
        if self.given or not self._call.guided:
            return
        which = prompts.choose(question, ["all", "latest", "oldest"])
        self.given, self.every = True, which == "all"
        if not self.every:
            count = int(prompts.text("How many?", suggested="10", check=_number_problem))
            self.latest, self.oldest = (count, None) if which == "latest" else (None, count)

    @property
    def count(self) -> int | None:
        """How many items to list; None for all."""
        return None if self.every else self.latest or self.oldest or SHORT

    @property
    def order(self) -> Literal["newest", "oldest"]:
        """Which items come first."""
        return "oldest" if self.oldest else "newest"

    def options(self) -> dict[str, str | bool | None]:
        """Return the options for the command in one line."""
        return {
            "all": self.every,
            "latest": str(self.latest) if self.latest else None,
            "oldest": str(self.oldest) if self.oldest else None,
        }

    def print_total(self, shown: int, total: int | None, noun: str, output: str) -> None:
        """Print how many of the ``total`` items are shown, unless that is obvious. It may be unknown (None).

        With JSON output, print it only if items are missing that the caller did not ask to leave out.
        """
        cut = total is None or shown < total
        if not ((cut and not self.given) if output == "json" else (cut or not self.given)):
            return
        if total is None:
            terminal.say(f"{counted(shown, noun)}. There may be more; --all lists all of them.")
        else:
            more = "; --all lists all of them" if cut else ""
            terminal.say(f"{shown} of {counted(total, noun)}{more}.")


def _number_problem(text: str) -> str | None:
    return None if text.isascii() and text.isdigit() and int(text) else "Enter a whole number, 1 or more."
