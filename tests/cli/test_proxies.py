"""Commands behind a real proxy: tunnels, certificates, names and passwords, and ways around it."""

from __future__ import annotations

import base64
import http.server
import select
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from cli.test_failures import INFO, answering, certificate, login

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli.people import User

__all__ = ["certificate"]


class Proxy(http.server.ThreadingHTTPServer):
    """A proxy that tunnels every CONNECT to one place, for clients with the right name and password."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.target = ("", 0)
        self.asked: list[str] = []
        self.sign_in = ""


class Tunnel(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    server: Proxy

    def do_CONNECT(self) -> None:
        """Open a tunnel."""
        self.server.asked.append(self.path)
        if self.server.sign_in and self.headers["proxy-authorization"] != self.server.sign_in:
            self.send_error(407)
            return
        with socket.create_connection(self.server.target) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while True:
                for each in select.select(list(ends), [], [])[0]:
                    some = each.recv(65536)
                    if not some:
                        return
                    ends[each].sendall(some)

    def do_GET(self) -> None:
        """Answer a request that has the whole address."""
        self.server.asked.append(self.path)
        self.send_error(407 if self.server.sign_in else 502)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Return a running proxy."""
    with Proxy() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_https_goes_through_a_tunnel_with_our_certificates(nobody: User, certificate: Path, proxy: Proxy) -> None:
    """The server's certificate is checked through the proxy, and --ca-file works there too."""
    with answering(200, INFO % "registry.invalid", tls=certificate) as address:
        proxy.target = ("127.0.0.1", int(address.rpartition(":")[2]))
        env = {"NO_PROXY": "", "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_port}"}
        assert "POLLY_CA_FILE" in login(nobody, "https://192.0.2.7", **env)
        line = login(nobody, "https://192.0.2.7", **env, POLLY_CA_FILE=f"{certificate}.crt")
    assert "IP address mismatch" in line
    assert proxy.asked == ["192.0.2.7:443"] * 2


def test_a_proxy_with_a_password(nobody: User, certificate: Path, proxy: Proxy) -> None:
    """The name and password in its address are sent; without them the error says where they belong, and shows none."""
    proxy.sign_in = "Basic " + base64.b64encode("ann:p\u00e4ss/word".encode()).decode()
    place = f"127.0.0.1:{proxy.server_port}"
    for scheme, variable in (("https", "HTTPS_PROXY"), ("http", "HTTP_PROXY")):
        for user in ("", "ann:wrong-secret@"):
            line = login(nobody, f"{scheme}://192.0.2.7", **{"NO_PROXY": "", variable: f"http://{user}{place}"})
            assert line.startswith("Error: The proxy asks for a name and a password")
            assert "wrong-secret" not in line
    with answering(200, INFO % "registry.invalid", tls=certificate) as address:
        proxy.target = ("127.0.0.1", int(address.rpartition(":")[2]))
        secret = "http://ann:p%C3%A4ss%2Fword@" + place
        assert "certificate" in login(nobody, "https://192.0.2.7", NO_PROXY="", HTTPS_PROXY=secret)


def test_loopback_and_networks_of_no_proxy_go_around_it(nobody: User, proxy: Proxy) -> None:
    """polly, like docker, connects directly to this machine and to networks in NO_PROXY."""
    env = {"HTTP_PROXY": f"http://127.0.0.1:{proxy.server_port}"}
    with answering(200, "no polly") as address:
        assert "is not a Polly" in login(nobody, address, NO_PROXY="", **env)
        assert "is not a Polly" in login(nobody, f"localhost:{address.rpartition(':')[2]}", NO_PROXY="", **env)
    assert "does not answer" in login(nobody, "http://127.0.0.1.invalid", NO_PROXY=".invalid", **env)
    assert proxy.asked == []
    assert "answered 502" in login(nobody, "http://192.0.2.7", NO_PROXY="10.0.0.0/8", **env)
    assert proxy.asked == ["http://192.0.2.7/api/v1"]


def test_a_proxy_that_is_not_there_is_named_without_its_password(nobody: User) -> None:
    """The message is about the proxy, and does not show its password."""
    line = login(nobody, "https://192.0.2.7", NO_PROXY="", HTTPS_PROXY="http://ann:secret@127.0.0.1:1")
    assert "the proxy: connection refused" in line
    assert "secret" not in line
