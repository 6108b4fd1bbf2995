"""A plain HTTP client: each request has its own connection, each answer has status, headers and bytes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import secrets
import socket
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from support.server import Server

TIMEOUT: Final = 60.0
"""Seconds after which a server that does not answer fails the test."""

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
EMPTY: Final = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def sha256(data: bytes) -> str:
    """The sha256 digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def sha512(data: bytes) -> str:
    """The sha512 digest of bytes."""
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


def dumps(document: object) -> bytes:
    """JSON as a client writes it."""
    return json.dumps(document).encode()


def descriptor(data: bytes, media_type: str = LAYER, **more: object) -> dict[str, Any]:
    """A descriptor of bytes."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


@dataclass(frozen=True)
class Image:
    """An image with its blobs."""

    manifest: bytes
    media_type: str
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """Its digest."""
        return sha256(self.manifest)


def image(content: str | None = None, *, media_type: str = OCI_MANIFEST, **more: object) -> Image:
    """An image of one layer; ``more`` are fields of its manifest."""
    layer = (content if content is not None else secrets.token_hex(8)).encode()
    config = dumps({"os": "linux", "architecture": "amd64", "of": content or sha256(layer)})
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer)],
        **more,
    }
    return Image(dumps(document), media_type, (config, layer))


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, which must be there."""
        value = self.headers[name]
        assert value is not None, f"no {name} in {self.headers.items()}"
        return str(value)

    def json(self) -> dict[str, Any]:
        """The body, a JSON object."""
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    @property
    def code(self) -> str:
        """The code of the error envelope; none without a body."""
        if not self.body:
            return ""
        (error,) = self.json()["errors"]
        return str(error["code"])

    @property
    def message(self) -> str:
        """The message of the error envelope."""
        (error,) = self.json()["errors"]
        return str(error["message"])

    def plain(self) -> tuple[int, Any]:
        """Status and body without the request's id: what two answers are compared by."""
        document = self.json()
        for error in document["errors"]:
            assert error["detail"].pop("request_id") == self.headers["X-Request-Id"]
        return self.status, document


@dataclass(frozen=True)
class Client:
    """Sends requests to a server, with an Authorization or without one."""

    port: int
    authorization: str | None = None
    host: str = field(default="127.0.0.1", kw_only=True)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a request; an iterable body is sent in chunks."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        given = {"Connection": "close", **(headers or {})}
        if self.authorization is not None:
            given.setdefault("Authorization", self.authorization)
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            given["Transfer-Encoding"] = "chunked"
        with contextlib.closing(connection):
            connection.request(method, path, body, given, encode_chunked=chunked)
            with connection.getresponse() as response:
                return Answer(response.status, response.headers, response.read())

    def get(self, path: str, **headers: str) -> Answer:
        """Send a GET request; underscores in the names of headers stand for hyphens."""
        return self.send("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def json(self, method: str, path: str, document: object) -> Answer:
        """A request with a JSON body."""
        return self.send(method, path, dumps(document), {"Content-Type": "application/json"})


def bearer(port: int, token: str) -> Client:
    """A client with a token."""
    return Client(port, f"Bearer {token}")


def basic(port: int, user: str, secret: str) -> Client:
    """A client with Basic credentials."""
    return Client(port, "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode())


@dataclass(frozen=True)
class Repo(Client):
    """A client for one repository, by a registry token that was made for it."""

    name: str = ""

    def path(self, rest: str) -> str:
        """A path below the repository's."""
        return f"/v2/{self.name}/{rest}"

    def start(self, query: str = "") -> str:
        """A new upload's Location."""
        answer = self.send("POST", self.path(f"blobs/uploads/{query}"))
        assert answer.status == 202, answer.body
        return answer.header("Location")

    def push_blob(self, data: bytes) -> str:
        """Push a blob in one request; its digest."""
        answer = self.send("POST", self.path(f"blobs/uploads/?digest={sha256(data)}"), data)
        assert answer.status == 201, answer.body
        return sha256(data)

    def put(self, reference: str, body: bytes, media_type: str = OCI_MANIFEST) -> Answer:
        """PUT a manifest."""
        return self.send("PUT", self.path(f"manifests/{reference}"), body, {"Content-Type": media_type})

    def push(self, made: Image, *tags: str) -> str:
        """Push an image with its blobs, to tags or by its digest; the digest."""
        for blob in made.blobs:
            self.push_blob(blob)
        for reference in tags or (made.digest,):
            answer = self.put(reference, made.manifest, made.media_type)
            assert answer.status == 201, answer.body
        return made.digest

    def manifest(self, reference: str, **headers: str) -> Answer:
        """GET a manifest."""
        return self.get(self.path(f"manifests/{reference}"), **headers)

    def blob(self, digest: str, **headers: str) -> Answer:
        """GET a blob."""
        return self.get(self.path(f"blobs/{digest}"), **headers)

    def delete(self, rest: str) -> Answer:
        """DELETE below the repository."""
        return self.send("DELETE", self.path(rest))


@dataclass(frozen=True)
class Person:
    """A user of a server: what they sign in with, and clients that are signed in as them."""

    port: int
    org: str
    email: str
    password: str
    _kept: dict[str, str] = field(default_factory=dict)

    @property
    def by_password(self) -> Client:
        """Email and password."""
        return basic(self.port, self.email, self.password)

    def access_token(self, scope: str = "full", expires_in: int = 3600) -> str:
        """A new access token."""
        wanted = {"scope": scope, "expires_in": expires_in, "label": "of a test"}
        answer = self.by_password.json("POST", "/api/v1/tokens", wanted)
        assert answer.status == 201, answer.body
        return str(answer.json()["token"])

    @property
    def secret(self) -> str:
        """An access token of scope full, made once."""
        if "full" not in self._kept:
            self._kept["full"] = self.access_token()
        return self._kept["full"]

    @property
    def api(self) -> Client:
        """A client of /api/v1."""
        return bearer(self.port, self.secret)

    def registry_token(self, *scopes: str, secret: str | None = None) -> str:
        """A registry token for scopes."""
        query = urlencode([("service", "polly"), *(("scope", scope) for scope in scopes)])
        answer = basic(self.port, "POLLY", secret or self.secret).get(f"/token?{query}")
        assert answer.status == 200, answer.body
        return str(answer.json()["token"])

    def repo(self, name: str, actions: str = "pull,push,delete") -> Repo:
        """A client for a repository of the organisation."""
        return self.at(f"{self.org}/{name}", actions)

    def at(self, path: str, actions: str = "pull,push,delete", *sources: str, secret: str | None = None) -> Repo:
        """A client for ``<organisation>/<name>``, signed in by ``secret`` where one is given.

        It may pull from ``sources`` too, as clients ask for it before they mount from there.
        """
        more = (f"repository:{source}:pull" for source in sources)
        token = self.registry_token(f"repository:{path}:{actions}", *more, secret=secret)
        return Repo(self.port, f"Bearer {token}", path)

    def create(self, name: str | None = None, **more: str) -> str:
        """Make a repository; its name without the organisation."""
        name = name or f"r-{secrets.token_hex(4)}"
        answer = self.api.json("POST", f"{self.base}/repositories", {"name": name, "description": "x", **more})
        assert answer.status == 201, answer.body
        return name

    def new_repo(self, **more: str) -> Repo:
        """Make a repository; a client for it that may do everything."""
        return self.repo(self.create(**more))

    @property
    def base(self) -> str:
        """The address of the organisation in /api/v1."""
        return f"/api/v1/organisations/{self.org}"

    def commits(self, name: str, **query: object) -> dict[str, Any]:
        """The commits of a repository, as /api/v1 lists them."""
        answer = self.api.get(f"{self.base}/commits?{urlencode({'repository': name, **query})}")
        assert answer.status == 200, answer.body
        return answer.json()

    def repository(self, name: str) -> dict[str, Any]:
        """A repository, as /api/v1 shows it."""
        answer = self.api.get(f"{self.base}/repository?name={quote(name)}")
        assert answer.status == 200, answer.body
        return answer.json()

    def add(self, role: str) -> Person:
        """A new member of this admin's organisation, in that role."""
        made = Person(self.port, self.org, f"user-{secrets.token_hex(5)}@acme.example", secrets.token_urlsafe(12))
        answer = made.accept(self.invite(made.email, role))
        assert answer.status == 200, answer.body
        return made

    def invite(self, email: str, role: str) -> str:
        """Invite somebody to this admin's organisation; the code."""
        answer = self.api.json("POST", f"{self.base}/invitations", {"email": email, "role": role})
        assert answer.status == 201, answer.body
        return str(answer.json()["code"])

    def accept(self, code: str, password: str | None = None) -> Answer:
        """Redeem a code, by email and password and not signed in."""
        wanted = {"code": code, "email": self.email, "password": password or self.password}
        return Client(self.port).json("POST", "/api/v1/invitation", wanted)

    def elsewhere(self, org: str) -> Person:
        """The same user, looking at another organisation."""
        return replace(self, org=org)


_ADMINS: Final[dict[Path, Person]] = {}
_OTHERS: Final[dict[Path, Person]] = {}
_MEMBERS: Final[dict[tuple[Path, str], Person]] = {}
"""By the data folder of their server: another one may have its port after it."""


def admin(server: Server) -> Person:
    """The admin of the server's first organisation."""
    if server.data not in _ADMINS:
        _ADMINS[server.data] = Person(server.port, server.org, *server.admin)
    return _ADMINS[server.data]


def new_admin(server: Server) -> Person:
    """The only admin of a new organisation, for a test that changes roles, or that others must not disturb."""
    org, (email, password) = server.new_org()
    return Person(server.port, org, email, password)


def stranger(server: Server) -> Person:
    """The admin of another organisation of the server, made once; tests must leave their role as it is."""
    if server.data not in _OTHERS:
        _OTHERS[server.data] = new_admin(server)
    return _OTHERS[server.data]


def member(server: Server, role: str) -> Person:
    """A member of the first organisation in that role, made once; tests must not change their account or role.

    There is no shared second admin: with one, a test could take the role of the first.
    """
    assert role in {"reader", "writer"}, "for another admin: new_admin, in an organisation of its own"
    key = (server.data, role)
    if key not in _MEMBERS:
        _MEMBERS[key] = admin(server).add(role)
    return _MEMBERS[key]


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A bare connection, for what no client library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        yield connection


def receive(connection: socket.socket, method: str = "GET") -> Answer:
    """Read one answer off a bare connection."""
    response = http.client.HTTPResponse(connection, method=method)
    with contextlib.closing(response):
        response.begin()
        return Answer(response.status, response.headers, response.read())


def raw(port: int, head: str, body: bytes = b"") -> Answer:
    """Send the bytes of a request as they stand; the answer."""
    with connected(port) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
        return receive(connection)
