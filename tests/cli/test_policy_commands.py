"""``polly dockers policy`` shows what is kept, lists what would be deleted, asks, and then sets the policy."""

from __future__ import annotations

import contextlib
import json
import shlex
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from cli.people import POLLY, Server, Terminal, User, push

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def digests(server: Server, ann: User) -> list[str]:
    """A repository with two images under v1, both a year old; their digests."""
    ann.ok("dockers", "create", "--name", "one", "--description", "x")
    found = [push(server, ann, "one", "v1", f"image {number}".encode()) for number in range(2)]
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        year = 365 * 86_400 * 1_000_000
        connection.execute("UPDATE manifests SET pushed_at = pushed_at - ?", (year,))
        connection.execute("UPDATE commits SET pushed_at = pushed_at - ?", (year,))
        connection.execute("DELETE FROM manifest_pulls")
    return found


def holds(ann: User) -> dict[str, Any]:
    """The policy of the organisation."""
    return dict(ann.ok("dockers", "policy", "--output", "json").json()["organisation"])


def test_everything_is_kept_at_first(ann: User) -> None:
    """Without a policy, everything is kept, and the command says so."""
    done = ann.ok("dockers", "policy")
    assert "everything" in done.out
    assert holds(ann) == {"keep": "everything", "younger": None, "newest": None, "pulled": None}


def test_a_preview_names_what_would_go(ann: User, digests: list[str]) -> None:
    """A preview shows paths, tags and sizes, and changes nothing; as JSON too."""
    done = ann.ok("dockers", "policy", "--newest", "1", "--preview")
    assert f"one@{digests[0]}" in done.out
    assert digests[1] not in done.out
    assert "1 image with 1 commit" in done.err
    assert "Nothing was changed." in done.err
    seen = ann.ok("dockers", "policy", "--newest", "1", "--preview", "--output", "json").json()
    assert [item["path"].partition("@")[2] for item in seen["preview"]["items"]] == [digests[0]]
    assert holds(ann)["keep"] == "everything"


def test_it_is_set(ann: User, digests: list[str]) -> None:
    """--yes sets it at once; rules of one call add up, the next call replaces them, --keep-everything removes them."""
    done = ann.ok("dockers", "policy", "--newest", "3", "--younger-than", "90d", "--pulled-within", "365d", "--yes")
    assert (
        "keep the newest 3 of each tag, what was pushed in the last 90d and what was pulled in the last 365d"
        in done.err
    )
    assert holds(ann) == {"keep": "rules", "younger": 90 * 86_400, "newest": 3, "pulled": 365 * 86_400}
    assert (
        "to the trash within the next hours: 1 image with 1 commit"
        in ann.ok("dockers", "policy", "--newest", "1", "--yes").err
    )
    assert holds(ann) == {"keep": "rules", "younger": None, "newest": 1, "pulled": None}
    ann.ok("dockers", "policy", "--keep-everything", "--yes")
    assert holds(ann)["keep"] == "everything"
    assert digests


def test_a_preview_alone_is_of_the_policy_that_is_set(ann: User, digests: list[str]) -> None:
    """It is for now or for a later day, for all docker repositories or for one; nothing is changed."""
    done = ann.ok("dockers", "policy", "--preview")
    assert ("everything" in done.err, "Nothing would be deleted now." in done.err) == (True, True)
    ann.ok("dockers", "policy", "--name", "one", "--younger-than", "400d", "--yes")
    for name in ((), ("--name", "one")):
        assert "Nothing would be deleted now." in ann.ok("dockers", "policy", "--preview", *name).err
        assert "Nothing would be deleted by " in ann.ok("dockers", "policy", "--as-of", "tomorrow", *name).err
        done = ann.ok("dockers", "policy", "--preview", "--as-of", "+40d", *name)
        assert f"one@{digests[0]}" in done.out
        assert digests[1] not in done.out
        assert "if nothing is pushed or pulled before: 1 image with 1 commit" in done.err
        assert name or "/one, by its own policy: what was pushed in the last 400d." in done.err
        assert done.err.endswith("Nothing was changed.\n")
    assert digests[0] not in ann.ok("dockers", "policy", "--younger-than", "500d", "--as-of", "+40d").out
    seen = ann.ok("dockers", "policy", "--name", "one", "--as-of", "+40d", "--output", "json").json()
    assert (seen["policy"]["younger"], seen["preview"]["manifests"]) == (400 * 86_400, 1)
    assert holds(ann)["keep"] == "everything"


def test_one_docker_repository(ann: User, digests: list[str]) -> None:
    """A policy of its own is listed with that of the others; --inherit removes it."""
    ann.ok("dockers", "create", "--name", "two", "--description", "x")
    ann.ok("dockers", "policy", "--name", "one", "--newest", "5", "--yes")
    shown = ann.ok("dockers", "policy").out
    assert "/one" in shown
    assert "the newest 5 of each tag" in shown
    assert "all others of org-" in shown
    assert "the newest 5 of each tag" in ann.ok("dockers", "policy", "--name", "one").out
    assert "everything, as all of org-" in ann.ok("dockers", "policy", "--name", "two").out
    ann.ok("dockers", "policy", "--name", "one", "--inherit", "--yes")
    assert "everything, as all of org-" in ann.ok("dockers", "policy", "--name", "one").out
    done = ann.polly("dockers", "policy", "--name", "absent")
    assert (done.code, "absent" in done.err) == (1, True)
    assert digests


def test_nothing_is_set_unasked(ann: User, digests: list[str]) -> None:
    """On a pipe, without --yes: exit code 2, a list of what would be deleted, and nothing is changed."""
    done = ann.polly("dockers", "policy", "--newest", "1")
    assert (done.code, digests[0] in done.out) == (2, True)
    assert "--yes" in done.err
    done = ann.polly("dockers", "policy", "--newest", "1", "--output", "json")
    assert (done.code, done.out, digests[0] in done.err) == (2, "", True)
    assert holds(ann)["keep"] == "everything"


def test_a_person_is_asked(ann: User, digests: list[str]) -> None:
    """On a terminal, no changes nothing and yes sets it; the same command in one line is shown."""
    terminal = ann.terminal("dockers", "policy", "--newest", "1")
    terminal.see("Set this policy?")
    terminal.type("n\r")
    terminal.see("Nothing was changed.")
    assert terminal.end() == 1
    assert "Error" not in terminal.text()
    assert holds(ann)["keep"] == "everything"
    terminal = ann.terminal("dockers", "policy", "--newest", "1")
    terminal.see("Set this policy?")
    terminal.type("y\r")
    terminal.see("polly dockers policy --newest 1 --yes")
    assert terminal.end() == 0
    assert holds(ann)["newest"] == 1
    assert digests


def test_json_alone_is_on_stdout(ann: User, digests: list[str]) -> None:
    """The list of deletions and the question are on the terminal; the file gets only JSON."""
    line = f"{shlex.join(POLLY)} dockers policy --newest 1 --output json >{shlex.quote(str(ann.home / 'out.json'))}"
    terminal = Terminal(["/bin/sh", "-c", line], 60, ann.env | {"TERM": "xterm-256color"})
    terminal.see("Set this policy?")
    assert digests[0] in terminal.words()
    assert "─" * 60 in terminal.text()
    terminal.type("y\r")
    assert terminal.end() == 0
    assert json.loads((ann.home / "out.json").read_text())["policy"]["newest"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--newest", "1", "--keep-everything"), "can't be together"),
        (("--keep-everything", "--inherit", "--name", "one"), "can't be together"),
        (("--inherit",), "--name"),
        (("--preview", "--yes"), "--yes needs a policy to set"),
        (("--newest", "1", "--as-of", "tomorrow", "--yes"), "can't be used with --as-of"),
        (("--as-of", "soon"), "Valid examples: tomorrow, 2026-12-24"),
        (("--as-of", "2020-01-01"), "is in the past"),
        (("--yes",), "--yes needs a policy to set"),
        (("--younger-than", "1h"), "from 1d to 36500d"),
        (("--pulled-within", "soon"), "from 1d to 36500d"),
        (("--newest", "0"), "--newest"),
    ],
)
def test_wrong_options(ann: User, options: tuple[str, ...], said: str) -> None:
    """Wrong options give exit code 2 and a correct example."""
    done = ann.polly("dockers", "policy", *options)
    assert (done.code, said in done.err) == (2, True), done.err


def test_a_writer_sets_nothing(person: Callable[..., User], ann: User) -> None:
    """The error names the role that is needed; every member may see the policy."""
    bob = person("writer")
    done = bob.polly("dockers", "policy", "--newest", "1", "--yes")
    assert (done.code, "admin" in done.err) == (1, True)
    assert "everything" in bob.ok("dockers", "policy").out
    assert holds(ann)["keep"] == "everything"


def test_too_many_to_keep(ann: User) -> None:
    """The error names the option, as the person typed it."""
    done = ann.polly("dockers", "policy", "--newest", "2000")
    assert (done.code, done.err.startswith("Error: --newest takes a number"), "1000" in done.err) == (2, True, True)
