"""Images of several platforms, and what is attached to an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .clients import CLIENTS, Containerd
from .exchange import Registry
from .images import INDEX, MANIFEST, Layout, content_of, encoded, new_content

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import People
    from .people import Person

PLATFORMS = ("linux/amd64", "linux/arm64")


def layout_of(folder: Path, contents: dict[str, bytes]) -> tuple[Layout, str, list[str]]:
    """A layout with an index of one image for each platform; its digest, and those of the images."""
    layout = Layout(folder)
    children = [layout.image(content, platform) for platform, content in contents.items()]
    digest = layout.publish(layout.index(children), f"made.example/{folder.name}:image")
    return layout, digest, [child["digest"] for child in children]


@pytest.mark.parametrize("program", ["skopeo", "ctr"])
def test_an_index_is_one_commit(people: People, tmp_path: Path, program: str) -> None:
    """An image of two platforms is one commit that names both; its children are none, and each is pulled by Docker."""
    wanda, rita = people("writer"), people("reader")
    client = CLIENTS[program](wanda)
    client.login()
    rita.docker_login()
    contents = {platform: new_content() for platform in PLATFORMS}
    layout, digest, children = layout_of(tmp_path / "layout", contents)
    name = wanda.create()
    reference = wanda.reference(name)
    if isinstance(client, Containerd):
        done = client.push(client.load(layout.folder), reference)
        assert done.code == 0, done.said
    else:
        wanda.ok(
            *("skopeo", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false"),
            *(f"oci:{layout.folder}:made.example/{layout.folder.name}:image", f"docker://{reference}"),
        )
    [commit] = wanda.commits(name)
    assert (commit["commit"], commit["platforms"]) == (digest, list(PLATFORMS))
    path = reference.removesuffix(":latest")
    for child, content in zip(children, contents.values(), strict=True):
        rita.ok("docker", "pull", f"{path}@{child}")
        assert content_of(rita, f"{path}@{child}") == content
    rita.ok("docker", "pull", reference)
    assert content_of(rita, reference) == contents["linux/amd64"]


def test_an_index_that_is_overwritten_keeps_its_images(people: People, tmp_path: Path) -> None:
    """The index of an inactive commit, and each image that it names, is still pulled."""
    wanda = people("writer")
    CLIENTS["skopeo"](wanda).login()
    name = wanda.create()
    old = ""
    for each in ("old", "new"):
        layout, digest, _ = layout_of(tmp_path / each, {platform: new_content() for platform in PLATFORMS})
        old = old or digest
        wanda.ok(
            *("skopeo", "copy", "--all", "--dest-tls-verify=false"),
            *(f"oci:{layout.folder}:made.example/{layout.folder.name}:image", f"docker://{wanda.reference(name)}"),
        )
    path = wanda.commits(name)[1]["path"]
    assert path.endswith(old)
    wanda.ok("skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{path}", f"dir:{tmp_path}/back")
    assert {str(item) for item in json.loads((tmp_path / "back/manifest.json").read_text())["manifests"]}


def test_a_signature_is_no_commit(wanda: Person) -> None:
    """What refers to an image is listed with it, and is no commit unless it is tagged."""
    name = wanda.create()
    registry = Registry(wanda, name)
    registry.sign_in(wanda.token())
    image = manifest(registry, b"an image")
    registry.push_manifest(image, MANIFEST, "v1")
    [commit] = wanda.commits(name)
    subject = {"mediaType": MANIFEST, "digest": commit["commit"], "size": len(image)}
    signature = manifest(registry, b"a signature", artifactType="application/vnd.example.signature", subject=subject)
    assert registry.push_manifest(signature, MANIFEST).headers["OCI-Subject"] == commit["commit"]
    assert wanda.commits(name) == [commit]
    found = json.loads(registry.get(f"referrers/{commit['commit']}").body)
    assert found["mediaType"] == INDEX
    assert [item["artifactType"] for item in found["manifests"]] == ["application/vnd.example.signature"]
    registry.push_manifest(signature, MANIFEST, "signed")
    assert [each["tag"] for each in wanda.commits(name)] == ["signed", "v1"]


def manifest(registry: Registry, content: bytes, **more: object) -> bytes:
    """A manifest of one layer, whose content the repository has."""
    empty = registry.push_blob(b"{}")
    layer = registry.push_blob(content)
    return encoded(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [{"mediaType": "application/octet-stream", "digest": layer, "size": len(content)}],
            **more,
        }
    )
