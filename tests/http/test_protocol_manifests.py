"""protocol.md 37 to 46: manifests as they came, their references, tags and deletions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.server import running_server
from support.wire_client import (
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Person,
    Repo,
    admin,
    connected,
    descriptor,
    dumps,
    image,
    receive,
    sha256,
    sha512,
)

if TYPE_CHECKING:
    from pathlib import Path


MEBIBYTE = 1 << 20


@pytest.fixture
def repo(ann: Person) -> Repo:
    """A new repository."""
    return ann.new_repo()


def index_of(*children: bytes, media_type: str = OCI_INDEX, **more: object) -> bytes:
    """An index of image manifests."""
    entries = [descriptor(child, OCI_MANIFEST) for child in children]
    return dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **more})


def padded(size: int) -> bytes:
    """An index of exactly so many bytes."""
    shell = index_of(annotations={"padding": ""})
    return shell.replace(b'"padding": ""', b'"padding": "' + b"x" * (size - len(shell)) + b'"')


@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text,
        lambda text: json.dumps(json.loads(text), indent=4) + "\n\n",
        lambda text: "  " + json.dumps(json.loads(text), separators=(",", ":"), sort_keys=True),
        lambda text: text.replace("}", ',"ünïcödé":"\\u00e9 é"}', 1),
    ],
)
def test_the_very_bytes(repo: Repo, spelling: object) -> None:
    """37: whatever white space, order and escapes a manifest has, they come back as they came."""
    made = image()
    repo.push(made)
    assert callable(spelling)
    body = str(spelling(made.manifest.decode())).encode()
    assert repo.put("v1", body).status == 201
    for reference in ("v1", sha256(body)):
        answer = repo.manifest(reference)
        assert (answer.status, answer.body) == (200, body)
        assert answer.header("Docker-Content-Digest") == sha256(body)
        assert answer.header("Content-Length") == str(len(body))
        assert answer.header("ETag") == f'"{sha256(body)}"'
        head = repo.send("HEAD", repo.path(f"manifests/{reference}"))
        assert (head.body, head.header("Content-Length")) == (b"", str(len(body)))


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_images(repo: Repo, media_type: str) -> None:
    """42: both kinds of image come back with the type that they were pushed with."""
    made = image(media_type=media_type)
    repo.push(made, "v1")
    assert repo.manifest("v1").header("Content-Type") == media_type


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_indexes(repo: Repo, media_type: str) -> None:
    """39, 42: both kinds of index, of images and of indexes."""
    digests = [repo.push(made) for made in (image(), image())]
    children = [repo.manifest(digest).body for digest in digests]
    inner = index_of(*children, media_type=media_type)
    assert repo.put("inner", inner, media_type).status == 201
    entry = descriptor(inner, media_type)
    outer = dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]})
    assert repo.put("outer", outer, media_type).status == 201
    assert repo.manifest("outer").header("Content-Type") == media_type


def test_a_put_says_what_was_kept(repo: Repo) -> None:
    """39: 201 with the digest, a Location that can be pulled, and no body."""
    made = image()
    repo.push(made)
    answer = repo.put("v1", made.manifest)
    assert (answer.status, answer.body, answer.header("Content-Length")) == (201, b"", "0")
    assert answer.header("Docker-Content-Digest") == made.digest
    assert answer.header("Location") == repo.path(f"manifests/{made.digest}")
    assert repo.get(answer.header("Location")).body == made.manifest


def test_a_manifest_in_chunks(repo: Repo) -> None:
    """39: the body may be chunked."""
    made = image()
    repo.push(made)
    pieces = (made.manifest[at : at + 50] for at in range(0, len(made.manifest), 50))
    answer = repo.send("PUT", repo.path("manifests/v1"), pieces, {"Content-Type": OCI_MANIFEST})
    assert answer.status == 201
    assert repo.manifest("v1").body == made.manifest


def test_a_refused_manifest_changes_nothing(repo: Repo) -> None:
    """40, 43: a refused manifest leaves the tag where it was and makes no commit."""
    first, second = image(), image()
    repo.push(first, "v1")
    for body in (b"{", second.manifest, b""):
        assert repo.put("v1", body).status == 400
    assert repo.send("PUT", repo.path(f"manifests/v1?digest={EMPTY}"), first.manifest).status == 400
    assert repo.manifest("v1").body == first.manifest
    assert repo.get(repo.path("tags/list")).json()["tags"] == ["v1"]


def test_lists_that_are_null(repo: Repo) -> None:
    """39: ``layers`` and ``manifests`` that are null, which Go writes for lists never filled, are empty lists."""
    repo.push_blob(b"{}")
    image_without = {"schemaVersion": 2, "config": descriptor(b"{}", CONFIG), "layers": None}
    for document, kind in ((image_without, OCI_MANIFEST), ({"schemaVersion": 2, "manifests": None}, OCI_INDEX)):
        body = dumps({"mediaType": kind, **document})
        assert repo.put("null", body, kind).status == 201
        assert repo.manifest("null").body == body


def test_large_manifests(repo: Repo) -> None:
    """41: manifests of 4 MiB and more are stored, and pulled unchanged."""
    body = padded(4 * MEBIBYTE + 400_000)
    assert repo.put("large", body, OCI_INDEX).status == 201
    assert repo.manifest("large").body == body


def test_head_of_large_manifests(repo: Repo) -> None:
    """1, 37: HEAD has the length and the digest of a manifest of any size, as GET has, on one connection."""
    for size in (1000, 65_536, 65_537, 300_000):
        body = padded(size)
        assert repo.put("sized", body, OCI_INDEX).status == 201
        rest = f"{repo.path('manifests/sized')} HTTP/1.1\r\nHost: x\r\nAuthorization: {repo.authorization}\r\n"
        with connected(repo.port) as connection:
            for method, more in (("HEAD", ""), ("HEAD", "Te: x\r\n"), ("GET", ""), ("GET", "Te: x\r\n"), ("GET", "")):
                connection.sendall(f"{method} {rest}{more}\r\n".encode())
                answer = receive(connection, method)
                assert (answer.status, answer.header("Content-Length")) == (200, str(size))
                assert answer.header("Docker-Content-Digest") == sha256(body)
                assert answer.body == (b"" if method == "HEAD" else body)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_manifest_over_the_limit(repo: Repo, chunked: bool) -> None:  # noqa: FBT001
    """41: more than 8 MiB is 413, whether its length is announced or not, and nothing is kept."""
    body = padded(8 * MEBIBYTE + 1)
    pieces = iter([body[:MEBIBYTE], body[MEBIBYTE:]])
    headers = {"Content-Type": OCI_INDEX}
    answer = repo.send("PUT", repo.path("manifests/large"), pieces if chunked else body, headers)
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")
    assert repo.manifest("large").status == 404
    assert repo.put("limit", padded(8 * MEBIBYTE), OCI_INDEX).status == 201


def test_what_is_missing_is_named(repo: Repo) -> None:
    """43: the answer names each digest that the repository lacks."""
    made = image()
    answer = repo.put("v1", made.manifest)
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    detail = answer.json()["errors"][0]["detail"]
    assert sorted(detail["missing"]) == sorted(sha256(blob) for blob in made.blobs)


def test_sparse_indexes(ann: Person) -> None:
    """43: an index that lacks children is refused, until the repository allows it."""
    repo = ann.new_repo()
    body = index_of(b"not here", b"nor here")
    assert repo.put("v1", body, OCI_INDEX).code == "MANIFEST_BLOB_UNKNOWN"
    name = repo.name.partition("/")[2]
    changed = ann.api.json("PATCH", f"{ann.base}/repository?name={name}", {"sparse_indexes": "allow"})
    assert changed.status == 200
    assert repo.put("v1", body, OCI_INDEX).status == 201
    assert repo.manifest("v1").body == body
    config_missing = dumps({"schemaVersion": 2, "config": descriptor(b"gone", CONFIG), "layers": []})
    assert repo.put("v2", config_missing).code == "MANIFEST_BLOB_UNKNOWN"


def test_many_tags_in_one_put(repo: Repo) -> None:
    """45: a PUT to a digest sets each tag of the query and says so; each is a commit."""
    made = image()
    repo.push(made)
    tags = [f"t{number}" for number in range(12)]
    query = "&".join(f"tag={tag}" for tag in [*tags, "t0"])
    path = repo.path(f"manifests/{made.digest}?{query}")
    answer = repo.send("PUT", path, made.manifest, {"Content-Type": OCI_MANIFEST})
    assert answer.status == 201
    assert answer.headers.get_all("OCI-Tag") == tags
    assert sorted(repo.get(repo.path("tags/list")).json()["tags"]) == sorted(tags)
    assert all(repo.manifest(tag).body == made.manifest for tag in tags)


def test_the_most_tags_in_one_put(repo: Repo) -> None:
    """45: 50 tags are set, and the response has few enough headers for every client. More are refused: none is set."""
    made = image()
    repo.push(made)
    for count, status in ((51, 400), (50, 201)):
        query = "&".join(f"tag=t{number}" for number in range(count))
        path = repo.path(f"manifests/{made.digest}?{query}")
        assert repo.get(repo.path("tags/list")).json()["tags"] == []
        answer = repo.send("PUT", path, made.manifest, {"Content-Type": OCI_MANIFEST})
        assert answer.status == status
        assert len(answer.headers) < 100  # Python's http.client refuses more
    assert len(repo.get(repo.path("tags/list")).json()["tags"]) == 50


def test_a_tag_remembers_sha512(repo: Repo) -> None:
    """45: if a manifest is pushed by its sha512 digest with a tag, pulling the tag returns that digest."""
    made = image()
    repo.push(made)
    path = repo.path(f"manifests/{sha512(made.manifest)}?tag=five")
    answer = repo.send("PUT", path, made.manifest, {"Content-Type": OCI_MANIFEST})
    assert (answer.status, answer.header("Docker-Content-Digest")) == (201, sha512(made.manifest))
    for reference in ("five", sha512(made.manifest)):
        assert repo.manifest(reference).header("Docker-Content-Digest") == sha512(made.manifest)


def test_a_deleted_tag_leaves_its_digest(repo: Repo) -> None:
    """46: 202, visible at once; the digest and other tags of it stay."""
    made = image()
    repo.push(made, "v1", "v2")
    assert repo.delete("manifests/v1").status == 202
    assert repo.manifest("v1").status == 404
    assert repo.manifest("v2").body == repo.manifest(made.digest).body == made.manifest
    assert repo.delete("manifests/v1").status == 404
    assert repo.get(repo.path("tags/list")).json()["tags"] == ["v2"]


def test_a_deleted_digest_takes_its_tags_along(repo: Repo) -> None:
    """46: 202; tags of it are gone, those of another manifest stay, and it can be pushed again."""
    gone, kept = image(), image()
    repo.push(gone, "v1", "v2")
    repo.push(kept, "v3")
    assert repo.delete(f"manifests/{gone.digest}").status == 202
    for reference in ("v1", "v2", gone.digest):
        assert repo.manifest(reference).status == 404
    assert repo.get(repo.path("tags/list")).json()["tags"] == ["v3"]
    assert repo.put("v1", gone.manifest).status == 201
    assert repo.manifest("v1").body == gone.manifest


def test_a_child_of_an_index_stays(repo: Repo) -> None:
    """46: an image of an index cannot be deleted before the index."""
    child = image()
    repo.push(child, "child")
    body = index_of(child.manifest)
    assert repo.put("v1", body, OCI_INDEX).status == 201
    answer = repo.delete(f"manifests/{child.digest}")
    assert (answer.status, answer.code) == (403, "DENIED")
    assert repo.manifest("child").body == child.manifest
    assert repo.delete(f"manifests/{sha256(body)}").status == 202
    assert repo.delete(f"manifests/{child.digest}").status == 202


def test_a_blob_that_a_manifest_names_stays(repo: Repo) -> None:
    """52: a blob is deleted with 202 and unknown then; one that a manifest names is refused."""
    made = image()
    repo.push(made, "v1")
    layer = sha256(made.blobs[1])
    answer = repo.delete(f"blobs/{layer}")
    assert (answer.status, answer.code) == (403, "DENIED")
    assert repo.blob(layer).status == 200
    assert repo.delete(f"manifests/{made.digest}").status == 202
    assert repo.delete(f"blobs/{layer}").status == 202
    assert repo.blob(layer).status == 404
    assert repo.delete(f"blobs/{layer}").status == 404


def test_deleting_is_switched_off(tmp_path: Path) -> None:
    """46, 52: where the settings say deny, DELETE of a tag, a manifest and a blob is 405 and nothing goes."""
    with running_server(tmp_path, "--manifest-delete", "deny", "--blob-delete", "deny", "--workers", "1") as server:
        repo = admin(server).new_repo()
        made = image()
        repo.push(made, "v1")
        lonely = repo.push_blob(b"named by nobody")
        for rest in ("manifests/v1", f"manifests/{made.digest}", f"blobs/{lonely}"):
            answer = repo.delete(rest)
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
            assert answer.header("Allow") == ("GET, HEAD" if rest.startswith("blobs") else "GET, HEAD, PUT")
        assert repo.manifest("v1").body == made.manifest
        assert repo.blob(lonely).status == 200
        public = admin(server).api.json(
            "POST", f"{admin(server).base}/repositories", {"name": "p", "description": "x", "access": "public"}
        )
        assert (public.status, public.code) == (403, "DENIED")
