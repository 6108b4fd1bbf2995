"""Deleted content goes to the trash: it cannot be pulled, and can be restored whole as long as it is kept."""

from __future__ import annotations

import secrets

import pytest

from support.trash import everything, move_to_trash, restore, short
from support.wire_client import (
    OCI_INDEX,
    OCI_MANIFEST,
    Person,
    descriptor,
    dumps,
    image,
    sha256,
)


def test_a_commit_goes_and_comes_back(ann: Person) -> None:
    """A restored commit has its tags, times and authors; meanwhile other commits do not change."""
    repo = ann.new_repo()
    first, second = image(), image()
    repo.push(first, "v1", "latest")
    repo.push(second, "v1")
    before = everything(ann, repo)
    item = move_to_trash(ann, repo, f"&commit={first.digest}")
    assert (item["kind"], item["name"], item["tags"], item["commits"]) == ("commit", first.digest, ["latest"], 2)
    assert item["repository"].endswith(repo.name)
    assert repo.manifest(first.digest).status == repo.manifest("latest").status == 404
    assert [each["commit"] for each in ann.commits(short(repo))["items"]] == [second.digest]
    assert ann.repository(short(repo))["tags"] == 1
    assert repo.manifest("v1").body == second.manifest
    assert restore(ann, repo, commit=first.digest) == item
    assert everything(ann, repo) == before
    assert repo.manifest("latest").body == first.manifest
    assert all(repo.blob(sha256(blob)).body == blob for blob in first.blobs)


def test_a_tag_goes_and_comes_back(ann: Person) -> None:
    """While a tag is in the trash, its commits stay, inactive."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    before = everything(ann, repo)
    assert move_to_trash(ann, repo, "&tag=v1")["kind"] == "tag"
    assert repo.manifest("v1").status == 404
    assert repo.manifest(made.digest).status == 200
    assert [each["status"] for each in ann.commits(short(repo))["items"]] == ["inactive"]
    restore(ann, repo, tag="v1")
    assert everything(ann, repo) == before


def test_a_repository_goes_and_comes_back(ann: Person) -> None:
    """A repository is restored with its contents; meanwhile its name is free, and earlier tokens open no new one."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    before = everything(ann, repo)
    assert move_to_trash(ann, repo)["commits"] == 1
    assert repo.manifest("v1").status in {401, 404}
    assert ann.api.get(f"{ann.base}/repository?name={short(repo)}").status == 404
    listed = ann.api.get(f"{ann.base}/repositories?search={short(repo)}").json()
    assert (listed["items"], listed["total"]) == ([], 0)
    assert repo.name not in ann.repo("other").get("/v2/_catalog").body.decode()
    restore(ann, repo)
    assert everything(ann, repo) == before


def test_a_name_that_is_taken_again(ann: Person) -> None:
    """The deleted repository comes back under another name, and says so."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    move_to_trash(ann, repo)
    ann.create(short(repo))
    refused = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo)})
    assert (refused.status, refused.code) == (409, "NAME_EXISTS")
    assert "--as" in refused.message
    other = f"back-{secrets.token_hex(4)}"
    restore(ann, repo, new_name=other)
    assert ann.repo(other).manifest("v1").body == made.manifest


def test_a_commit_that_was_pushed_again_meanwhile(ann: Person) -> None:
    """Its earlier commits are added to those made since; no commit is there twice."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    move_to_trash(ann, repo, f"&commit={made.digest}")
    repo.push(made, "v2")
    restore(ann, repo, commit=made.digest)
    assert sorted(each["tag"] for each in ann.commits(short(repo))["items"]) == ["v1", "v2"]
    assert repo.get(repo.path("tags/list")).json()["tags"] == ["v1", "v2"]
    item = ann.repository(short(repo))
    assert (item["tags"], item["commits"]) == (2, 2)


def test_an_index_comes_back_with_its_images(ann: Person) -> None:
    """An image that was deleted after its index is restored with it."""
    repo = ann.new_repo()
    child = image()
    repo.push(child)
    index = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child.manifest, OCI_MANIFEST)]})
    assert repo.put("v1", index, OCI_INDEX).status == 201
    refused = ann.api.send("DELETE", f"{ann.base}/repository?name={short(repo)}&commit={child.digest}")
    assert (refused.status, refused.code) == (403, "DENIED")
    move_to_trash(ann, repo, f"&commit={sha256(index)}")
    move_to_trash(ann, repo, f"&commit={child.digest}")
    assert repo.manifest(child.digest).status == 404
    restore(ann, repo, commit=sha256(index))
    assert repo.manifest(child.digest).body == child.manifest
    assert repo.manifest("v1").body == index


def test_a_blob_of_a_deleted_commit(ann: Person) -> None:
    """The blob can be deleted too, and is gone; restoring the commit brings it back."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    before = everything(ann, repo)
    repo.delete(f"manifests/{made.digest}")
    layer = made.blobs[1]
    assert repo.delete(f"blobs/{sha256(layer)}").status == 202
    assert repo.blob(sha256(layer)).status == 404
    assert repo.put("v1", made.manifest).code == "MANIFEST_BLOB_UNKNOWN"
    restore(ann, repo, commit=made.digest)
    assert repo.blob(sha256(layer)).body == layer
    assert everything(ann, repo) == before


def test_referrers_go_and_come_back(ann: Person) -> None:
    """A referrer in the trash is not listed until it is restored."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    signature = image(subject=descriptor(made.manifest, OCI_MANIFEST))
    repo.push(signature)
    assert len(repo.get(repo.path(f"referrers/{made.digest}")).json()["manifests"]) == 1
    move_to_trash(ann, repo, f"&commit={signature.digest}")
    assert repo.get(repo.path(f"referrers/{made.digest}")).json()["manifests"] == []
    restore(ann, repo, commit=signature.digest)
    assert len(repo.get(repo.path(f"referrers/{made.digest}")).json()["manifests"]) == 1


@pytest.mark.parametrize("what", ["", "&tag=v1", "&commit={digest}"])
def test_a_preview_changes_nothing(ann: Person, what: str) -> None:
    """The preview names what would go."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    before = everything(ann, repo)
    query = what.format(digest=made.digest)
    seen = move_to_trash(ann, repo, f"{query}&preview=true")
    assert everything(ann, repo) == before
    gone = move_to_trash(ann, repo, query)
    assert {**gone, "deleted_at": "", "restorable_until": ""} == {**seen, "deleted_at": "", "restorable_until": ""}


def test_the_trash_is_listed(ann: Person) -> None:
    """The trash is listed newest first, by pages, for every member; what was restored is not on it."""
    person = ann
    repo = person.new_repo()
    digests = []
    for number in range(3):
        made = image(f"{repo.name} {number}")
        digests.append(repo.push(made, f"v{number}"))
        move_to_trash(person, repo, f"&commit={made.digest}")
    first = person.api.get(f"{person.base}/trash?limit=2").json()
    assert [item["name"] for item in first["items"]] == digests[:0:-1]
    second = person.api.get(f"{person.base}/trash?limit=2&cursor={first['next']}").json()
    assert second["items"][0]["name"] == digests[0]
    reader = person.add("reader")
    assert reader.api.get(f"{person.base}/trash").json()["total"] == first["total"]
    restore(person, repo, commit=digests[0])
    assert person.api.get(f"{person.base}/trash").json()["total"] == first["total"] - 1


def test_a_deep_nest_comes_back(ann: Person) -> None:
    """Indexes in indexes are restored, even if they are nested deeper than any call stack."""
    repo = ann.new_repo()
    repo.push(made := image())
    body, kind, digests = made.manifest, OCI_MANIFEST, [made.digest]
    for _ in range(1100):
        body = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(body, kind)]})
        kind = OCI_INDEX
        digests.append(sha256(body))
        assert repo.put(digests[-1], body, OCI_INDEX).status == 201
    for digest in reversed(digests):
        assert repo.delete(f"manifests/{digest}").status == 202
    restore(ann, repo, commit=digests[-1])
    for digest in (digests[0], digests[550], digests[-1]):
        assert repo.manifest(digest).status == 200


def test_only_admins_delete_and_restore(ann: Person) -> None:
    """The error names the role for members of lower roles; others learn nothing."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    for role in ("reader", "writer"):
        person = ann.add(role)
        answer = person.api.send("DELETE", f"{ann.base}/repository?name={short(repo)}")
        assert (answer.status, answer.code) == (403, "DENIED")
        answer = person.api.json("POST", f"{ann.base}/trash", {"repository": short(repo)})
        assert (answer.status, answer.code) == (403, "DENIED")
    assert repo.manifest("v1").status == 200


@pytest.mark.parametrize(
    ("what", "code"),
    [({}, "NOT_IN_TRASH"), ({"tag": "v1"}, "NOT_IN_TRASH"), ({"commit": sha256(b"never")}, "NOT_IN_TRASH")],
)
def test_what_the_trash_does_not_hold(ann: Person, what: dict[str, str], code: str) -> None:
    """404 with the command that lists what the trash holds."""
    repo = ann.new_repo()
    answer = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), **what})
    assert (answer.status, answer.code) == (404, code)
    assert "polly dockers trash" in answer.message


def test_a_tag_that_is_there_again(ann: Person) -> None:
    """Restoring a tag that exists again is 409, and nothing is overwritten."""
    repo = ann.new_repo()
    repo.push(image(), "v1")
    move_to_trash(ann, repo, "&tag=v1")
    newer = image()
    repo.push(newer, "v1")
    answer = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), "tag": "v1"})
    assert (answer.status, answer.code) == (409, "TAG_EXISTS")
    assert repo.manifest("v1").body == newer.manifest
