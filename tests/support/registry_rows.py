"""What a registry holds, as far as it has to survive the loss of its database; and a registry to lose."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from pysqlite3 import dbapi2 as sqlite

from support.wire_client import OCI_INDEX, OCI_MANIFEST, Person, descriptor, dumps, image, sha256

if TYPE_CHECKING:
    from pathlib import Path

_HELD: Final = (
    "SELECT id, email, created_at FROM users",
    "SELECT id, slug, create_on_push, policy, created_at, deleted_at IS NULL FROM organisations",
    "SELECT id, repositories FROM organisations WHERE deleted_at IS NULL",
    (
        "SELECT id, organisation_id, name, description, access, sparse_indexes, policy, created_by, created_at, "
        "deleted_at IS NULL FROM repositories"
    ),
    (
        "SELECT id, repository_id, digest, media_type, artifact_type, subject, annotations, platforms, size, "
        "total_size, pushed_by, trash_id, body FROM manifests"
    ),
    "SELECT manifest_id, child_id FROM manifest_children",
    "SELECT manifest_id, repository_id, digest FROM manifest_missing",
    "SELECT m.manifest_id, m.repository_id, b.digest FROM manifest_blobs AS m JOIN blobs AS b ON b.id = m.blob_id",
    "SELECT id, repository_id, tag, manifest_id, pushed_by, pushed_at, in_trash FROM commits",
    "SELECT repository_id, name, manifest_id, commit_id FROM tags",
    (
        "SELECT id, organisation_id, repository_id, kind, name, tags, deleted_by, by_policy, deleted_at, "
        "purging_at IS NULL FROM trash"
    ),
    "SELECT repository_id, tag, trash_id FROM trash_tags",
    "SELECT id, at, organisation_id, event, by, address, subject, detail FROM audit",
    "SELECT position, hash FROM audit_start",
)


def held(folder: Path) -> list[list[Any]]:
    """The rows of a data folder that a rebuild brings back, of each table in one order."""
    with contextlib.closing(sqlite.connect(f"file:{folder / 'polly.db'}?mode=ro", uri=True)) as connection:
        return [sorted(connection.execute(query).fetchall(), key=repr) for query in _HELD]


def fill(ann: Person) -> None:
    """Two repositories with commits, an index, a referrer, and all kinds of things in the trash."""
    repo, gone = ann.new_repo(), ann.new_repo()
    name = repo.name.partition("/")[2]
    first, second, child = image(), image(), image()
    repo.push(first, "v1", "latest")
    repo.push(second, "v1")
    repo.push(first, "v1")
    repo.push(image(subject=descriptor(first.manifest, OCI_MANIFEST)))
    repo.push(child)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child.manifest, OCI_MANIFEST)]}
    assert repo.put("both", dumps(index), OCI_INDEX).status == 201
    for tag in ("tag", "back"):
        repo.push(image(), tag)
        assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}&tag={tag}").status == 200
    assert ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "tag": "back"}).status == 200
    for restored in (False, True):
        made = image()
        repo.push(made, "deleted")
        assert repo.delete(f"manifests/{made.digest}").status == 202
        if restored:
            item = {"repository": name, "commit": sha256(made.manifest)}
            assert ann.api.json("POST", f"{ann.base}/trash", item).status == 200
    gone.push(image(), "v1")
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={gone.name.partition('/')[2]}").status == 200
    again = ann.repo(ann.create(gone.name.partition("/")[2]))
    again.push(image(), "v1")
