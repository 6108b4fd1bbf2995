"""Where each request on a connection ends: each gets one response, in order, however its bytes are split."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.errors import BadRequest, ClientGone
from polly_dockers.web.reader import FIELDS, HEAD_LIMIT
from support.wire import EMPTY, GET, Client, Echo, answer, patch, put

if TYPE_CHECKING:
    from polly_dockers.web.app import Send
    from polly_dockers.web.request import Request


SMALL = st.binary(min_size=1, max_size=40).filter(lambda chunk: b"\r\n" not in chunk)
STREAM = st.lists(
    st.one_of(
        st.just(GET),
        st.binary(max_size=40).map(put),
        st.just(put(GET)),
        st.just(put(GET + put(b"x"))),
        st.lists(SMALL, max_size=4).map(lambda chunks: patch(*chunks)),
    ),
    max_size=6,
)


@given(requests=STREAM, cuts=st.sets(st.integers(0, 2000)), blank=st.booleans())
async def test_each_request_is_answered_once(requests: list[bytes], cuts: set[int], *, blank: bool) -> None:
    """However any requests are cut into pieces, each gets its response, in order.

    What follows a chunked body in the same piece may get no response; then the connection closes.
    """
    client = Client()
    stream = (b"\r\n" if blank else b"") + b"".join(requests)
    ends = sorted({cut for cut in cuts if 0 < cut < len(stream)} | {len(stream)})
    pieces = [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    await client.send(*pieces)
    wanted = [answer(request) for request in requests]
    got = client.answers()
    assert got == wanted[: len(got)]
    if len(got) < len(wanted):
        assert client.wire.closed
        assert requests[len(got) - 1].startswith(b"PATCH")
    client.leave()


async def test_a_request_inside_of_a_body() -> None:
    """A body that looks like a request, in a piece of its own, is not handled as one."""
    client = Client()
    whole = put(GET)
    await client.send(whole[: -len(GET)], GET, GET)
    assert client.answers() == [answer(whole), answer(GET)]
    client.leave()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /a HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /a HTTP/1.1\nHost: a\n\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000005\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"0" * 4300 + b"5\r\n\r\nhello",
        b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n\r\n\r\n" + GET,
        b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"NONSENSE /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET /" + b"a" * HEAD_LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\n" + b"X: b\r\n" * (HEAD_LIMIT // 6) + b"\r\n",
    ],
)
async def test_what_readers_could_understand_differently(request_: bytes) -> None:
    """It gets one error; the app sees nothing, and nothing that follows is handled (request smuggling)."""
    for pieces in ([request_ + GET], [request_, GET], [request_[:9], request_[9:], GET]):
        client = Client()
        written = await client.send(*pieces)
        assert written.startswith((b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.1 431 Request Header"))
        assert b"\r\nConnection: close\r\n" in written
        assert written.count(b"\r\n\r\n") == 1
        assert client.app.seen == []
        assert len(client.app.refused) == 1
        assert client.wire.ended
        client.leave()


async def test_an_upgrade_is_ignored() -> None:
    """The request is handled as HTTP/1.1, with its body, and so is the next one (RFC 9110, section 7.8)."""
    client = Client()
    for whole in (put(GET, b"Connection: Upgrade", b"Upgrade: h2c"), put(b"", b"Connection: Upgrade", b"Upgrade: h2c")):
        await client.send(whole, GET)
        assert client.answers()[-2:] == [b"PUT /b " + answer(whole).split()[-1], answer(GET)]
    client.leave()


async def test_the_rest_of_a_refused_body_is_dropped() -> None:
    """The response comes at once; the next request is handled after the end of the body."""
    client = Client()
    client.app.reads = False
    whole = put(b"x" * 100_000)
    assert (await client.send(whole[:50_000])).count(b"HTTP/1.1 200") == 1
    assert client.connection.transport is not None
    await client.send(whole[50_000:], GET)
    assert client.answers() == [b"PUT /b " + EMPTY, answer(GET)]
    client.leave()


async def test_only_a_wanted_body_is_asked_for() -> None:
    """A client that waits for 100 Continue gets it if the handler reads; otherwise the connection closes."""
    head = put(b"hello", b"Expect: 100-continue")[:-5]
    client = Client()
    assert await client.send(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await client.send(b"hello")).count(b"HTTP/1.1") == 2
    client.leave()
    client = Client()
    client.app.reads = False
    assert (await client.send(head)).startswith(b"HTTP/1.1 200")
    assert client.app.seen[0].body is not None
    assert client.app.seen[0].body.withheld
    client.leave()


@pytest.mark.parametrize(("more", "kept"), [(b"", False), (b"Connection: keep-alive\r\n", True)])
async def test_http_1_0(more: bytes, kept: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A connection of HTTP/1.0 closes after the response, unless the client asks to keep it."""
    client = Client()
    written = await client.send(b"GET /a HTTP/1.0\r\n" + more + b"\r\n")
    assert (b"\r\nConnection: keep-alive\r\n" in written, client.wire.closed) == (kept, not kept)
    client.leave()


async def test_a_client_that_sends_no_more_gets_its_response() -> None:
    """If the client closes its half of the connection, its requests get responses, and then the connection closes."""
    client = Client()
    client.connection.data_received(GET)
    assert client.connection.eof_received()
    await client.send()
    assert client.answers() == [answer(GET)]
    assert client.wire.closed
    client.leave()


async def test_pieces_without_content_are_bounded() -> None:
    """Endless chunk extensions and trailers are refused."""
    head = b"PATCH /c HTTP/1.1\r\nHost: polly\r\nTransfer-Encoding: chunked\r\n\r\n"
    for endless in (b"1;", b"0\r\nTrailer: "):
        client = Client()
        await client.send(head, endless, *[b"x" * 1000] * (HEAD_LIMIT // 1000 + 2))
        assert client.wire.ended
        assert client.wire.written.startswith(b"HTTP/1.1 400 ")
        client.leave()


async def test_requests_that_wait_are_bounded() -> None:
    """While a request is handled, the connection reads at most one piece of what follows."""
    client = Client()
    go = asyncio.Event()

    async def respond(request: Request, send: Send) -> None:
        await go.wait()
        await Echo.respond(client.app, request, send)

    cast("Any", client.app).respond = respond
    client.connection.data_received(GET * 1000)
    stopped = not client.wire.reading
    assert stopped
    assert client.app.seen == []
    go.set()
    while len(client.answers()) < 1000:  # noqa: ASYNC110 - one turn of the loop at a time
        await asyncio.sleep(0)
    assert client.wire.reading
    client.leave()


async def test_a_body_that_is_cut_short() -> None:
    """The app gets an error, whether the client left or the rest is not a body."""
    for end in (b"", b"Z"):
        client = Client()
        failures: list[BaseException] = []

        async def respond(request: Request, _send: Send, failures: list[BaseException] = failures) -> None:
            try:
                async for _ in request.stream():
                    pass
            except (ClientGone, BadRequest) as error:
                failures.append(error)
                raise

        cast("Any", client.app).respond = respond
        await client.send(patch(b"x" * 20_000)[:10_000])
        if end:
            await client.send(b"x" * 20_000)
        else:
            client.leave()
            await client.send()
        assert [type(failure) for failure in failures] == [BadRequest if end else ClientGone]
        client.leave()


async def test_a_response_waits_until_the_one_before_it_is_read() -> None:
    """So a client that sends one request after the other and reads nothing fills no memory."""
    client = Client()
    client.wire.on_write = client.connection.pause_writing
    for count in range(1, 4):
        await client.send(GET)
        client.connection.data_received(GET)
        await client.send()
        assert len(client.answers()) == 2 * count - 1
        stopped = not client.wire.reading
        assert stopped
        client.connection.resume_writing()
        await client.send()
        assert len(client.answers()) == 2 * count
        client.connection.resume_writing()
        await client.send()
        assert client.wire.reading
    client.leave()


async def test_responses_that_are_not_read_are_bounded() -> None:
    """A client that sends requests and reads nothing gets no second response before it has read the first."""
    client = Client()
    client.connection.data_received(GET * 100)
    client.connection.pause_writing()
    await client.send()
    assert len(client.answers()) == 1
    client.connection.resume_writing()
    while len(client.answers()) < 100:  # noqa: ASYNC110 - one turn of the loop at a time
        await asyncio.sleep(0)
    client.leave()


async def test_a_connection_that_is_closed_takes_no_memory() -> None:
    """It is freed at once and not by the garbage collector, because a head may be large."""
    gc.collect()
    gc.disable()
    try:
        for sent in (b"", GET, GET[:-2], put(b"abc")[:-1], b"nonsense\r\n\r\n"):
            client = Client()
            await client.send(sent)
            client.leave()
            client.app.seen.clear()
            await client.send()
            reader = weakref.ref(client.connection)
            del client
            for _ in range(5):
                await asyncio.sleep(0)
            assert reader() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("draining", [False, True])
async def test_nothing_is_done_after_a_response_that_closes(draining: bool) -> None:  # noqa: FBT001 - a parameter
    """The rest of a refused body, and requests that come while the server stops, are not handled."""
    client = Client()
    client.app.reads = False
    client.app.draining = draining
    await client.send(put(b"hello", b"Expect: 100-continue")[:-5])
    await client.send(b"hello" + GET)
    assert [request.method for request in client.app.seen] == ["PUT"]
    assert client.wire.closed
    client.leave()


@pytest.mark.parametrize("line", [b"GET /a HTTP/1.1", b"CONNECT a:1 HTTP/1.1"])
async def test_an_upgrade_after_a_body_changes_nothing(line: bytes) -> None:
    """The body of the request before it is over, so what follows belongs to no request."""
    client = Client()
    upgrade = line + b"\r\nHost: polly\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    await client.send(patch(b"abc") + upgrade, b"3\r\nEVI\r\n0\r\n\r\n")
    assert client.answers() == [answer(patch(b"abc"))]
    assert client.wire.closed
    client.leave()


@pytest.mark.parametrize("coding", [b"\xff", b"x", b"gzip, chunked"])
@pytest.mark.parametrize("line", [b"GET /a HTTP/1.1", b"CONNECT a:1 HTTP/1.1"])
async def test_an_upgrade_with_a_wrong_body(line: bytes, coding: bytes) -> None:
    """It is refused, as it would be without the upgrade."""
    client = Client()
    fields = b"Host: polly\r\nConnection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: " + coding
    written = await client.send(line + b"\r\n" + fields + b"\r\n\r\n" + GET)
    assert written.startswith(b"HTTP/1.1 400 ")
    assert written.count(b"\r\n\r\n") == 1
    client.leave()


async def test_one_response_for_a_request_whose_body_breaks_later() -> None:
    """If the rest of a refused body turns out to be malformed, it is dropped without a second response."""
    client = Client()
    client.app.reads = False
    await client.send(patch(b"x" * 100)[:100])
    written = await client.send(b"Z" * 100, b"ZZ\r\n", GET)
    assert written.count(b"HTTP/1.1 ") == 1
    assert client.wire.ended
    client.leave()


async def test_too_many_headers() -> None:
    """They are refused, because each takes many times its bytes in memory."""
    client = Client()
    written = await client.send(b"GET /a HTTP/1.1\r\nHost: polly\r\n" + b"a: b\r\n" * (FIELDS + 1))
    assert written.startswith(b"HTTP/1.1 431 ")
    client.leave()


async def test_a_refused_client_that_leaves() -> None:
    """The connection does not wait for the rest of the body."""
    client = Client()
    client.app.reads = False
    await client.send(put(b"x" * 1000)[:500])
    assert not client.connection.eof_received()
    client.leave()
