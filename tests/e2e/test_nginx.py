"""A server behind nginx, with the settings of docs/operations.md and nginx's default limits for headers."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from support.server import free_port
from support.wire_client import Client, Person, Repo, image

from .engine import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.server import Server
    from support.wire_client import Answer

SCOPES = 100

CONFIGURATION = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    {temporary}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass {server};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_http_version 1.1;
            proxy_read_timeout 900;
            proxy_send_timeout 900;
        }}
    }}
}}
"""


@pytest.fixture
def nginx(server: Server, tmp_path: Path) -> Iterator[int]:
    """The port of an nginx before the server."""
    port, file = free_port(), tmp_path / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    file.write_text(CONFIGURATION.format(folder=tmp_path, port=port, server=server.url, temporary=temporary))
    command = ["nginx", "-p", str(tmp_path), "-c", str(file)]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with contextlib.ExitStack() as stack:
        daemon = Daemon(command, tmp_path / "nginx.log", "start worker process")
        stack.callback(daemon.stop)
        yield port


@pytest.fixture
def ann(server: Server) -> Person:
    """The admin of an organisation of its own."""
    org, (email, password) = server.new_org()
    return Person(server.port, org, email, password)


def token(ann: Person, nginx: int, names: list[str]) -> Answer:
    """A token for repositories, as containerd asks for one."""
    fields = [("grant_type", "password"), ("username", ann.email), ("password", ann.password)]
    fields += [("scope", f"repository:{ann.org}/{name}:pull,push") for name in names]
    form = urlencode(fields).encode()
    return Client(nginx).send("POST", "/token", form, {"Content-Type": "application/x-www-form-urlencoded"})


def test_a_token_for_a_hundred_repositories_passes_nginx(ann: Person, nginx: int) -> None:
    """It gives access to the first and the last; with one more scope, the server's message says no, not the proxy."""
    names = [f"team/service-number-{number:03}" for number in range(SCOPES)]
    for name in names:
        ann.create(name)
    made = image()
    for name in (names[0], names[-1]):
        ann.repo(name).push(made, "v1")
    answer = token(ann, nginx, names)
    assert answer.status == 200, answer.body
    authorization = f"Bearer {answer.json()['token']}"
    for name in (names[0], names[-1]):
        pulled = Repo(nginx, authorization, f"{ann.org}/{name}").manifest("v1")
        assert (pulled.status, pulled.body) == (200, made.manifest)
    refused = token(ann, nginx, [*names, "one-more"])
    assert (refused.status, refused.code) == (400, "BAD_REQUEST")
    assert "at most 100 scopes" in refused.message


def test_a_token_for_a_hundred_names_passes_nginx(ann: Person, nginx: int) -> None:
    """Repositories that are not there yet are answered by the server, and one that its user makes is pushed to."""
    names = [f"team/service-that-comes-later-{number:03}" for number in range(SCOPES)]
    answer = token(ann, nginx, names)
    later = Repo(nginx, f"Bearer {answer.json()['token']}", f"{ann.org}/{names[-1]}")
    missing = later.send("POST", later.path("blobs/uploads/"))
    assert (missing.status, missing.code) == (404, "NAME_UNKNOWN")
    ann.create(names[-1])
    later.push(made := image(), "v1")
    assert later.manifest("v1").body == made.manifest
