"""Manifests as documents: what the registry reads from them, and how it treats any other bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.errors import ManifestInvalid
from polly_dockers.oci.manifest import parse, platform_of_config
from polly_dockers.registry.history import _fallback_entries
from support.wire_client import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, descriptor, dumps, sha256

LAYER = "application/vnd.oci.image.layer.v1.tar"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType")


def an_image(**changes: Any) -> bytes:  # noqa: ANN401 - any JSON
    """An image's manifest."""
    return dumps(
        {"schemaVersion": 2, "config": descriptor(b"c", "a/config"), "layers": [descriptor(b"l", LAYER)], **changes}
    )


def an_index(**changes: Any) -> bytes:  # noqa: ANN401 - any JSON
    """The JSON of an index of these entries."""
    return dumps({"schemaVersion": 2, "manifests": [], **changes})


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_an_image(media_type: str) -> None:
    """Config, layers and size; without an artifact type of its own, that of the config counts."""
    body = an_image(mediaType=media_type, annotations={"a": "b"}, subject=descriptor(b"s"))
    found = parse(body, f"{media_type}; charset=utf-8")
    assert (found.media_type, found.index, found.size) == (media_type, False, len(body))
    assert found.config is not None
    assert (found.config.digest, found.config.size, found.artifact_type) == (sha256(b"c"), 1, "a/config")
    assert [layer.digest for layer in found.layers] == [sha256(b"l")]
    assert (found.subject, found.annotations, found.children) == (sha256(b"s"), {"a": "b"}, ())
    assert parse(an_image(artifactType="an/artifact"), media_type).artifact_type == "an/artifact"


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index(media_type: str) -> None:
    """Children with their platforms; no artifact type if the index has none."""
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    children = [descriptor(b"a", OCI_MANIFEST, platform=platform), descriptor(b"b", LAYER)]
    found = parse(an_index(manifests=children), media_type)
    assert (found.index, found.config, found.layers, found.artifact_type) == (True, None, (), None)
    assert [(child.digest, child.platform) for child in found.children] == [
        (sha256(b"a"), "linux/arm64/v8"),
        (sha256(b"b"), None),
    ]


def test_the_type_of_the_document() -> None:
    """Without a Content-Type the mediaType in the document counts; without both the manifest is refused."""
    assert parse(an_index(mediaType=DOCKER_LIST), "").media_type == DOCKER_LIST
    for body, content_type in ((an_index(), ""), (an_index(mediaType=OCI_INDEX), DOCKER_LIST), (an_index(), "text/x")):
        with pytest.raises(ManifestInvalid):
            parse(body, content_type)


@pytest.mark.parametrize("kind", ["nondistributable.v1.tar", "foreign.diff.tar.gzip"])
def test_layers_that_are_elsewhere(kind: str) -> None:
    """Foreign layers may be missing here, and are read like others."""
    layers = [descriptor(b"far", f"application/vnd.x.{kind}"), descriptor(b"near", LAYER)]
    parsed = parse(an_image(layers=layers), OCI_MANIFEST)
    assert [layer.digest for layer in parsed.layers] == [sha256(b"far"), sha256(b"near")]
    assert parsed.foreign == {sha256(b"far")}
    with pytest.raises(ManifestInvalid):
        parse(an_image(layers=[layers[0] | {"digest": "x"}]), OCI_MANIFEST)


@given(st.binary(max_size=200), st.sampled_from([OCI_MANIFEST, OCI_INDEX, DOCKER_LIST, "", "x/y", ";;"]))
def test_any_bytes(body: bytes, content_type: str) -> None:
    """Bytes that are no manifest are ManifestInvalid and nothing else."""
    with pytest.raises(ManifestInvalid):
        parse(body, content_type)


@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.sampled_from([OCI_MANIFEST, OCI_INDEX]))
def test_any_values(changes: dict[str, Any], content_type: str) -> None:
    """Any JSON in any field is read or is ManifestInvalid; what is read has the declared types."""
    base = an_image(**changes) if content_type == OCI_MANIFEST else an_index(**changes)
    try:
        found = parse(base, content_type)
    except ManifestInvalid:
        return
    assert found.media_type == content_type
    assert all(isinstance(value, str) for value in found.annotations.values())
    assert found.artifact_type is None or isinstance(found.artifact_type, str)


@pytest.mark.parametrize(
    ("config", "platform"),
    [
        ({"os": "linux", "architecture": "amd64"}, "linux/amd64"),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm/v7"),
        ({"os": "unknown", "architecture": "unknown"}, None),
        ({"os": "linux"}, None),
        ({"os": "linux", "architecture": ""}, None),
        ({"os": "li nux", "architecture": "amd64"}, None),
        ({"os": "a" * 51, "architecture": "amd64"}, None),
        ({"os": 1, "architecture": ["x"]}, None),
        ([], None),
        ("x", None),
    ],
)
def test_platforms(config: object, platform: str | None) -> None:
    """os/architecture[/variant], or nothing."""
    assert platform_of_config(json.dumps(config).encode()) == platform


@given(st.binary(max_size=50))
def test_a_config_of_any_bytes(body: bytes) -> None:
    """A config that is not a JSON object names no platform, and is not an error."""
    assert platform_of_config(body) is None


def test_fallback_entries() -> None:
    """The entries of an index; none from an image, and none without a manifest."""
    entry = descriptor(b"a", OCI_MANIFEST, artifactType="an/artifact")
    found = [(sha256(b"a"), "an/artifact", dumps(entry))]
    assert _fallback_entries(an_index(manifests=[entry])) == found
    assert _fallback_entries(an_index(mediaType=OCI_INDEX, manifests=[entry])) == found
    assert _fallback_entries(an_index(manifests=None)) == []
    assert _fallback_entries(an_image(mediaType=OCI_MANIFEST)) == []
    assert _fallback_entries(an_image()) == []
    assert _fallback_entries(None) == []
