"""``polly audit list``: what was done, for people and for programs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from cli.people import Server, User, push
from support.server import BIN

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_log_of_an_organisation(server: Server, ann: User) -> None:
    """Entries are listed newest first, as a table and as JSON; --event lists one kind only."""
    ann.ok("dockers", "create", "--name", "one", "--description", "x")
    digest = push(server, ann, "one", "v1", b"of the audit log")
    ann.ok("dockers", "delete", "--name", "one", "--tag", "v1", "--yes")
    items = ann.ok("audit", "list", "--output", "json").json()
    items = [item for item in items if item["event"] in {"delete", "push", "repository-create"}]
    assert [item["event"] for item in items] == ["delete", "push", "repository-create"]
    assert items[1]["detail"] == digest
    assert {item["address"] for item in items} == {"127.0.0.1"}
    table = ann.ok("audit", "list", "--event", "push", "--latest", "1").out
    assert table.splitlines()[0].split() == ["at", "event", "by", "from", "subject", "detail"]
    assert f"{items[1]['subject']} " in table
    assert len(table.splitlines()) == 2


def test_entries_are_narrowed(server: Server, ann: User) -> None:
    """Entries about tokens are left out unless asked for. Others are filtered by author, docker repository and time."""
    for name in ("one", "two"):
        ann.ok("dockers", "create", "--name", name, "--description", "x")
    push(server, ann, "one", "v1", b"of the audit log")
    ann.ok("dockers", "login")

    def events(*options: str) -> list[str]:
        return [item["event"] for item in ann.ok("audit", "list", "--all", *options, "--output", "json").json()]

    assert "token-create" not in events()
    assert {"token-create", "push", "repository-create"} <= set(events("--all-events"))
    assert set(events("--event", "token-create")) == {"token-create"}
    assert events("--name", "one") == ["push", "repository-create"]
    assert events("--name", f"{server.registry}/{ann.env['TEST_ORG']}/two") == ["repository-create"]
    assert events("--name", "one", "--by", ann.email, "--since", "1h", "--until", "tomorrow") == events("--name", "one")
    assert events("--by", "nobody@acme.example") == events("--until", "1d") == []
    assert "--all-events lists them too" in ann.ok("audit", "list").err
    assert "--all-events" not in ann.ok("audit", "list", "--all-events").err
    for wrong in (("--since", "soon"), ("--until", "7"), ("--event", "push", "--all-events")):
        done = ann.polly("audit", "list", *wrong)
        assert (done.code, wrong[0] in done.err) == (2, True)


def test_a_writer_learns_that_an_admin_is_needed(person: Callable[..., User], ann: User) -> None:
    """A writer is refused with exit code 1."""
    assert ann
    done = person("writer").polly("audit", "list")
    assert (done.code, "admin" in done.err) == (1, True)


def test_an_event_that_does_not_exist(ann: User) -> None:
    """The error names the events that exist."""
    done = ann.polly("audit", "list", "--event", "explosion")
    assert (done.code, "member-role" in done.err) == (2, True)


def test_no_entry_matches(ann: User) -> None:
    """If no entry matches, the command says so."""
    assert "has no such entry" in ann.ok("audit", "list", "--event", "restore").err


def test_impossible_filters_are_refused(server: Server, ann: User) -> None:
    """Refused are a --by that is no email, --since in the future or later than --until; polly-server does it too."""
    for wrong, words in (
        (("--by", "bob"), "--by takes an email"),
        (("--since", "yesterday", "--until", "7d"), "later than"),
        (("--since", "tomorrow"), "--since is in the future"),
    ):
        done = ann.polly("audit", "list", *wrong)
        assert (done.code, words in done.err) == (2, True)
        command = [str(BIN / "polly-server"), "audit", "--data", str(server.data), *wrong]
        operator = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (operator.returncode, words in operator.stderr) == (2, True)
    ann.ok("audit", "list", "--by", "policy")


def test_misspelt_values_are_named(ann: User) -> None:
    """The error names the option and the nearest event; a missing docker repository is named."""
    done = ann.polly("audit", "list", "--event", "pus")
    assert (done.code, "Error: --event 'pus' is not a valid event. Did you mean push?" in done.err) == (2, True)
    assert "There is no docker repository nosuch in" in ann.ok("audit", "list", "nosuch").err
