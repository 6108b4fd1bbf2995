"""What a manifest names cannot be deleted, however it arrived; damaged bytes are never served as good ones."""

from __future__ import annotations

import http.client
import secrets
from typing import TYPE_CHECKING

import pytest

from polly_dockers.registry.history import REFERRERS
from support.server import running_server
from support.wire_client import (
    OCI_INDEX,
    OCI_MANIFEST,
    Person,
    basic,
    connected,
    descriptor,
    dumps,
    image,
    receive,
    sha256,
)

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server


@pytest.mark.parametrize("again", [True, False])
def test_a_layer_that_comes_after_its_manifest_is_held(ann: Person, *, again: bool) -> None:
    """Where manifests may be sparse, a layer that arrives later can't be deleted, pushed again or not."""
    repo = ann.new_repo()
    name = repo.name.partition("/")[2]
    ann.api.json("PATCH", f"{ann.base}/repository?name={name}", {"sparse_indexes": "allow"})
    made = image()
    config, layer = made.blobs
    repo.push_blob(config)
    assert repo.put("v1", made.manifest).status == 201
    repo.push_blob(layer)
    if again:
        assert repo.put("v2", made.manifest).status == 201
    for blob in (config, layer):
        refused = repo.delete(f"blobs/{sha256(blob)}")
        assert (refused.status, refused.code) == (403, "DENIED")
    size = len(config) + len(layer) + len(made.manifest)
    assert {item["size"] for item in ann.commits(name)["items"]} == {size}


@pytest.mark.parametrize("again", [True, False])
def test_a_child_that_comes_back_is_held(ann: Person, *, again: bool) -> None:
    """A deleted child of a sparse index belongs to it again once pushed, with or without a push of the index."""
    repo = ann.new_repo()
    change = f"{ann.base}/repository?name={repo.name.partition('/')[2]}"
    ann.api.json("PATCH", change, {"sparse_indexes": "allow"})
    made = image()
    repo.push(made)
    index = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(made.manifest, OCI_MANIFEST)]})
    assert repo.put("all", index, OCI_INDEX).status == 201
    assert repo.delete(f"manifests/{made.digest}").status == 202
    repo.push(made)
    if again:
        assert repo.put("all", index, OCI_INDEX).status == 201
    ann.api.json("PATCH", change, {"sparse_indexes": "deny"})
    assert repo.delete(f"manifests/{made.digest}").code == "DENIED"
    assert repo.put("more", index, OCI_INDEX).status == 201


def test_a_foreign_layer_that_is_here_is_held(ann: Person) -> None:
    """A layer that need not be here, but was pushed, can't be deleted while an image names it."""
    repo = ann.new_repo()
    config, layer = b"{}", secrets.token_bytes(100)
    for blob in (config, layer):
        repo.push_blob(blob)
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    body = dumps(
        {"schemaVersion": 2, "config": descriptor(config, "application/x"), "layers": [descriptor(layer, foreign)]}
    )
    assert repo.put("v1", body).status == 201
    assert repo.delete(f"blobs/{sha256(layer)}").code == "DENIED"


def test_more_bytes_than_the_range_says(ann: Person) -> None:
    """A chunk without a length that exceeds its Content-Range is refused, and the upload does not change."""
    repo = ann.new_repo()
    location = repo.start()
    for sent in (b"x" * 20, b"x" * 5):
        connection = http.client.HTTPConnection("127.0.0.1", repo.port, timeout=30)
        headers = {"Content-Range": "0-9", "Authorization": str(repo.authorization), "Transfer-Encoding": "chunked"}
        connection.request("PATCH", location, iter([sent]), headers, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, b"SIZE_INVALID" in answer.read()) == (400, True)
        connection.close()
    assert repo.get(location).header("Range") == "0-0"


def test_a_refused_push_makes_no_repository(server: Server) -> None:
    """With create-on-push, an invalid manifest leaves no repository behind."""
    org, (email, password) = server.new_org(create_on_push=True)
    person = Person(server.port, org, email, password)
    repo = person.repo("ghost")
    assert repo.put("v1", b"junk").code == "MANIFEST_INVALID"
    assert person.api.get(f"{person.base}/repositories").json()["total"] == 0


@pytest.mark.parametrize("size", [5_000, 3_000_000])
def test_a_file_that_was_cut_is_no_blob(tmp_path: Path, size: int) -> None:
    """The client gets an error before any bytes, never a body that is cut short."""
    with running_server(tmp_path) as server:
        ann = Person(server.port, server.org, *server.admin)
        repo = ann.new_repo()
        digest = repo.push_blob(secrets.token_bytes(size))
        [file] = (server.data / "blobs").glob("*/*/*")
        with file.open("r+b") as opened:
            opened.truncate(size // 2)
        answer = repo.blob(digest)
        assert (answer.status, answer.code) == (500, "UNKNOWN")
        assert repo.blob(digest, Range="bytes=0-99").status == 500


def test_a_range_of_another_blob_gets_the_whole(ann: Person) -> None:
    """If If-Range does not match the blob, Range is ignored (RFC 9110, 13.1.5)."""
    repo = ann.new_repo()
    digest = repo.push_blob(b"0123456789")
    part = {"Range": "bytes=2-4"}
    assert repo.blob(digest, **part, **{"If-Range": f'"{digest}"'}).body == b"234"
    assert repo.blob(digest, **part, **{"If-Range": '"other"'}).body == b"0123456789"


def test_a_path_with_its_host(server: Server, ann: Person) -> None:
    """A request in absolute form, as it comes by way of a proxy, is answered like any other (RFC 9112, 3.2.2)."""
    repo = ann.new_repo()
    path = f"http://{server.registry}/v2/{repo.name}/tags/list"
    answer = repo.send("GET", path)
    assert (answer.status, answer.json()["tags"]) == (200, [])


def test_a_body_that_was_not_asked_for(ann: Person) -> None:
    """If a request is refused before 100 Continue, the connection closes: nobody knows whether the body follows."""
    with connected(ann.port) as connection:
        head = "POST /v2/acme/none/blobs/uploads/?digest=x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        answer = receive(connection)
        assert answer.status in {400, 401}
        assert answer.header("Connection") == "close"


def test_many_scopes_make_a_token_that_is_read(ann: Person) -> None:
    """A token for as many scopes as allowed is accepted, and short however long their names are."""
    names = [ann.new_repo().name for _ in range(3)]
    scopes = [f"repository:{names[number % 3]}:pull" for number in range(100)]
    token = ann.registry_token(*scopes)
    long = [f"repository:{ann.org}/{secrets.token_hex(60)}:pull" for _ in range(90)]
    assert len(ann.registry_token(*long)) < 4096
    for each in (token, ann.registry_token(*long)):
        connection = http.client.HTTPConnection("127.0.0.1", ann.port, timeout=30)
        connection.request("GET", "/v2/", headers={"Authorization": f"Bearer {each}"})
        assert connection.getresponse().status == 200
        connection.close()


def test_wrong_passwords_are_counted_by_address(tmp_path: Path) -> None:
    """An address that tries many accounts is throttled, even if it signs in to its own now and then."""
    with running_server(tmp_path) as server:
        email, password = server.admin
        statuses = []
        for number in range(110):
            statuses.append(basic(server.port, f"user{number}@acme.example", "wrong password").get("/token").status)
            if number % 40 == 0:
                assert basic(server.port, email, password).get("/token").status == 200
        assert statuses[-1] == 429


def test_metrics_are_not_shown_through_a_proxy(tmp_path: Path) -> None:
    """A server with a public URL does not show /metrics at its main address."""
    with running_server(tmp_path, "--public-url", "https://registry.acme.example") as server:
        assert basic(server.port, "", "").get("/metrics").status == 404


def test_referrers_come_by_pages(ann: Person) -> None:
    """Each page has a Link to the next until all are there, none twice, filtered or not."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    subject = {"mediaType": OCI_MANIFEST, "digest": made.digest, "size": len(made.manifest)}
    empty = descriptor(b"{}", "application/vnd.oci.empty.v1+json")
    repo.push_blob(b"{}")
    for number in range(REFERRERS + 3):
        body = {
            "schemaVersion": 2,
            "artifactType": f"application/x.{number % 2}",
            "config": empty,
            "layers": [empty],
            "subject": subject,
            "annotations": {"number": str(number)},
        }
        content = dumps(body)
        assert repo.put(sha256(content), content).status == 201
    for query, wanted in (("", REFERRERS + 3), ("?artifactType=application/x.0", (REFERRERS + 4) // 2)):
        path, found = repo.path(f"referrers/{made.digest}{query}"), []
        while path:
            answer = repo.get(path)
            found += [item["annotations"]["number"] for item in answer.json()["manifests"]]
            link = answer.headers.get("Link", "")
            assert link.startswith("</v2/") or not link
            path = link.partition("<")[2].partition(">")[0]
        assert (len(found), len(set(found))) == (wanted, wanted)
    assert repo.get(repo.path(f"referrers/{made.digest}?last=x")).code == "PAGINATION_NUMBER_INVALID"
