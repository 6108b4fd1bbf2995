"""Who a request came from, on a server that listens on IPv6 and IPv4: throttles, the audit log, /metrics."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING

import pytest

from support.server import Server, free_port
from support.wire_client import Person, basic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.wire_client import Answer, Client

PROXY = "127.0.0.1"


class DualStack(Server):
    """A server on [::], which IPv4 clients reach too: their addresses come as ::ffff:127.0.0.1."""

    def start(self) -> None:
        """Start it as any server, but listening on [::]."""
        self.options = (*self.options, "--listen", f"[::]:{self.port}")
        super().start()


@contextlib.contextmanager
def dual_stack(folder: Path, *options: str) -> Iterator[Person]:
    """The admin of such a server."""
    server = DualStack(folder / "data", free_port(), options)
    server.init()
    server.start()
    try:
        yield Person(server.port, server.org, *server.admin)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """The admin of a server that trusts the IPv4 address of this machine as a proxy."""
    with dual_stack(tmp_path_factory.mktemp("dual"), "--trusted-proxies", PROXY) as admin:
        yield admin


def wrong(port: int, email: str, forwarded: str) -> int:
    """The status of a sign-in with a wrong password, as a proxy passes it on."""
    return basic(port, email, "a wrong one").get("/token", X_Forwarded_For=forwarded).status


def by_proxy(client: Client, forwarded: str) -> Answer:
    """A sign-in that a proxy passes on."""
    return client.get("/token", X_Forwarded_For=forwarded)


def test_a_proxy_is_known_on_a_dual_stack_socket(ann: Person) -> None:
    """20: the address that the proxy reports counts: a client that guesses is refused, another one signs in."""
    email = f"{secrets.token_hex(4)}@acme.example"
    assert [wrong(ann.port, email, "203.0.113.1") for _ in range(11)] == [401] * 10 + [429]
    assert wrong(ann.port, email, "203.0.113.1:50123") == 429
    assert wrong(ann.port, email, "198.51.100.1, ::ffff:203.0.113.1") == 429
    assert wrong(ann.port, email, "203.0.113.2") == 401
    assert by_proxy(ann.by_password, "203.0.113.2").status == 200


def test_an_ipv6_network_is_one_client(ann: Person) -> None:
    """20: a client that changes its address within its /64 is refused all the same."""
    email = f"{secrets.token_hex(4)}@acme.example"
    assert [wrong(ann.port, email, f"[2001:db8::{number}]:443") for number in range(10)] == [401] * 10
    assert wrong(ann.port, email, "2001:db8::ffff") == 429
    assert wrong(ann.port, email, "2001:db8:0:1::1") == 401


def test_the_audit_log_has_the_client(ann: Person) -> None:
    """The audit log has the client's address, IPv4 in IPv4 form, and ignores addresses that the client sends."""
    label = secrets.token_hex(4)
    wanted = json.dumps({"label": label}).encode()
    headers = {"Content-Type": "application/json", "X-Forwarded-For": "1.1.1.1, 203.0.113.77:1"}
    assert ann.by_password.send("POST", "/api/v1/tokens", wanted, headers).status == 201
    entries = ann.api.get(f"{ann.base}/audit?event=token-create").json()["items"]
    assert [entry["address"] for entry in entries if label in entry["detail"]] == ["203.0.113.77"]


def test_ipv4_clients_of_a_dual_stack_socket(tmp_path: Path) -> None:
    """Without a proxy the audit log has IPv4 addresses in IPv4 form, and this machine can read /metrics."""
    with dual_stack(tmp_path) as ann:
        assert ann.by_password.get("/token").status == 200
        entries = ann.api.get(f"{ann.base}/audit?event=sign-in").json()["items"]
        assert {entry["address"] for entry in entries} == {"127.0.0.1"}
        assert ann.by_password.get("/metrics").status == 200
