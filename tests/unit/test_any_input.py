"""Parsers of outside input accept any bytes or text: they return a valid result or raise their own error."""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polly_dockers.cli import docker_config
from polly_dockers.cli.errors import CommandError
from polly_dockers.db.journal import frames
from polly_dockers.errors import RangeInvalid
from polly_dockers.web import ranges

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS | st.text(st.characters(categories=["Cs"]), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.none()
    | st.text(max_size=40)
    | st.builds("bytes={}-{}".format, st.integers() | st.just(""), st.integers() | st.just(""))
    | st.from_regex(r"bytes=\d{0,25}-\d{0,25}", fullmatch=True),
    st.integers(0, 1 << 50),
)
def test_a_range_lies_within_the_blob(header: str | None, size: int) -> None:
    """Whatever the header says, each part has at least a byte and lies in the blob; otherwise it is refused."""
    try:
        found = ranges.parse(header, size)
    except RangeInvalid:
        return
    for first, count in found or ():
        assert 0 <= first < first + count <= size


def configured(text: str, *, undo: bool) -> tuple[str, bool | None]:
    """The file after a change, and whether the change changed it; None if it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            changed = docker_config.change(file, "registry.acme.example", undo=undo)
        except CommandError:
            changed = None
        return file.read_bytes().decode("utf-8", "surrogatepass"), changed


@given(JSON | st.dictionaries(st.just("credHelpers") | st.text(max_size=8), JSON, max_size=3))
@example({"auths": None})
@example({"auths": []})
@example({"auths": {}, "HttpHeaders": {"a": "\ud800"}})
@example({"credHelpers": {"registry.acme.example": ["polly"]}})
def test_a_docker_config_of_any_json(document: Any) -> None:  # noqa: ANN401 - any JSON
    """It is refused and not changed, or everything else in it stays, and undo removes what was added."""
    text = json.dumps(document)
    after, changed = configured(text, undo=False)
    if not changed:
        assert after == text
        return
    found = json.loads(after)
    assert found["credHelpers"].pop("registry.acme.example") == "polly"
    before = json.loads(text)
    others = before.get("credHelpers") or {}
    others.pop("registry.acme.example", None)
    assert json.dumps(found["credHelpers"]) == json.dumps(others)
    found.pop("credHelpers")
    before.pop("credHelpers", None)
    if before.get("auths") is None:
        assert found.pop("auths") == {}
        before.pop("auths", None)
    assert json.dumps(found) == json.dumps(before)
    assert configured(after, undo=True)[1] is True


@given(st.text(max_size=60))
@pytest.mark.parametrize("wrap", ["{}", "[" * 200_000, '{{"a": {}}}'], ids=["text", "deep", "inside"])
@example("9" * 5000)
def test_a_docker_config_of_any_text(wrap: str, text: str) -> None:
    """A file that is not JSON is refused and left as it is."""
    whole = wrap.replace("{}", text) if "{}" in wrap else wrap
    after, changed = configured(whole, undo=False)
    if changed is None:
        assert after == whole.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    else:
        json.loads(after)


def frame(payload: bytes) -> bytes:
    """A payload as the journal writes it."""
    return struct.pack("<8sII", frames.MAGIC, len(payload), zlib.crc32(payload)) + payload


@given(
    st.lists(st.binary(max_size=30) | st.just(frames.MAGIC), max_size=4), st.binary(min_size=1, max_size=30), st.data()
)
def test_a_whole_frame_is_found_behind_any_garbage(garbage: list[bytes], payload: bytes, data: st.DataObject) -> None:
    """Torn frames and other bytes are skipped; a frame that was cut short is not read."""
    torn = frame(payload)
    torn = torn[: data.draw(st.integers(0, len(torn) - 1))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "1.log"
        file.write_bytes(b"".join(garbage) + torn + frame(payload) + torn)
        found = [payload for payload, _ in frames._frames(file)]
    assert found[-1:] == [payload]
    assert set(found) <= {payload}
