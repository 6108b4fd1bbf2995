"""A request on its way: what every handler is given, and the ways to read its body."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from polly_dockers.errors import BadRequest, ClientGone, NameInvalid, RequestTimeout, SizeInvalid, TooLarge
from polly_dockers.system import addresses
from polly_dockers.web.fast_path import PromptRequest
from polly_dockers.web.memory import SMALL, hang_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from polly_dockers.context import Context
    from polly_dockers.web.memory import Held, Room
    from polly_dockers.web.response import Answer

T = TypeVar("T")

COMMON: Final = {
    "Server": "polly",
    "X-Content-Type-Options": "nosniff",
    "Docker-Distribution-Api-Version": "registry/2.0",
}
"""Headers of every answer."""

BODY_LIMIT: Final = SMALL
"""Bytes of a body of JSON or of a form: anybody may send one, so it is what each connection may have uncounted."""
PACE: Final = 60.0
SLOWEST: Final = 64 << 10
"""In each PACE seconds, so many bytes of a body have to come, or its end."""
WHOLE: Final = 30.0
"""Seconds within which a small body has to come whole; a larger one has as many for each MiB that it may have."""
LEAST: Final = 8 << 10
"""Bytes of a piece of a body, at least, but for its last: smaller ones are joined. Each costs a turn and an object,
and it is the client that decides how small its chunks and packets are."""

_ABSOLUTE: Final = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)
"""What a client writes before the path to a proxy, and a server has to take (RFC 9112, 3.2.2)."""

_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?\Z")
_FORBIDDEN: Final = re.compile(r"%2f|%5c|%00|[\\\x00-\x20\x7f]|/\.\.?(?:/|\Z)", re.IGNORECASE)
_SIMPLE: Final = re.compile(r"[A-Za-z0-9/._:-]+\Z")
"""A path that needs no decoding and, without "/.", no other look."""
_CHUNK: Final = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/[0-9*]+)?\Z")


class Exchange:
    """One request and what is known of it before a handler runs."""

    __slots__ = (
        *("_queries", "_request", "_room", "continued", "held", "id", "kind", "path", "query_string", "context"),
        *("schemes", "user_id"),
    )

    def __init__(self, request: web.BaseRequest | PromptRequest, context: Context, room: Room, request_id: str) -> None:
        self._request = request
        self.context = context
        self._room = room
        self.held: Held | None = None
        """What of the request is in memory; whoever serves the request releases it."""
        self.id = request_id
        self.continued = False
        """Whether the body was asked for: a client may wait for that (RFC 9110, 10.1.1)."""
        self.kind = "other"
        """What the counts call the request."""
        self.schemes: tuple[str, ...] = ("Bearer",)
        """How one signs in at this address of /api/v1."""
        self.user_id: int | None = None
        """Who was signed in, for the log."""
        raw = request.raw_path
        if raw[:1] != "/" or not raw.isascii():
            raw = _ABSOLUTE.sub("", _text(raw))
        self.path, _, self.query_string = raw.partition("?")
        self._queries: list[tuple[str, str]] | None = None

    @property
    def request(self) -> web.BaseRequest:
        """The request. Of one that is answered promptly, only what a PromptRequest has is there."""
        return cast("web.BaseRequest", self._request)

    @property
    def largest(self) -> int:
        """Bytes of a body that are of use: what is answered promptly takes no large one, and HEAD none."""
        if self._request.method == "HEAD":
            return 0
        return SMALL if isinstance(self._request, PromptRequest) else sys.maxsize

    @property
    def headers(self) -> dict[str, str]:
        """What stands in every answer."""
        return COMMON | {"X-Request-Id": self.id}

    def check_path(self) -> None:
        """Decode the path; raise NameInvalid for one that two readers could read as two (protocol 7).

        A path that is refused stays encoded, as the log then has it.
        """
        if _SIMPLE.match(self.path) and "/." not in self.path:
            return
        if _FORBIDDEN.search(self.path):
            msg = "An encoded slash, a backslash, NUL, '.' or '..' has no place in this path."
            raise NameInvalid(msg)
        try:
            path = unquote(self.path, errors="strict")
        except UnicodeDecodeError as error:
            msg = "The path is no UTF-8."
            raise NameInvalid(msg) from error
        if not path.isascii() or _FORBIDDEN.search(path):
            msg = "This path has characters that no name, tag or digest has, or is encoded twice."
            raise NameInvalid(msg)
        self.path = path

    def queries(self) -> list[tuple[str, str]]:
        """The query's parameters; raises BadRequest for more than 200."""
        if self._queries is None:
            try:
                self._queries = parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=200)
            except ValueError as error:
                msg = "The query has more than 200 parameters."
                raise BadRequest(msg) from error
        return self._queries

    def query(self, name: str) -> str | None:
        """A parameter's value; raises BadRequest where it is given twice."""
        found = [value for key, value in self.queries() if key == name]
        if len(found) > 1:
            msg = f"The query has {name} {len(found)} times: give it once."
            raise BadRequest(msg)
        return found[0] if found else None

    @property
    def address(self) -> str:
        """Who the client is: the peer, or what a trusted proxy says of it."""
        proxies = self.context.config.trusted_proxies
        forwarded = self._request.headers.getall("X-Forwarded-For", ()) if proxies else ()
        return addresses.client(self._request.remote, forwarded, proxies)

    @property
    def base(self) -> str:
        """``https://HOST[:PORT]`` as the client reaches the server: the public URL, else by its Host header."""
        config = self.context.config
        host = self.request.headers.get("Host", "")
        if config.public_url or not _HOST.match(host):
            return config.url
        return f"{'https' if config.tls else 'http'}://{host}"

    def body(self) -> RequestBody:
        """The body as a stream."""
        return RequestBody(self)

    def hold(self) -> Held:
        """Room for what this request makes the process keep in memory."""
        transport = self._request.transport
        end = _nothing if transport is None else functools.partial(hang_up, transport)
        self.held = self._room.hold(self.address, end)
        return self.held

    def keep(self, answer: Answer) -> None:
        """Count the body of a large answer for as long as it is sent; raises Unavailable where there is no room."""
        if isinstance(self._request, web.BaseRequest) and self._request.method != "HEAD":
            self.release()
            self.hold().add(answer.body)
            answer.body = b""

    def release(self) -> None:
        """Nothing of the request is in memory any more."""
        if self.held is not None:
            self.held.release()

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises TooLarge over ``limit`` bytes, ClientGone where it is cut short, Unavailable where there is no room.
        """
        stream = self.body()
        if stream.length is not None and stream.length > limit:
            raise _too_large(limit)
        held = self.hold()
        try:
            async with asyncio.timeout(WHOLE * max(1, limit >> 20)):
                async for piece in stream:
                    if held.size + len(piece) > limit:
                        raise _too_large(limit)
                    held.add(piece)
        except TimeoutError as error:
            raise _too_slow() from error
        return held.whole()

    async def json(self, kind: type[T]) -> T:
        """The body as a shape of ``wire``; raises BadRequest that says which field is wrong."""
        if self.request.content_type != "application/json":
            msg = "Send the body as JSON, with Content-Type: application/json."
            raise BadRequest(msg)
        try:
            return msgspec.json.decode(await self.read(BODY_LIMIT), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"The body is not as documented: {str(error)[:300]}."
            raise BadRequest(msg) from error

    async def form(self) -> list[tuple[str, str]]:
        """The body as form fields; raises BadRequest."""
        try:
            text = (await self.read(BODY_LIMIT)).decode("utf-8")
            return parse_qsl(text, keep_blank_values=True, max_num_fields=200)
        except ValueError as error:
            msg = "The body is not a form (application/x-www-form-urlencoded)."
            raise BadRequest(msg) from error

    def content_range(self) -> tuple[int, int] | None:
        """First and last byte of the chunk that the body is; raises SizeInvalid for a malformed header."""
        header = self.request.headers.get("Content-Range")
        if header is None:
            return None
        match = _CHUNK.match(header.strip())
        if match is None:
            msg = f"Content-Range {header[:100]!r} is malformed: write START-END, both inclusive."
            raise SizeInvalid(msg)
        return int(match[1]), int(match[2])


class RequestBody:
    """A request's body as it arrives (uploads.Body)."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        request = exchange.request
        self.length: int | None = request.content_length
        if self.length is None and request.headers.get("Transfer-Encoding") is None:
            self.length = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of LEAST bytes up to the buffer's size; raises ClientGone where the body ends before its end.

        What came before it was cut short is given all the same.
        """
        small = bytearray()
        failure: RequestTimeout | ClientGone | None = None
        self._exchange.continued = True
        try:
            async for piece in self._come():
                if len(piece) >= LEAST and not small:
                    yield piece
                    continue
                small += piece
                if len(small) >= LEAST:
                    joined, small = bytes(small), bytearray()
                    yield joined
        except (RequestTimeout, ClientGone) as error:
            failure = error
        if small:
            yield bytes(small)
        if failure is not None:
            raise failure

    async def _come(self) -> AsyncIterator[bytes]:
        """What has come, each time that something has."""
        request = self._exchange.request
        if self.length == 0:
            return
        try:
            if request.headers.get("Expect", "").lower() == "100-continue" and not request.content.total_bytes:
                await request._payload_writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # noqa: SLF001
                request._payload_writer.output_size = 0  # noqa: SLF001
            clock = asyncio.get_running_loop().time
            until, came = clock() + PACE, 0
            while True:
                async with asyncio.timeout_at(until):
                    piece = await request.content.readany()
                if not piece:
                    break
                came += len(piece)
                if came >= SLOWEST:
                    until, came = clock() + PACE, 0
                yield piece
        except TimeoutError as error:
            raise _too_slow() from error
        except (ConnectionError, ClientPayloadError, HttpProcessingError, EOFError) as error:
            raise ClientGone from error


def _text(raw: str) -> str:
    """What a client wrote as text that can be encoded again: bytes that are no UTF-8 are written out."""
    return raw if raw.isascii() else raw.encode("utf-8", "backslashreplace").decode("utf-8")


def _nothing() -> None:
    """The connection is gone already."""


def _too_slow() -> RequestTimeout:
    return RequestTimeout("The body of the request came too slowly; send it again on a better connection.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes, which is the limit here.")


def dump(document: Any) -> bytes:  # noqa: ANN401 - any JSON
    """JSON of plain values, compact."""
    return json.dumps(document, separators=(",", ":")).encode()
