"""An accepted manifest means the same by the rules of Go's encoding/json as by exact keys.

``go`` below implements these rules once more, independently of the code that is tested. A field is found by its exact
key, else by simple folding; a later one replaces an earlier one; null counts as missing; any other type is an error.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.errors import ManifestInvalid
from polly_dockers.oci.manifest import parse
from support.wire_client import OCI_INDEX, OCI_MANIFEST, descriptor, dumps

if TYPE_CHECKING:
    from polly_dockers.oci.manifest import Manifest

KELVIN, LONG_S = "\u212a", "\u017f"
PLATFORM = {
    **dict.fromkeys(("architecture", "os", "os.version", "variant"), str),
    **{name: [str] for name in ("os.features", "features")},
}
DESCRIPTOR: dict[str, Any] = {
    **dict.fromkeys(("mediaType", "digest", "artifactType"), str),
    "size": int,
    "urls": [str],
    "annotations": {"": str},
    "data": bytes,
    "platform": PLATFORM,
}
DOCUMENT: dict[str, Any] = {
    "schemaVersion": int,
    **dict.fromkeys(("mediaType", "artifactType"), str),
    **dict.fromkeys(("config", "subject"), DESCRIPTOR),
    **{name: [DESCRIPTOR] for name in ("layers", "manifests")},
    "annotations": {"": str},
}


class Unreadable(Exception):
    """Go's json.Unmarshal returns an error."""


class Number(str):
    """A number as it was written."""

    __slots__ = ()


def fold(name: str) -> str:
    """The simple folding of ASCII letters. Only these two other characters fold to one."""
    return name.replace(KELVIN, "k").replace(LONG_S, "s").translate({at: at + 32 for at in range(65, 91)})


def go(kind: Any, value: Any, old: Any = None) -> Any:  # noqa: ANN401, C901, PLR0911 - any JSON, and a case for each kind
    """The value as a field of that kind has it in Go; raises Unreadable."""
    if value is None:
        return old if kind is str or kind is int else None
    if kind is str and type(value) is str:
        return value
    if kind is int and type(value) is Number:
        try:
            number = int(value)
        except ValueError as error:
            raise Unreadable from error
        if -(1 << 63) <= number < 1 << 63:
            return number
    if kind is bytes and type(value) is str:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Unreadable from error
    if isinstance(kind, list) and isinstance(value, list):
        return [go(kind[0], dict(item) if isinstance(item, dict) else item) for item in value]
    if isinstance(kind, dict) and isinstance(value, Object):
        if "" in kind:
            return {key: go(str, item) or "" for key, item in value.pairs}
        made = dict(old or {})
        for key, item in value.pairs:
            name = key if key in kind else next((known for known in kind if fold(known) == fold(key)), None)
            if name is not None:
                made[name] = go(kind[name], item, made.get(name))
        return made
    raise Unreadable


class Object:
    """A JSON object with all its keys in their order."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def read_as_go(body: bytes) -> dict[str, Any]:
    """The document as Go reads it."""
    text = json.loads(body, object_pairs_hook=Object, parse_int=Number, parse_float=Number)
    read = go(DOCUMENT, text)
    assert isinstance(read, dict)
    return read


SPELLINGS = {"s": "sS" + LONG_S, "k": "kK" + KELVIN}


@st.composite
def spelled(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """Draw a spelling of a known key: mostly its own, else with characters replaced by others that fold to the same."""
    name = draw(st.sampled_from(names))
    if draw(st.integers(0, 4)):
        return name
    return "".join(draw(st.sampled_from(SPELLINGS.get(c.lower(), c.lower() + c.upper()))) for c in name)


VALUES = st.sampled_from(
    [
        *(None, True, 0, 1, 2, 1.0, 1e3, -1, 1 << 63, -(1 << 63), "", "x", "QQ==", "QQ=", [], ["u"], [None], [1]),
        *({}, {"a": "b"}, {"a": None}, {"a": 1}, {"os": "linux"}, {"oS": "x"}, {"os.features": ["x"]}, {"features": 1}),
    ]
)
RIGHT: dict[str, Any] = {
    **{name: "x" for name, kind in DESCRIPTOR.items() if kind is str and name != "digest"},
    "schemaVersion": 2,
    "size": 7,
    "urls": ["u"],
    "annotations": {"a": "b"},
    "data": "QQ==",
    "subject": None,
    "config": descriptor(b"d"),
    "layers": [],
    "manifests": [descriptor(b"e")],
    "platform": {"os": "linux"},
}


@st.composite
def objects(draw: st.DrawFn, base: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Draw a document with up to two of its fields changed, or others added; half of the values are right."""
    made = dict(base)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        key = draw(spelled(names))
        made[key] = RIGHT[key] if key in RIGHT and draw(st.booleans()) else draw(VALUES)
    return made


@st.composite
def documents(draw: st.DrawFn) -> tuple[bytes, str]:
    """Draw a manifest that is nearly right, and its type."""
    entry = objects(descriptor(b"x"), tuple(DESCRIPTOR))
    media_type = draw(st.sampled_from([OCI_MANIFEST, OCI_INDEX]))
    base: dict[str, Any] = {"schemaVersion": 2}
    items = draw(st.lists(entry, max_size=2) | st.none())
    base |= {"config": draw(entry), "layers": items} if media_type == OCI_MANIFEST else {"manifests": items}
    if draw(st.booleans()):
        base["subject"] = draw(entry)
    return dumps(draw(objects(base, tuple(DOCUMENT)))), media_type


def named(found: Manifest) -> list[list[tuple[str, int, str]]]:
    """What the manifest names according to the registry."""
    return [
        [(str(item.digest), item.size, item.media_type) for item in items]
        for items in ((found.config,) if found.config else (), found.layers, found.children)
    ]


def named_in_go(read: dict[str, Any]) -> list[list[tuple[str, int, str]]]:
    """What it names according to a client in Go."""
    config = read.get("config")
    return [
        [(item["digest"], item["size"], item["mediaType"]) for item in items or []]
        for items in ([config] if config else [], read.get("layers"), read.get("manifests"))
    ]


@given(documents())
def test_no_two_readers(document: tuple[bytes, str]) -> None:
    """13: Go can read an accepted manifest, and finds the same names, subject and annotations."""
    body, media_type = document
    try:
        found = parse(body, media_type)
    except ManifestInvalid:
        return
    read = read_as_go(body)
    assert named(found) == named_in_go(read)
    assert str(found.subject or "") == (read.get("subject") or {}).get("digest", "")
    assert found.annotations == (read.get("annotations") or {})
    assert read["schemaVersion"] == 2


@pytest.mark.parametrize("name", DOCUMENT)
def test_every_spelling_is_refused(name: str) -> None:
    """13: a key that differs from a known key in the spelling of one character, whichever it is."""
    base = {"schemaVersion": 2, "config": descriptor(b"c"), "layers": []}
    for at, character in enumerate(name):
        for other in SPELLINGS.get(character.lower(), character.swapcase()):
            spelling = name[:at] + other + name[at + 1 :]
            if spelling != name:
                with pytest.raises(ManifestInvalid, match="must be written"):
                    parse(dumps(base | {spelling: None}), OCI_MANIFEST)


def test_spellings_that_fold_to_nothing_known() -> None:
    """Unknown keys may have any spelling, and so may the names of annotations."""
    annotations = {"Layers": "x", "layers": "y", "Digest": "z"}
    base = {"schemaVersion": 2, "config": descriptor(b"c"), "layers": [], "annotations": annotations}
    assert parse(dumps(base | {"my-Layers": 1, "ключ": {"Size": "x"}}), OCI_MANIFEST).annotations == annotations


@pytest.mark.parametrize("field", ["urls", "annotations", "data", "platform", "artifactType"])
def test_null_is_nothing(field: str) -> None:
    """Where Go reads null as missing, so does the registry: in descriptors, in the document, and for lists."""
    item = descriptor(b"c") | {field: None}
    found = parse(dumps({"schemaVersion": 2, "config": item, "layers": None, "subject": None}), OCI_MANIFEST)
    assert (found.layers, found.subject) == ((), None)
    assert parse(dumps({"schemaVersion": 2, "manifests": None, "annotations": {"a": None}}), OCI_INDEX).annotations == {
        "a": ""
    }
    for required in ("mediaType", "digest", "size"):
        with pytest.raises(ManifestInvalid):
            parse(dumps({"schemaVersion": 2, "config": item | {required: None}, "layers": []}), OCI_MANIFEST)


def test_what_an_older_version_took() -> None:
    """A rebuild reads every stored manifest again, even one that would be refused today."""
    config = descriptor(b"c") | {"urls": "x", "data": 1}
    body = dumps({"schemaVersion": 2.0, "config": config, "layers": [], f"layer{LONG_S}": [], "\ud800": 1})
    assert parse(body, OCI_MANIFEST, stored=True).config is not None
    with pytest.raises(ManifestInvalid):
        parse(body, OCI_MANIFEST)
