"""polly-server org: deleted organisations are listed, and each of several with the same name can be restored."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from support.server import BIN, Server, free_port, polly_server

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the organisation acme and its admin."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    return server.data


def org(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of polly-server org."""
    command = [str(BIN / "polly-server"), "org", *arguments, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def deleted(data: Path) -> list[dict[str, Any]]:
    """What org list --deleted prints as JSON."""
    return list(json.loads(polly_server("org", "list", "--deleted", "--data", str(data), "--output", "json")))


def slugs(data: Path) -> dict[str, int]:
    """The organisations that are there, and how many members each has."""
    found = json.loads(polly_server("org", "list", "--data", str(data), "--output", "json"))
    return {each["slug"]: each["members"] for each in found}


def test_each_of_several_with_one_name_comes_back(data: Path) -> None:
    """The older one can be restored too, by its number and under another name."""
    assert org(data, "delete", "acme", "--yes").returncode == 0
    assert org(data, "create", "acme").returncode == 0
    taken = org(data, "restore", "acme")
    command = re.search(r"polly-server org restore --data \S+ acme --item (\d+) --as NEW_NAME", taken.stderr)
    assert taken.returncode == 1
    assert command, taken.stderr
    assert org(data, "delete", "acme", "--yes").returncode == 0
    several = org(data, "restore", "acme")
    assert several.returncode == 2
    newer, older = deleted(data)
    for each in (newer, older):
        assert f"--item {each['item']}: 0 repositories, {each['members']} member" in several.stderr
    assert (newer["members"], older["members"]) == (0, 1)
    assert int(command[1]) == older["item"]
    done = org(data, "restore", "acme", "--item", str(older["item"]), "--as", "acme-before")
    assert "Organisation acme is restored as acme-before." in done.stdout, done.stderr
    assert org(data, "restore", "acme").returncode == 0
    assert slugs(data) == {"acme": 0, "acme-before": 1}
    assert deleted(data) == []


def test_it_comes_back_under_its_new_name_after_a_rebuild(data: Path) -> None:
    """The journal has the new name."""
    org(data, "delete", "acme", "--yes")
    assert org(data, "restore", "acme", "--as", "second").returncode == 0
    for file in data.glob("polly.db*"):
        file.unlink()
    polly_server("rebuild", "--data", str(data))
    assert list(slugs(data)) == ["second"]


def test_a_wrong_number_or_name(data: Path) -> None:
    """Nothing is restored, and the error names the list."""
    org(data, "delete", "acme", "--yes")
    for wrong in (("acme", "--item", "77"), ("other",)):
        done = org(data, "restore", *wrong)
        assert (done.returncode, "org list" in done.stderr) == (1, True)
    assert org(data, "restore", "acme", "--as", "Not/aSlug").returncode != 0
    assert slugs(data) == {}


def test_deleting_says_until_when(data: Path) -> None:
    """The message has the time, and the list shows what can be restored."""
    done = org(data, "delete", "acme", "--yes")
    assert re.search(r"To bring it back until \w+ \d+, \d{4}, .*: polly-server org restore", done.stdout)
    assert "1 deleted organisation can be restored: polly-server org list" in org(data, "list").stderr
    assert "acme" in org(data, "list", "--deleted").stdout
    assert org(data, "list", "--deleted").stdout.splitlines()[0].split()[:2] == ["item", "organisation"]


def test_only_changes_are_in_the_audit_log(data: Path) -> None:
    """A setting that is set already adds no entry, and neither does ending tokens when there are none."""
    for word in ("--no-create-on-push", "--create-on-push", "--create-on-push"):
        assert org(data, "update", "acme", word).returncode == 0
    polly_server("user", "revoke-tokens", "--all", "--data", str(data))
    polly_server("user", "revoke-tokens", "ann@acme.example", "--data", str(data))
    entries = json.loads(polly_server("audit", "--data", str(data), "--output", "json"))
    assert [each["detail"] for each in entries if each["event"] == "organisation-update"] == ["create-on-push on"]
    assert [each for each in entries if each["event"] == "token-revoke"] == []


def test_ctrl_c_at_the_question_is_130(data: Path) -> None:
    """The exit code is 130, as everywhere; nothing is deleted."""
    leader, follower = pty.openpty()
    command = [str(BIN / "polly-server"), "org", "delete", "acme", "--data", str(data)]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True) as process:
        seen = b""
        while b"Delete it?" not in seen:
            seen += os.read(leader, 1000)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    os.close(leader)
    os.close(follower)
    assert list(slugs(data)) == ["acme"]
