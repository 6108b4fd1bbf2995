"""A machine whose clock is wrong: only the server's times count."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cli.people import SECONDS, Server, User, environment

if TYPE_CHECKING:
    from pathlib import Path

SHIFTED = """
import datetime, pathlib, sys, time
shift, boots, module = float(sys.argv[1]) * 86400, sys.argv[2], sys.argv[3]
real, then = time.time, datetime.datetime
time.time = lambda: real() + shift

class Shifted(then):
    @classmethod
    def now(cls, tz=None):
        return then.now(tz) + datetime.timedelta(seconds=shift)

datetime.datetime = Shifted
from polly_dockers.cli import credentials
if boots == "unknown":
    credentials._BOOT = pathlib.Path("/nonexistent")
sys.argv = ["polly", *sys.argv[4:]]
__import__(module, fromlist=["run"]).run()
"""
"""Runs a command with a clock some days ahead, on a machine that can or cannot tell its boot."""


@pytest.fixture(scope="module")
def eva(server: Server, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Return a person who is signed in."""
    home = tmp_path_factory.mktemp("eva")
    user = User(home, *server.add_user(), environment(home, tools))
    user.login(server)
    return user


def run(user: User, days: float, boots: str, module: str, *arguments: str, stdin: str = "") -> str:
    """Run a command with another time; it must succeed. Return its output."""
    command = [sys.executable, "-c", SHIFTED, str(days), boots, f"polly_dockers.cli.{module}", *arguments]
    done = subprocess.run(
        command, input=stdin, env=user.env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def helped(user: User, server: Server, days: float, boots: str) -> str:
    """Return the registry token that Docker receives."""
    answer: dict[str, Any] = json.loads(
        run(user, days, boots, "credential_helper", "get", stdin=f"{server.registry}\n")
    )
    return str(answer["Secret"])


@pytest.mark.parametrize("days", [40, -40])
def test_logout_ends_every_token_by_any_clock(eva: User, server: Server, days: float) -> None:
    """``polly logout`` ends the tokens of two logins, even if the local clock says that they have expired already."""
    tokens = []
    for _ in range(2):
        printed = run(eva, days, "known", "main", "dockers", "login").splitlines()
        tokens.append(next(line for line in printed if line.startswith("polly_")))
    run(eva, days, "known", "main", "dockers", "logout")
    for token in tokens:
        done = eva.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", f"POLLY:{token}",
                       f"{server.url}/token?service={server.registry}")  # fmt: skip
        assert done.out == "401"


@pytest.mark.parametrize("boots", ["known", "unknown"])
@pytest.mark.parametrize("days", [40, -40, 0])
def test_the_helper_makes_one_token_by_any_clock(eva: User, server: Server, days: float, boots: str) -> None:
    """The second call is answered from the cache."""
    helped(eva, server, days, boots)  # the clock of the last test was another one: that costs one token at most
    assert len({helped(eva, server, days, boots) for _ in range(3)}) == 1


def test_a_clock_that_jumps_costs_one_token_at_most(eva: User, server: Server) -> None:
    """If the boot is known, no token is replaced; otherwise one for each jump, and none is used for too long."""
    assert len({helped(eva, server, days, "known") for days in (0, 40, 0, -40, 0.01)}) == 1
    seen = [helped(eva, server, days, "unknown") for days in (0, 0, 40, 40, 0, 0)]
    assert [first == second for first, second in zip(seen[::2], seen[1::2], strict=True)] == [True] * 3
    assert len(set(seen)) == 3


def test_expired_tokens_are_deleted_from_the_file(eva: User) -> None:
    """An expired token does not stay in the file for ever, whatever the clock."""
    run(eva, -40, "known", "main", "dockers", "login")
    document = json.loads(eva.profiles.read_text())
    known = document["profiles"][document["current"]]["docker_tokens"]
    known |= {"0123456789abcdef": "2020-01-01T00:00:00.000Z"}
    eva.profiles.write_text(json.dumps(document))
    run(eva, -40, "known", "main", "dockers", "login")
    known = json.loads(eva.profiles.read_text())["profiles"][document["current"]]["docker_tokens"]
    assert "0123456789abcdef" not in known
    assert len(known) == 2


@pytest.mark.parametrize("days", [40, -40])
def test_days_are_those_of_the_server(server: Server, tools: Path, tmp_path: Path, days: float) -> None:
    """With a clock that is 40 days ahead or behind, tomorrow and the last hour are those of the server."""
    admin = User(tmp_path, *server.add_user(role="admin"), environment(tmp_path, tools))
    admin.login(server)
    arguments = ["dockers", "policy", "--as-of", "tomorrow", "--output", "json"]
    seen = json.loads(run(admin, days, "known", "main", *arguments))["preview"]["as_of"]
    assert abs(datetime.fromisoformat(seen) - datetime.now(UTC)) < timedelta(days=3)
    since = ["audit", "list", "--since", "1h", "--until", "today", "--by", admin.email, "--output", "json"]
    assert [each["event"] for each in json.loads(run(admin, days, "known", "main", *since))] == ["sign-in"]
