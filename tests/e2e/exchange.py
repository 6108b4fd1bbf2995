"""Plain requests to the registry, for what no client does; and a relay that sees a client's requests."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .images import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .people import Person

SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a request to the server, never through a proxy."""
    asked = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310 - the server's own
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=SECONDS) as answer:
            return Answer(answer.status, dict(answer.headers.items()), answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers.items()), error.read())


@dataclass
class Registry:
    """One repository as a client of the token flow sees it."""

    person: Person
    name: str
    bearer: dict[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        """``organisation/name``."""
        return f"{self.person.org}/{self.name}"

    def sign_in(self, token: str) -> None:
        """Trade an access token for a registry token of this repository."""
        base = f"{self.person.server.url}/v2/"
        challenge = request("GET", base).headers["WWW-Authenticate"]
        realm, service = (challenge.partition(f'{each}="')[2].partition('"')[0] for each in ("realm", "service"))
        query = urllib.parse.urlencode({"service": service, "scope": f"repository:{self.repository}:pull,push"})
        basic = base64.b64encode(f"POLLY:{token}".encode()).decode()
        answer = request("GET", f"{realm}?{query}", headers={"Authorization": f"Basic {basic}"})
        assert answer.status == 200, answer.body
        self.bearer = {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}

    def get(self, path: str) -> Answer:
        """GET below the repository."""
        return request("GET", f"{self.person.server.url}/v2/{self.repository}/{path}", headers=self.bearer)

    def push_blob(self, content: bytes) -> str:
        """Push a blob in one request; its digest."""
        digest = digest_of(content)
        url = f"{self.person.server.url}/v2/{self.repository}/blobs/uploads/?digest={digest}"
        answer = request("POST", url, content, self.bearer | {"Content-Type": "application/octet-stream"})
        assert answer.status == 201, answer.body
        return digest

    def push_manifest(self, content: bytes, media_type: str, tag: str | None = None) -> Answer:
        """Push a manifest by its digest, or under a tag."""
        url = f"{self.person.server.url}/v2/{self.repository}/manifests/{tag or digest_of(content)}"
        answer = request("PUT", url, content, self.bearer | {"Content-Type": media_type})
        assert answer.status == 201, answer.body
        return answer


class Relay:
    """Passes bytes between clients and the server; a function runs before a method's first request is passed on."""

    def __init__(self, server: tuple[str, int], method: str, happens: Callable[[], None]) -> None:
        self._server = server
        self._start = f"{method} /".encode()
        self._happens = happens
        self._lock = threading.Lock()
        self.happened = False
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    @contextlib.contextmanager
    def running(self) -> Iterator[Relay]:
        """Serve until the test is over; then every connection is closed."""
        self._spawn(self._accept)
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(SECONDS)
            for each in self._open:
                each.close()

    def _spawn(self, run: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                self._spawn(self._copy, client, server)
                self._spawn(self._copy, server, client)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(target.shutdown, socket.SHUT_WR)
            while some := source.recv(1 << 16):
                with self._lock:
                    if not self.happened and some.startswith(self._start):
                        self.happened = True
                        self._happens()
                target.sendall(some)
