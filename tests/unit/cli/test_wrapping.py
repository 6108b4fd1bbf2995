"""Messages on a terminal: broken between words, never in a word, a path or a command."""

from __future__ import annotations

import re

import pytest

from polly_dockers.cli.terminal import wrapped
from polly_dockers.formatting import to_paste

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
    """A line as long as the terminal is wide stays as it is, and so does a line of ``to_paste``, however long."""
    assert wrapped("x" * 20 + " y", 22) == ["x" * 20 + " y"]
    command = "mv '/srv/my data'/polly.db* /srv/other; chown -R polly: /srv/other"
    assert [wrapped(line, 9) for line in to_paste(command, command).splitlines()] == [[""], *[[f"  {command}"]] * 2]
    assert not re.search(r"\0", " ".join(wrapped(MESSAGES[2], 30)))


@pytest.mark.parametrize(
    ("message", "whole"),
    [
        ("Error: --commit '123' is not a digest. See `polly dockers commit-list`.", "`polly dockers commit-list`."),
        ("Error: There is no command 'logn'. Did you mean 'login'? See polly --help.", "polly --help."),
        ("Error: There is no option --zz. See polly-server --help.", "polly-server --help."),
        (
            "Error: There is no tag v9. polly dockers tags --name big lists its tags, polly dockers trash the others.",
            "polly dockers tags --name big",
        ),
        ("Error: There is no tag v9. polly dockers tags --name big lists its tags.", "polly dockers tags"),
        ("You are writer of acme: make it the default: polly org use acme. Then go on.", "polly org use acme"),
        ("They are in acme. Use --org acme, or ask an admin for more.", "--org acme,"),
        ("Say (polly members accept --server URL takes it too) and go on.", "(polly members accept --server URL"),
        (
            "Error: --since 'last week' is not a time. Valid examples: 2026-11-24, '2026-11-24 18:00' and 7d.",
            "'2026-11-24 18:00'",
        ),
        ("Error: --since 'last week' is not a time. Valid examples: yesterday and 7d.", "'last week'"),
        ('Nothing has the "two words" in it, so look again.', '"two words"'),
    ],
)
def test_a_command_or_quotation_in_a_sentence_is_whole(message: str, whole: str) -> None:
    """It is on one line at every width of the terminal, also in the middle of a sentence."""
    assert [room for room in range(8, 90) if not any(whole in line for line in wrapped(message, room))] == []


def test_an_apostrophe_begins_no_quotation() -> None:
    """What stands between two apostrophes may be broken."""
    assert wrapped("It can't be the users' own policy, it isn't", 16) == [
        "It can't be the",
        "users' own",
        "policy, it isn't",
    ]
