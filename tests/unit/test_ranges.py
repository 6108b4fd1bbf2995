"""Parts of a blob by the Range header, against the slices that they mean."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.errors import RangeInvalid
from polly_dockers.web import ranges
from polly_dockers.web.ranges import RANGES

NINES = "9" * 30


def texts(size: int) -> st.SearchStrategy[tuple[str, range]]:
    """A range as it is written, and the bytes that it means; numbers may have zeros before them, or be huge."""
    numbers = st.integers(0, size + 10)

    def one(first: int, last: int, kind: int) -> tuple[str, range]:
        return (
            (f"{first}-{last}", range(first, min(last + 1, size))),
            (f"{first}-", range(first, size)),
            (f"-{last}", range(max(size - last, 0), size)),
            (f"{first:020}-{NINES}", range(first, size)),
            (f"-{NINES}", range(size)),
            (f"{NINES}-", range(0)),
        )[kind]

    return st.builds(one, numbers, numbers, st.integers(0, 5))


@given(st.data(), st.integers(0, 50))
def test_ranges(data: st.DataObject, size: int) -> None:
    """22, 23: each range that lies inside is a part, in the order asked for; the whole where two overlap; else 416."""
    wanted = data.draw(st.lists(texts(size), min_size=1, max_size=5))
    comma = data.draw(st.sampled_from([",", ", ", " ,\t", ",,"]))
    header = "bytes=" + comma.join(text for text, _ in wanted)
    inside = [part for _, part in wanted if part]
    everything = [at for part in inside for at in part]
    if not inside:
        with pytest.raises(RangeInvalid) as caught:
            ranges.parse(header, size)
        assert caught.value.total == size
    elif len(set(everything)) != len(everything):
        assert ranges.parse(header, size) is None
    else:
        assert ranges.parse(header, size) == [(part.start, len(part)) for part in inside]


@given(st.text(max_size=30) | st.from_regex(r"bytes=[0-9 ,-]*"))
def test_any_range(header: str) -> None:
    """Whatever stands in the header is parts of the blob, the whole of it, or RangeInvalid."""
    try:
        found = ranges.parse(header, 10)
    except RangeInvalid:
        return
    assert found is None or len(found) >= 1
    for start, count in found or ():
        assert 0 <= start < start + count <= 10


@pytest.mark.parametrize("header", [None, "", "lines=0-1", "Bytes=0-1", "bytes=" + "0-0," * (RANGES + 1)])
def test_no_range(header: str | None) -> None:
    """No header, another unit, and more ranges than are answered in parts, are the whole."""
    assert ranges.parse(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,x", "bytes=0--1", "bytes=0-1;2-3"])
def test_malformed(header: str) -> None:
    """22: what is not a range is refused."""
    with pytest.raises(RangeInvalid):
        ranges.parse(header, 10)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)), min_size=2, max_size=5))
def test_the_length_of_parts(wanted: list[tuple[int, int]]) -> None:
    """23: the length that is announced is that of the parts with all that stands around them."""
    data = bytes(range(100))
    made = ranges.answer(wanted, 100)
    body = b"".join(part.head + data[part.offset : part.offset + part.count] for part in made.parts) + made.end
    assert len(body) == made.length
    assert "Content-Range" not in made.headers
    boundary = made.headers["Content-Type"].partition("multipart/byteranges; boundary=")[2]
    assert body.startswith(f"--{boundary}\r\n".encode())
    assert body.endswith(f"\r\n--{boundary}--\r\n".encode())
    said = re.findall(rb"Content-Range: bytes (\d+)-(\d+)/100\r\n", body)
    assert said == [(b"%d" % first, b"%d" % (first + count - 1)) for first, count in wanted]
