"""Messages on a terminal: broken between words, never in a word, a path or a command."""

from __future__ import annotations

import re

import pytest

from polly_dockers.cli.terminal import wrapped

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
ADD = "polly-server user add --data '/srv/my data' ann@acme.example --org acme --role admin"
MESSAGES = [
    "Success: Logged in to Polly as ann@acme.example",
    f"There is no commit {DIGEST} in registry.acme.example/acme/team/gpu. polly dockers commit-list lists them.",
    "Ask an admin of one to run polly members add YOUR_EMAIL, and to give you the code that it prints.",
    "You need the role writer in acme, and yours is reader. An admin can change it: polly members set-role.",
]


@pytest.mark.parametrize("room", [30, 50, 80])
@pytest.mark.parametrize("message", MESSAGES)
def test_no_word_is_broken(message: str, room: int) -> None:
    """Only a word or a command that is longer than the terminal is wider, and then it is alone on its line."""
    lines = wrapped(message, room)
    assert " ".join(lines).rstrip(".") == message.rstrip(".")
    for line in lines:
        assert len(line) <= room or " " not in line or line.startswith("polly ")


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        (
            "They join with: polly members accept --server https://registry.acme.example --email bob@acme.example",
            ["They join with:", "polly members accept --server https://registry.acme.example --email bob@acme.example"],
        ),
        (
            f"If you know that it is theirs: {ADD} --keep-password. If not: {ADD} --reset-password",
            [
                "If you know that it is theirs:",
                f"{ADD} --keep-password",
                "If not:",
                f"{ADD} --reset-password",
            ],
        ),
        (
            "Somebody else has the account: polly-server org create acme && polly-server user add ann@acme.example",
            [
                "Somebody else has the account:",
                "polly-server org create acme && polly-server user add ann@acme.example",
            ],
        ),
        (
            'The same in one line: polly dockers create --name new --description "what it is for" --private',
            ["The same in one line:", 'polly dockers create --name new --description "what it is for" --private'],
        ),
        (
            'Paste it into a terminal, or run it directly: eval "$(polly dockers login)"',
            ["Paste it into a terminal, or run it directly:", 'eval "$(polly dockers login)"'],
        ),
        (
            "Install the version of polly that the server has: polly whoami says which server it is.",
            ["Install the version of polly that the server has:", "polly whoami says which server it is."],
        ),
    ],
)
def test_a_command_to_copy_has_a_line_of_its_own(message: str, lines: list[str]) -> None:
    """It is whole, without the full stop that follows it, also if it is longer than the terminal."""
    assert wrapped(message, 50) == lines


def test_what_fits_is_not_changed() -> None:
    """A line as long as the terminal is wide stays as it is, and so does an indented one when it is wrapped."""
    assert wrapped("x" * 20 + " y", 22) == ["x" * 20 + " y"]
    assert wrapped("  one two three", 9) == ["  one two", "  three"]
    assert not re.search(r"\0", " ".join(wrapped(MESSAGES[2], 30)))
