"""Where requests end on a connection, and which of them are answered past aiohttp."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.web.fast_path import Framing

MANIFEST = b"GET /v2/acme/app/manifests/v1 HTTP/1.1\r\nHost: polly\r\nAuthorization: Bearer a.b.c\r\n\r\n"


def take(*pieces: bytes, idle: bool = True) -> list[bool]:
    """Whether each piece is taken as a request."""
    framing = Framing()
    return [framing.parse(piece, idle=idle) is not None for piece in pieces]


def put(body: bytes) -> bytes:
    """A request with a body."""
    return b"PUT /v2/acme/app/manifests/v1 HTTP/1.1\r\nHost: polly\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_manifest_is_taken() -> None:
    """Method, path and headers of a request are read from its bytes."""
    request = Framing().parse(MANIFEST, idle=True)
    assert request is not None
    assert (request.method, request.raw_path) == ("GET", "/v2/acme/app/manifests/v1")
    assert dict(request.headers) == {"Host": "polly", "Authorization": "Bearer a.b.c"}
    assert request.headers.get("authorization") == "Bearer a.b.c"


@pytest.mark.parametrize(
    "path",
    [
        b"/v2/acme/app/manifests/sha256:0123",
        b"/v2/acme/app/with/slashes/manifests/v1",
        b"/v2/acme/app/tags/list",
        b"/v2/acme/app/tags/list?n=100&last=v1",
    ],
)
def test_what_one_look_answers_is_taken(path: bytes) -> None:
    """Manifests and pages of tags, by GET and by HEAD."""
    for method in (b"GET", b"HEAD"):
        assert take(method + b" " + path + b" HTTP/1.1\r\nHost: polly\r\n\r\n") == [True]


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /v2/acme/app/blobs/sha256:0123 HTTP/1.1",
        b"GET /v2/acme/manifests/blobs/sha256:0123 HTTP/1.1",
        b"GET /v2/acme/app/manifests/v1/ HTTP/1.1",
        b"GET /v2/acme/app/manifests/v1?x HTTP/1.1",
        b"GET /v2/acme/app/manifests/v1#x HTTP/1.1",
        b"GET /v2/acme/app/blobs/sha256:0123?/manifests/x HTTP/1.1",
        b"GET /v2/acme/app/blobs/sha256:0123#/manifests/x HTTP/1.1",
        b"GET /v2/acme/app/blobs/sha256:0123?/tags/list HTTP/1.1",
        b"GET /v2/?/tags/list HTTP/1.1",
        b"GET /v2/acme/app/manifests/v1 HTTP/1.0",
        b"GET http://polly/v2/acme/app/manifests/v1 HTTP/1.1",
        b"GET  /v2/acme/app/manifests/v1 HTTP/1.1",
        b"get /v2/acme/app/manifests/v1 HTTP/1.1",
        b"PUT /v2/acme/app/manifests/v1 HTTP/1.1",
        b"GET /v2/acme/app/manifests/v\xc3\xa9 HTTP/1.1",
    ],
)
def test_any_other_request_is_for_aiohttp(request_line: bytes) -> None:
    """Another method, path, version or form."""
    assert take(request_line + b"\r\nHost: polly\r\n\r\n") == [False]


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Accept: */*\r\n",
        b"Host: polly\r\nHost: other\r\n",
        b"Host: polly\r\nhost: other\r\n",
        b"Host: polly\r\nContent-Length: 0\r\n",
        b"Host: polly\r\nTransfer-Encoding: chunked\r\n",
        b"Host: polly\r\nConnection: close\r\n",
        b"Host: polly\r\nUpgrade: h2c\r\n",
        b"Host: polly\r\nExpect: 100-continue\r\n",
        b"Host: polly\r\nAccept : */*\r\n",
        b"Host: polly\r\nAccept: a\r\n b\r\n",
        b"Host: polly\r\nAccept: a\nb\r\n",
        b"Host: polly\r\nAccept: \x00\r\n",
        b"Host: polly\r\nAccept: \xc3\xa9\r\n",
        b"Host: polly\r\nAccept: " + b"a" * 20_000 + b"\r\n",
    ],
)
def test_headers_out_of_the_ordinary_are_for_aiohttp(fields: bytes) -> None:
    """Headers about the body or the connection, repeated ones, and ambiguous ones are left to the other reader."""
    assert take(b"GET /v2/acme/app/manifests/v1 HTTP/1.1\r\n" + fields + b"\r\n") == [False]


def test_nothing_is_taken_while_a_request_is_under_way() -> None:
    """An answer never overtakes another."""
    assert take(MANIFEST, idle=False) == [False]


def test_after_a_body_a_request_is_taken_again() -> None:
    """The end of a body is known by its length, whatever the pieces that it comes in."""
    body = b"x" * 1000
    assert take(put(body), MANIFEST) == [False, True]
    assert take(put(body)[:700], put(body)[700:], MANIFEST, MANIFEST) == [False, False, True, True]


@pytest.mark.parametrize(
    "first",
    [
        b"GET /v2/acme/app/manifests/v1 HTTP/1.1\r\nX: ",
        put(b"x" * 1000)[:-1],
        put(MANIFEST)[: -len(MANIFEST)],
        put(b"") + b"P",
        MANIFEST + MANIFEST[:5],
        b"POST / HTTP/1.1\r\nHost: polly\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: polly\r\nContent-Length: 0\r\nContent-Length: 90\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: polly\r\nContent-Length: +0\r\n\r\n",
    ],
)
def test_what_may_go_on_hides_no_request(first: bytes) -> None:
    """Bytes that look like a request are none where they may be part of another (request smuggling)."""
    assert take(first, MANIFEST) == [False, False]


STREAM = st.lists(
    st.one_of(st.just(MANIFEST), st.binary(max_size=40).map(put), st.just(put(MANIFEST)), st.just(put(MANIFEST * 2)))
)


@given(requests=STREAM, cuts=st.sets(st.integers(0, 2000)))
def test_only_whole_requests_are_taken_however_the_bytes_come(requests: list[bytes], cuts: set[int]) -> None:
    """Of any stream in any pieces, what is taken is a request of that stream, from its first byte to its last."""
    stream = b"".join(requests)
    starts = {sum(map(len, requests[:number])): one for number, one in enumerate(requests)}
    framing, at = Framing(), 0
    for end in sorted({cut for cut in cuts if cut < len(stream)} | {len(stream)}):
        piece = stream[at:end]
        if framing.parse(piece, idle=True) is not None:
            assert starts.get(at) == piece == MANIFEST
        at = end


@pytest.mark.parametrize("last", [b"Bad_name: x", b"Tab:\tx", b"Folded\r\n x", b"Latin: \xe9", b"half"])
@pytest.mark.parametrize("line", [b"GET /v2/acme/app/manifests/v1 HTTP/1.1", b"POST /v2/ HTTP/1.1"])
def test_a_head_costs_what_it_is_long(line: bytes, last: bytes) -> None:
    """A line that is not of the form after 300 that are: found out without trying the others again.

    An expression that could match a byte in two ways would not come back from it in the life of this machine.
    """
    lines = b"".join(b"A%d: b\r\n" % number for number in range(300))
    assert take(line + b"\r\nHost: x\r\n" + lines + last + b"\r\n\r\n") == [False]
