"""Signatures and SBOMs are attached to a commit, and are not commits themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .clients import Docker
from .exchange import Registry
from .images import EMPTY, INDEX, MANIFEST, digest_of, encoded, new_content

if TYPE_CHECKING:
    from .people import Person

SBOM = "application/spdx+json"
SIGNATURE = "application/vnd.example.signature"


def attach(registry: Registry, subject: dict[str, Any], kind: str, tag: str | None = None) -> str:
    """Push an artifact that belongs to an image; its digest."""
    config, document = b"{}", encoded({"of": subject["digest"], "kind": kind})
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": EMPTY, "digest": registry.push_blob(config), "size": len(config)},
        "layers": [{"mediaType": kind, "digest": registry.push_blob(document), "size": len(document)}],
        "subject": subject,
        "annotations": {"org.example.made": "by a test"},
    }
    answer = registry.push_manifest(encoded(manifest), MANIFEST, tag)
    assert answer.headers["OCI-Subject"] == subject["digest"]
    return digest_of(encoded(manifest))


def pushed(wanda: Person) -> tuple[Registry, dict[str, Any], str]:
    """A docker repository with one image from Docker, and the descriptor of its manifest."""
    docker = Docker(wanda)
    docker.login()
    name = wanda.create()
    assert docker.push(docker.make(new_content()), wanda.reference(name)).code == 0
    registry = Registry(wanda, name)
    registry.sign_in(wanda.token())
    manifest = registry.get("manifests/latest")
    media_type, body = manifest.headers["Content-Type"], manifest.body
    return registry, {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}, name


def referrers(registry: Registry, digest: str, query: str = "") -> list[dict[str, Any]]:
    """What is attached to a manifest."""
    answer = registry.get(f"referrers/{digest}{query}")
    document = json.loads(answer.body)
    assert (answer.status, document["mediaType"]) == (200, INDEX)
    manifests: list[dict[str, Any]] = document["manifests"]
    return manifests


def test_an_attachment_is_not_a_commit(wanda: Person) -> None:
    """A signature and an SBOM are listed as referrers of the image that Docker pushed, and not as commits."""
    registry, subject, name = pushed(wanda)
    before = wanda.commits(name)
    assert [each["commit"] for each in before] == [subject["digest"]]
    digests = {kind: attach(registry, subject, kind) for kind in (SBOM, SIGNATURE)}
    assert wanda.commits(name) == before
    listed = referrers(registry, subject["digest"])
    assert {each["artifactType"]: each["digest"] for each in listed} == digests
    assert all(each["annotations"] == {"org.example.made": "by a test"} for each in listed)
    [found] = referrers(registry, subject["digest"], f"?artifactType={quote(SBOM)}")
    assert found["digest"] == digests[SBOM]
    assert registry.get(f"manifests/{digests[SIGNATURE]}").status == 200


def test_what_is_attached_and_tagged_is_a_commit(wanda: Person) -> None:
    """An SBOM that somebody tags is a commit of that tag, and a referrer as before."""
    registry, subject, name = pushed(wanda)
    digest = attach(registry, subject, SBOM, "sbom")
    new, old = wanda.commits(name)
    assert (new["tag"], new["commit"], old["commit"]) == ("sbom", digest, subject["digest"])
    assert [each["digest"] for each in referrers(registry, subject["digest"])] == [digest]


def test_an_overwritten_commit_keeps_what_is_attached(wanda: Person) -> None:
    """The signature of an inactive commit is found as before; the new one has none."""
    registry, subject, name = pushed(wanda)
    digest = attach(registry, subject, SIGNATURE)
    docker = Docker(wanda)
    assert docker.push(docker.make(new_content()), wanda.reference(name)).code == 0
    new, old = wanda.commits(name)
    assert (old["commit"], old["status"]) == (subject["digest"], "inactive")
    assert [each["digest"] for each in referrers(registry, old["commit"])] == [digest]
    assert referrers(registry, new["commit"]) == []
