"""The line that a command prints if it waits for a long time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Ringing:
    """A timer that rings at once."""

    def __init__(self, seconds: float, function: Callable[..., None], arguments: tuple[str, ...]) -> None:
        assert seconds == terminal.PATIENCE
        self._function, self._arguments = function, arguments

    def start(self) -> None:
        """Ring."""
        self._function(*self._arguments)

    def cancel(self) -> None:
        """Do nothing: it has rung."""


def test_a_log_gets_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The line is also printed to a pipe, for the log of a job; once in each command, however often it waits."""
    monkeypatch.setattr("threading.Timer", Ringing)
    monkeypatch.setattr(terminal, "_said", [])
    for _ in range(2):
        with terminal.patience("all pages of the list"), terminal.patience("http://a.example"):
            pass
    assert capsys.readouterr().err == "Still waiting for all pages of the list.\n"
