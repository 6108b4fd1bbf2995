"""What ``polly dockers delete`` says about what it deletes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers import api_types
from polly_dockers.cli.actions import trash

if TYPE_CHECKING:
    from collections.abc import Callable

NOW, LATER = "2026-11-24T14:12:37.714Z", "2026-12-24T14:12:37.714Z"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[int, str], str]:
    """Delete an empty or a full docker repository, after the question; return what is said on stderr."""

    def delete(commits: int, until: str) -> str:
        item = api_types.TrashItem("h/acme/one", "repository", "one", [], commits, 10, "ann@acme.example", NOW, until)
        client = SimpleNamespace(delete=lambda *_, **__: item)
        session = SimpleNamespace(client=client, repository=lambda *_: ("acme", "one"), spelled=lambda *_: "one")
        call: Any = SimpleNamespace(session=session, confirm=lambda *_: None, remember=lambda *_, **__: None)
        trash.delete(call, "one", None, None, "table", yes=False)
        return capsys.readouterr().err

    return delete


def test_what_can_be_restored(said: Callable[[int, str], str]) -> None:
    """It says what the repository contains, until when it can be restored, and how."""
    text = said(2, LATER)
    assert "with its 2 commits, 10 B.\n" in text
    assert "To restore it until December" in text
    assert said(0, LATER).startswith("This deletes the repository h/acme/one. It is empty.\n")


def test_a_server_that_keeps_no_trash(said: Callable[[int, str], str]) -> None:
    """With ``trash_days`` 0 it names no time: it says that the next collection deletes it for good."""
    text = said(1, NOW)
    assert text.count("the next collection of garbage deletes it for good") == 2
    assert "To restore it" not in text
