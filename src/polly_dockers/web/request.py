"""The request that every handler receives, and the ways to read its body."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec

from polly_dockers.errors import BadRequest, NameInvalid, SizeInvalid, TooLarge
from polly_dockers.system import addresses
from polly_dockers.web.body import Body, too_slow
from polly_dockers.web.memory import SMALL, HeldContent, hang_up

if TYPE_CHECKING:
    from polly_dockers.context import Context
    from polly_dockers.web.client import Client
    from polly_dockers.web.memory import Held, Room
    from polly_dockers.web.reader import Head
    from polly_dockers.web.response import Response

T = TypeVar("T")

BODY_LIMIT: Final = SMALL
"""Largest JSON or form body, in bytes. Anybody may send one, so it is no larger than what does not count (SMALL)."""
SMALL_BODY_SECONDS: Final = 30.0
"""Seconds within which a whole small body must arrive; a larger one has this time for each MiB of its limit."""
_ABSOLUTE: Final = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)
"""What a client sends before the path to a proxy. A server must accept it too (RFC 9112, section 3.2.2)."""

_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?\Z")
_FORBIDDEN: Final = re.compile(r"%2f|%5c|%00|[\\\x00-\x20\x7f]|/\.\.?(?:/|\Z)", re.IGNORECASE)
_SIMPLE: Final = re.compile(r"[A-Za-z0-9/._:-]+\Z")
"""A path of these characters needs no decoding. Without "/." it needs no other check either."""
_CHUNK: Final = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/[0-9*]+)?\Z")


class Request:
    """A request, and what is known about it before a handler runs."""

    __slots__ = (
        *("_queries", "_room", "body", "client", "context", "headers", "held", "id", "kind", "method"),
        *("path", "query_string", "schemes", "user_id"),
    )

    def __init__(
        self, client: Client, head: Head, body: Body | None, context: Context, room: Room, request_id: str
    ) -> None:
        """``body`` is None if the request has none."""
        self.client = client
        self.method = head.method
        self.headers = head.headers
        """By their names in lower case."""
        self.body = body
        self.context = context
        self._room = room
        self.held: Held | None = None
        """The memory that the request uses. The caller of the handler releases it."""
        self.id = request_id
        self.kind = "other"
        """How metrics name the request."""
        self.schemes: tuple[str, ...] = ("Bearer",)
        """The authentication schemes that this address of /api/v1 accepts."""
        self.user_id: int | None = None
        """The signed-in user, for the log."""
        target = head.target
        if target[:1] != "/" or not target.isascii():
            target = _ABSOLUTE.sub("", _text(target))
        self.path, _, self.query_string = target.partition("?")
        self._queries: list[tuple[str, str]] | None = None

    @property
    def largest(self) -> int:
        """How many bytes of a response body the client can use: none for HEAD, else any number."""
        return 0 if self.method == "HEAD" else sys.maxsize

    def check_path(self) -> None:
        """Decode the path. Raises NameInvalid for one that two programs could decode differently.

        A refused path stays encoded, also in the log.
        """
        if _SIMPLE.match(self.path) and "/." not in self.path:
            return
        if _FORBIDDEN.search(self.path):
            msg = "A path must not have an encoded slash, a backslash, NUL, '.' or '..'."
            raise NameInvalid(msg)
        try:
            path = unquote(self.path, errors="strict")
        except UnicodeDecodeError as error:
            msg = "The path is not valid UTF-8."
            raise NameInvalid(msg) from error
        if not path.isascii() or _FORBIDDEN.search(path):
            msg = "The path has characters that no name, tag or digest may have, or it is encoded twice."
            raise NameInvalid(msg)
        self.path = path

    def queries(self) -> list[tuple[str, str]]:
        """Names and values of the query parameters. Raises BadRequest for more than 200."""
        if self._queries is None:
            try:
                self._queries = parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=200)
            except ValueError as error:
                msg = "The query has more than 200 parameters."
                raise BadRequest(msg) from error
        return self._queries

    def query(self, name: str) -> str | None:
        """The value of a query parameter, or None. Raises BadRequest if it is given twice."""
        found = [value for key, value in self.queries() if key == name]
        if len(found) > 1:
            msg = f"The query has {name} {len(found)} times. Give it once."
            raise BadRequest(msg)
        return found[0] if found else None

    @property
    def address(self) -> str:
        """The client's address: that of the peer, or what a trusted proxy reports."""
        proxies = self.context.config.trusted_proxies
        if not proxies:
            return self.client.remote
        return addresses.client(self.client.remote, (self.headers.get("x-forwarded-for", ""),), proxies)

    @property
    def base(self) -> str:
        """``https://HOST[:PORT]`` of this server for the client: the public URL, else from the Host header."""
        config = self.context.config
        host = self.headers.get("host", "")
        if config.public_url or not _HOST.match(host):
            return config.url
        return f"{'https' if config.tls else 'http'}://{host}"

    def has_etag(self, digest: str) -> bool:
        """Whether If-None-Match names the digest, so that the client has the content already."""
        return matches(self.headers.get("if-none-match"), digest)

    def stream(self) -> Body:
        """The body as a stream of pieces. It may be empty."""
        if self.body is None:
            self.body = Body(self.client, 0)
            self.body.end()
        return self.body

    def hold(self) -> Held:
        """Start to count the memory that this request uses."""
        self.held = self._room.hold(self.address, lambda: hang_up(self.client.transport))
        return self.held

    def keep(self, response: Response) -> None:
        """Count the body of a large response until it is sent. Raises Unavailable if there is no memory for it."""
        self.release()
        held = self.hold()
        held.add(response.body)
        response.body, response.content = b"", HeldContent(held, response.length)

    def release(self) -> None:
        """Free the memory that the request uses."""
        if self.held is not None:
            self.held.release()

    async def read(self, limit: int) -> bytes:
        """Read the whole body, at most ``limit`` bytes.

        Raises TooLarge, Unavailable if there is no memory, and what ``Body`` raises if the body is cut short.
        """
        stream = self.stream()
        if stream.length is not None and stream.length > limit:
            raise _too_large(limit)
        held = self.hold()
        try:
            async with asyncio.timeout(SMALL_BODY_SECONDS * max(1, limit >> 20)):
                async for piece in stream:
                    if held.size + len(piece) > limit:
                        raise _too_large(limit)
                    held.add(piece)
        except TimeoutError as error:
            raise too_slow() from error
        return held.whole()

    async def json(self, kind: type[T]) -> T:
        """Decode the body as a type of ``api_types``. Raises BadRequest, which names the wrong field."""
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            msg = "Send the body as JSON, with Content-Type: application/json."
            raise BadRequest(msg)
        try:
            return msgspec.json.decode(await self.read(BODY_LIMIT), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"The body is not as documented: {str(error)[:300]}."
            raise BadRequest(msg) from error

    async def form(self) -> list[tuple[str, str]]:
        """Names and values of the form in the body. Raises BadRequest."""
        try:
            text = (await self.read(BODY_LIMIT)).decode("utf-8")
            return parse_qsl(text, keep_blank_values=True, max_num_fields=200)
        except ValueError as error:
            msg = "The body is not a form (application/x-www-form-urlencoded)."
            raise BadRequest(msg) from error

    def content_range(self) -> tuple[int, int] | None:
        """First and last byte of the chunk in the body, or None. Raises SizeInvalid for a malformed header."""
        header = self.headers.get("content-range")
        if header is None:
            return None
        match = _CHUNK.match(header.strip())
        if match is None:
            msg = f"Content-Range {header[:100]!r} is malformed. Write START-END, both inclusive."
            raise SizeInvalid(msg)
        return int(match[1]), int(match[2])


def matches(header: str | None, digest: str) -> bool:
    """Whether a value of If-None-Match names the digest, by the weak comparison (RFC 9110, section 13.1.2)."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return digest in tags or "*" in tags


def _text(raw: str) -> str:
    """Replace bytes that are not valid UTF-8 by escapes, so that the text can be encoded again."""
    return raw if raw.isascii() else raw.encode("utf-8", "backslashreplace").decode("utf-8")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than the limit of {limit} bytes.")
