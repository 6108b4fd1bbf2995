"""Security 17: what a client sends is escaped in the log, so it forges no line and controls no terminal."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import structlog

from polly_dockers.config import Config
from polly_dockers.server import logs
from support.server import Server, free_port
from support.wire_client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = (
    "/v2/a%0a[info]%20forged/tags/list",
    "/v2/a%1b[31m/tags/list",
    "/v2/a%c2%9b31m/tags/list",
    "/v2/a%c2%85/tags/list",
    "/v2/a%e2%80%ae/tags/list",
    "/v2/a%7f/tags/list",
    "/api/v1/organisations/a%1b[31m/members",
    "/%1b[31m",
)


@pytest.mark.parametrize("form", ["text", "json"])
def test_paths_that_steer_a_terminal(tmp_path: Path, form: str) -> None:
    """Each request is one line of printable characters, with its path as it was sent."""
    server = Server(tmp_path / "data", free_port(), ("--workers", "1", "--log-format", form))
    server.init()
    server.start()
    for path in HOSTILE:
        assert Client(server.port).get(path).status in {400, 404}
    server.stop()
    lines = server.log.read_text(encoding="utf-8").split("\n")
    assert sum("GET" in line for line in lines) == len(HOSTILE)
    for path in HOSTILE:
        assert sum(path in line for line in lines) == 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(("form", "status"), [("text", "status=400 "), ("json", '"status":400,')])
def test_what_is_not_a_request(tmp_path: Path, form: str, status: str) -> None:
    """A client that begins with TLS on the HTTP port has a line with its status as a number."""
    server = Server(tmp_path / "data", free_port(), ("--workers", "1", "--log-format", form))
    server.init()
    server.start()
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        pytest.raises(ssl.SSLError),
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost"),
    ):
        pass
    server.stop()
    assert status in server.log.read_text(encoding="utf-8")


@pytest.fixture
def text_log() -> Iterator[None]:
    """The log as text, in this process."""
    logs.set_up(Config(log_format="text"))
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("text_log")
def test_whatever_is_logged_as_text(capfd: pytest.CaptureFixture[str]) -> None:
    """A value with control characters is written as Python writes it; a traceback keeps its lines."""
    log = structlog.get_logger("polly.of.this.test")
    try:
        int("\x1b[31m\u202e")
    except ValueError:
        log.exception("failed\nforged", value="a\x9b\ud800")
    written = capfd.readouterr().err
    assert "failed\\nforged" in written
    assert "a\\x9b\\ud800" in written
    assert "ValueError: invalid literal" in written
    assert "Traceback" in written.split("\n")[1]
    assert all(line.isprintable() for line in written.split("\n"))


def test_a_misspelt_variable_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning names it, because a setting that is lost silently is found late."""
    monkeypatch.setenv("POLLY_WORKRES", "1")
    server = Server(tmp_path / "data", free_port(), ("--workers", "1"))
    server.init()
    server.start()
    server.stop()
    lines = [line for line in server.log.read_text(encoding="utf-8").splitlines() if "POLLY_WORKRES" in line]
    assert len(lines) == 1
    assert '"level":"warning"' in lines[0]
    assert "POLLY_WORKRES (did you mean POLLY_WORKERS?)" in lines[0]
