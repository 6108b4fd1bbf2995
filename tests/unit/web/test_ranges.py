"""Parts of a blob by the Range header, compared with slices of its bytes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.errors import RangeInvalid
from polly_dockers.web import ranges

NINES = "9" * 30


def texts(size: int) -> st.SearchStrategy[tuple[str, range]]:
    """Draw a range as text and the bytes that it means; numbers may have leading zeros, or be very large."""
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
    """22, 23: each range inside the blob is a part, in the order given; overlapping ranges give the whole; else 416."""
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


@pytest.mark.parametrize("header", [None, "", "lines=0-1", "Bytes=0-1"])
def test_no_range(header: str | None) -> None:
    """Without a header, or with another unit, the result is the whole blob."""
    assert ranges.parse(header, 10) is None


def test_how_many_ranges() -> None:
    """23: 1,024 ranges that do not overlap give as many parts; one more range gives the whole blob."""
    most = [(2 * at, 1) for at in range(1024)]
    header = "bytes=" + ",".join(f"{first}-{first}" for first, _ in most)
    assert ranges.parse(header, 5000) == most
    assert ranges.parse(f"{header},4000-4000", 5000) is None
    assert ranges.parse(f"{header},5000-", 5000) is None


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=5-9,0-4", [(5, 5), (0, 5)]),
        ("bytes=8-,0-0,-1", None),
        ("bytes=0-4,4-9", None),
        ("bytes=3-3,0-9", None),
        ("bytes=0-0,20-,-0,2-2", [(0, 1), (2, 1)]),
    ],
)
def test_some_ranges(header: str, found: list[tuple[int, int]] | None) -> None:
    """23: parts come in the order given; adjacent ranges are separate parts, overlapping ones give the whole blob."""
    assert ranges.parse(header, 10) == found


@pytest.mark.parametrize("zeros", [0, 1, 5000])
def test_numbers_of_any_length(zeros: int) -> None:
    """22: up to 18 digits count, leading zeros do not, and a longer number is beyond the end of any blob."""
    size, before = 10**15, "0" * zeros
    assert ranges.parse(f"bytes={before}{10**15 - 3}-{before}{10**15 - 2}", size) == [(10**15 - 3, 2)]
    for nines in (18, 19, 5000):
        assert ranges.parse(f"bytes={before}1-{'9' * nines}", size) == [(1, size - 1)]
        assert ranges.parse(f"bytes=-{before}{'9' * nines}", size) == [(0, size)]
        with pytest.raises(RangeInvalid):
            ranges.parse(f"bytes={before}{'9' * nines}-", size)


@pytest.mark.parametrize("header", ["bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,x", "bytes=0--1", "bytes=0-1;2-3"])
def test_malformed(header: str) -> None:
    """22: a text that is not a range is refused."""
    with pytest.raises(RangeInvalid):
        ranges.parse(header, 10)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)), min_size=2, max_size=5))
def test_the_length_of_parts(wanted: list[tuple[int, int]]) -> None:
    """23: the announced length is that of the parts with their boundaries and headers."""
    data = bytes(range(100))
    made = ranges.multipart(wanted, 100)
    body = b"".join(part.head + data[part.offset : part.offset + part.count] for part in made.parts) + made.end
    assert len(body) == made.length
    assert "Content-Range" not in made.headers
    boundary = made.headers["Content-Type"].partition("multipart/byteranges; boundary=")[2]
    assert body.startswith(f"--{boundary}\r\n".encode())
    assert body.endswith(f"\r\n--{boundary}--\r\n".encode())
    said = re.findall(rb"Content-Range: bytes (\d+)-(\d+)/100\r\n", body)
    assert said == [(b"%d" % first, b"%d" % (first + count - 1)) for first, count in wanted]
