"""security.md 1 to 6 and 8 to 11: who may do what, and what an error reveals."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pysqlite3.dbapi2 as sqlite
import pytest

from support.server import running_server
from support.wire_client import (
    OCI_INDEX,
    OCI_MANIFEST,
    Client,
    Person,
    Repo,
    admin,
    bearer,
    descriptor,
    dumps,
    image,
    member,
    sha256,
    stranger,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

SECRET = b"the bytes of another organisation"


@pytest.fixture(scope="module")
def eve(server: Server) -> Person:
    """The admin of another organisation."""
    return stranger(server)


@pytest.fixture
def repo(ann: Person) -> Repo:
    """A new repository that holds SECRET and an image."""
    made = ann.new_repo()
    made.push_blob(SECRET)
    made.push(image("secret image"), "v1")
    return made


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_digest_opens_nothing(eve: Person, repo: Repo, method: str) -> None:
    """1 (CVE-2024-39897): a digest alone gives nobody the blob, neither there nor in a repository of theirs."""
    own = eve.new_repo()
    assert own.send(method, own.path(f"blobs/{sha256(SECRET)}")).status == 404
    assert own.send(method, own.path(f"manifests/{image('secret image').digest}")).status == 404
    assert own.send(method, repo.path(f"blobs/{sha256(SECRET)}")).status == 401
    assert eve.at(repo.name).send(method, repo.path(f"blobs/{sha256(SECRET)}")).status == 401


@pytest.mark.parametrize("origin", ["from", "without"])
def test_a_mount_opens_nothing(eve: Person, repo: Repo, origin: str) -> None:
    """1: a mount of another organisation's blob starts an upload, and the blob stays out of reach."""
    own = eve.at(eve.new_repo().name, "pull,push", repo.name)
    query = {"mount": sha256(SECRET)} | ({"from": repo.name} if origin == "from" else {})
    answer = own.send("POST", own.path(f"blobs/uploads/?{urlencode(query)}"))
    assert answer.status == 202
    assert own.blob(sha256(SECRET)).status == 404


def test_an_upload_of_the_same_bytes_opens_only_itself(eve: Person, repo: Repo) -> None:
    """1: who has the bytes may push them; deleting them again takes nothing from the other organisation."""
    own = eve.new_repo()
    own.push_blob(SECRET)
    assert own.delete(f"blobs/{sha256(SECRET)}").status == 202
    assert own.blob(sha256(SECRET)).status == 404
    assert repo.blob(sha256(SECRET)).body == SECRET


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
def test_an_upload_belongs_to_its_user_and_repository(server: Server, ann: Person, repo: Repo, method: str) -> None:
    """3 (CVE-2026-32589): an upload is unknown to another writer, and in another repository of the same user."""
    location = repo.start()
    repo.send("PATCH", location, b"12345")
    upload = location.rpartition("/")[2]
    query = f"?digest={sha256(b'12345')}" if method == "PUT" else ""
    body = b"" if method in {"PUT", "PATCH"} else None
    elsewhere = ann.new_repo()
    for client, path in (
        (member(server, "writer").at(repo.name), location),
        (elsewhere, elsewhere.path(f"blobs/uploads/{upload}")),
    ):
        answer = client.send(method, path + query, body)
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert stranger(server).at(repo.name).send(method, location + query, body).status == 401
    assert repo.get(location).header("Range") == "0-4"
    assert repo.send("PUT", f"{location}?digest={sha256(b'12345')}", b"").status == 201


def test_ids_of_uploads_can_not_be_guessed(repo: Repo) -> None:
    """3: 24 random bytes, and no two alike."""
    ids = {repo.start().rpartition("/")[2] for _ in range(20)}
    assert len(ids) == 20
    assert all(len(upload) == 32 for upload in ids)
    assert len({upload[:4] for upload in ids}) > 10


def test_a_revoked_access_token(server: Server, ann: Person, repo: Repo) -> None:
    """2 (CVE-2026-35172): revoking it ends the registry tokens made with it on the next request, on every worker."""
    secret = ann.access_token("registry")
    there = ann.at(repo.name, secret=secret)
    assert there.manifest("v1").status == 200
    listed = ann.api.get("/api/v1/tokens").json()["items"]
    token_id = next(item["id"] for item in listed if item["scope"] == "registry")
    assert ann.api.send("DELETE", f"/api/v1/tokens/{token_id}").status == 204
    for _ in range(8):
        for path in ("/v2/", repo.path("manifests/v1"), repo.path("tags/list"), repo.path(f"blobs/{sha256(SECRET)}")):
            answer = there.get(path)
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert 'error="invalid_token"' in answer.header("WWW-Authenticate")
        assert there.send("POST", repo.path("blobs/uploads/")).status == 401
    assert bearer(server.port, secret).get("/api/v1/me").status == 401


def test_a_member_who_is_removed(ann: Person, repo: Repo) -> None:
    """2 (CVE-2025-23208): the next request of theirs is refused, in the registry and in the interface."""
    bob = ann.add("writer")
    there, upload = bob.at(repo.name), bob.at(repo.name).start()
    assert there.manifest("v1").status == 200
    assert bob.api.get(f"{ann.base}/repositories").status == 200
    assert ann.api.send("DELETE", f"{ann.base}/members?email={bob.email}").status == 204
    for answer in (
        there.manifest("v1"),
        there.send("PATCH", upload, b"x"),
        there.send("POST", repo.path("blobs/uploads/")),
    ):
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    gone = bob.api.get(f"{ann.base}/repositories")
    assert (gone.status, gone.code) == (404, "ORGANISATION_UNKNOWN")


def test_a_role_that_is_changed(ann: Person, repo: Repo) -> None:
    """2: once a writer becomes a reader, their token cannot push; a reader who becomes a writer needs a new one."""
    bob = ann.add("writer")
    there = bob.at(repo.name)
    path = f"{ann.base}/members?email={bob.email}"
    assert there.send("POST", repo.path("blobs/uploads/")).status == 202
    assert ann.api.json("PATCH", path, {"role": "reader"}).status == 200
    assert there.send("POST", repo.path("blobs/uploads/")).status == 401
    assert there.manifest("v1").status == 200
    narrow = bob.at(repo.name)
    assert ann.api.json("PATCH", path, {"role": "writer"}).status == 200
    assert narrow.send("POST", repo.path("blobs/uploads/")).status == 401
    assert bob.at(repo.name).send("POST", repo.path("blobs/uploads/")).status == 202


def test_a_password_that_is_changed(server: Server, ann: Person, repo: Repo) -> None:
    """2: every sign-in by the old one ends: registry tokens, access tokens, and what was made with these."""
    bob = ann.add("reader")
    answer = bob.by_password.get(f"/token?scope=repository:{repo.name}:pull")
    by_password = bearer(server.port, answer.json()["token"])
    by_token, api = bob.at(repo.name), bob.api
    assert by_password.get(repo.path("manifests/v1")).status == by_token.manifest("v1").status == 200
    assert bob.by_password.json("PUT", "/api/v1/me/password", {"password": "another password"}).status == 204
    for client, path in (
        (by_password, repo.path("manifests/v1")),
        (by_password, "/v2/"),
        (by_token, repo.path("manifests/v1")),
        (api, "/api/v1/me"),
        (bob.by_password, "/token"),
    ):
        assert client.get(path).status == 401


def test_one_decision_on_every_way(eve: Person, repo: Repo) -> None:
    """5 (CVE-2026-27771, CVE-2020-29662): no spelling of a path reaches what a plain one does not."""
    foreign = eve.at(repo.name)
    org, _, name = repo.name.partition("/")
    for path in (
        f"/v2/{org}/{name}/manifests/v1",
        f"/v2/{org}/{name}/manifests/v1/",
        f"/v2//{org}/{name}/manifests/v1",
        f"/v2/{org}//{name}/manifests/v1",
        f"/v2/{org}%2F{name}/manifests/v1",
        f"/v2/{org}/%{ord(name[0]):02x}{name[1:]}/manifests/v1",
        f"/v2/{eve.org}/../{org}/{name}/manifests/v1",
        f"/v2/./{org}/{name}/manifests/v1",
        f"/v2/{org}/{name};/manifests/v1",
        f"/v2/{org}/{name}/manifests/v1?access_token={repo.authorization}".replace(" ", "%20"),
        f"/V2/{org}/{name}/manifests/v1",
    ):
        for method in ("GET", "HEAD"):
            assert foreign.send(method, path).status in {400, 401, 404}


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_every_write_of_a_tag_is_checked(server: Server, repo: Repo, role: str) -> None:
    """6 (CVE-2026-31801, CVE-2026-41888): by ?tag=, by deletion of tag and digest; what is refused changes nothing."""
    person = member(server, role)
    there = person.at(repo.name)
    digest = image("secret image").digest
    if role == "reader":
        path = repo.path(f"manifests/{digest}?tag=stolen&tag=v1")
        assert there.send("PUT", path, image("secret image").manifest, {"Content-Type": OCI_MANIFEST}).status == 401
        assert there.put("v1", dumps({"schemaVersion": 2, "manifests": []}), OCI_INDEX).status == 401
    for rest in ("manifests/v1", f"manifests/{digest}", f"blobs/{sha256(SECRET)}"):
        assert there.delete(rest).status == 401
    assert repo.get(repo.path("tags/list")).json()["tags"] == ["v1"]
    assert repo.manifest("v1").body == image("secret image").manifest
    assert repo.blob(sha256(SECRET)).status == 200


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose rows a test may change beneath it."""
    with running_server(tmp_path_factory.mktemp("beneath"), "--workers", "1") as running:
        yield running


def execute(server: Server, *statements: str) -> None:
    """Change the rows beneath a server, as a later version's deletion would."""
    with contextlib.closing(sqlite.connect(server.data / "polly.db", timeout=30)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_token_that_outlives_its_repository(shared: Server) -> None:
    """8 (Harbor #22900): after it is gone and made again by the same name, tokens for the old one open nothing."""
    ann = admin(shared)
    old = ann.new_repo()
    name = old.name.partition("/")[2]
    assert old.get(old.path("tags/list")).status == 200
    execute(shared, f"DELETE FROM repositories WHERE name = '{name}'")  # noqa: S608 - a name of the test
    ann.create(name)
    for answer in (
        old.get(old.path("tags/list")),
        old.send("POST", old.path("blobs/uploads/")),
        old.delete("manifests/v1"),
    ):
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert ann.repo(name).get(old.path("tags/list")).status == 200


def test_a_token_that_was_made_before_its_repository(server: Server, ann: Person) -> None:
    """8: it works if its own user creates the repository, and not if another user does."""
    bob, name = ann.add("writer"), "to-be-made-by-bob"
    early_ann, early_bob = ann.repo(name), bob.repo(name)
    bob.create(name)
    assert early_bob.get(early_bob.path("tags/list")).status == 200
    assert early_ann.get(early_ann.path("tags/list")).status == 401
    assert ann.repo(name).get(early_ann.path("tags/list")).status == 200
    assert bearer(server.port, ann.registry_token()).get(early_ann.path("tags/list")).status == 401


def test_names_of_one_organisation_are_not_looked_up_in_another(ann: Person, eve: Person) -> None:
    """9 (CVE-2022-31668): a repository, a member and a token of one are unknown in the other."""
    name = ann.create()
    for path in (f"repository?name={name}", f"commits?repository={name}"):
        answer = eve.api.get(f"{eve.base}/{path}")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert eve.api.json("PATCH", f"{eve.base}/repository?name={name}", {"description": "taken"}).status == 404
    assert eve.api.json("PATCH", f"{eve.base}/members?email={ann.email}", {"role": "reader"}).code == "MEMBER_UNKNOWN"
    assert eve.api.send("DELETE", f"{eve.base}/members?email={ann.email}").code == "MEMBER_UNKNOWN"
    token_id = ann.api.get("/api/v1/me").json()["token"]["id"]
    answer = eve.api.send("DELETE", f"/api/v1/tokens/{token_id}")
    assert (answer.status, answer.code) == (404, "TOKEN_UNKNOWN")
    assert ann.repository(name)["description"] == "x"


REQUESTS = [
    ("GET", "manifests/v1"),
    ("GET", "manifests/" + sha256(b"absent")),
    ("GET", "tags/list"),
    ("GET", "blobs/" + sha256(SECRET)),
    ("GET", "referrers/" + sha256(SECRET)),
    ("POST", "blobs/uploads/"),
    ("POST", f"blobs/uploads/?mount={sha256(SECRET)}&from=acme/x"),
    ("PUT", "manifests/v1"),
    ("DELETE", "manifests/v1"),
    ("DELETE", "blobs/" + sha256(SECRET)),
]


@pytest.mark.parametrize(("method", "rest"), REQUESTS)
@pytest.mark.parametrize("who", ["nobody", "another"])
def test_no_oracle_in_the_registry(server: Server, eve: Person, repo: Repo, who: str, method: str, rest: str) -> None:
    """10 (GHSA-q9x4-q76f-5h5j): forbidden, missing or in no organisation: the errors differ only in the name."""
    answers = []
    for name in (repo.name, "acme/" + "x" * (len(repo.name) - 5), "none" + "/" + "x" * (len(repo.name) - 5)):
        client: Client = eve.at(name) if who == "another" else Client(server.port)
        answer = client.send(method, f"/v2/{name}/{rest}", b"{}" if method in {"POST", "PUT"} else None)
        status, document = answer.plain()
        told = {key: value.replace(name, "NAME") for key, value in answer.headers.items() if key not in CHANGING}
        answers.append((status, str(document).replace(name, "NAME"), told))
    assert answers[0][0] == 401
    assert answers[0] == answers[1] == answers[2]


CHANGING = {"X-Request-Id", "Date", "Content-Length"}
"""Headers that differ by the request, or by the length of the name."""


def test_no_oracle_for_organisations(eve: Person) -> None:
    """10: an outsider gets the same response for an organisation that exists and one that does not."""
    for method, rest, body in (
        ("GET", "repositories", None),
        ("GET", "repository?name=x", None),
        ("GET", "commits?repository=x", None),
        ("GET", "members", None),
        ("POST", "repositories", {"name": "x", "description": "x"}),
        ("GET", "invitations", None),
        ("POST", "invitations", {"email": "a@b.example", "role": "reader"}),
        ("DELETE", "invitations?email=a@b.example", None),
        ("PATCH", "members?email=a@b.example", {"role": "reader"}),
        ("PATCH", "repository?name=x", {"description": "x"}),
        ("DELETE", "members?email=a@b.example", None),
    ):
        plain = []
        for org in ("acme", "emca"):
            path = f"/api/v1/organisations/{org}/{rest}"
            answer = eve.api.json(method, path, body) if body else eve.api.send(method, path)
            status, document = answer.plain()
            plain.append((status, str(document).replace(org, "ORG")))
        assert plain[0] == plain[1]
        assert plain[0][0] == 404


def test_no_oracle_for_accounts(server: Server, ann: Person) -> None:
    """10: a wrong password and an unknown account get the same response, and so do invitations of either."""
    (status, wrong), (_, unknown) = (
        Person(server.port, "acme", email, "wrong").by_password.get("/token").plain()
        for email in (ann.email, "nobody@acme.example")
    )
    assert (status, wrong) == (401, unknown)
    known = stranger(server).email
    answers = [
        ann.api.json("POST", f"{ann.base}/invitations", {"email": email, "role": "reader"})
        for email in (known, f"new-{time.time_ns()}@acme.example")
    ]
    shapes = [(answer.status, sorted(answer.json()), answer.json()["role"]) for answer in answers]
    assert shapes[0] == shapes[1]
    assert shapes[0][0] == 201
    assert stranger(server).by_password.get("/token").status == 200
    assert ann.api.send("DELETE", f"{ann.base}/members?email={known}").status == 204


def test_a_manifest_makes_no_link(eve: Person, repo: Repo) -> None:
    """11: a manifest that names a digest of another repository is refused, and a sparse index gives no access to it."""
    own, config = eve.new_repo(), b"{}"
    own.push_blob(config)
    stolen = {"config": descriptor(config), "layers": [descriptor(SECRET)]}
    assert own.put("v1", dumps({"schemaVersion": 2, **stolen})).code == "MANIFEST_BLOB_UNKNOWN"
    name = own.name.partition("/")[2]
    assert eve.api.json("PATCH", f"{eve.base}/repository?name={name}", {"sparse_indexes": "allow"}).status == 200
    foreign = [descriptor(image("secret image").manifest, OCI_MANIFEST), descriptor(SECRET)]
    for reference, body, kind in (
        ("index", {"schemaVersion": 2, "manifests": foreign}, OCI_INDEX),
        ("sparse", {"schemaVersion": 2, **stolen}, OCI_MANIFEST),
        (
            "subject",
            {"schemaVersion": 2, "config": descriptor(config), "layers": [], "subject": foreign[0]},
            OCI_MANIFEST,
        ),
    ):
        assert own.put(reference, dumps(body), kind).status == 201
    assert own.blob(sha256(SECRET)).status == 404
    assert own.manifest(image("secret image").digest).status == 404
    assert repo.blob(sha256(SECRET)).body == SECRET


def test_nothing_is_fetched(repo: Repo, server: Server) -> None:
    """15: the server stores the urls of a descriptor and never connects to them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the socket's own form
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/layer"
        layer = descriptor(b"far away", "application/vnd.oci.image.layer.nondistributable.v1.tar", urls=[url])
        repo.push_blob(b"{}")
        body = dumps({"schemaVersion": 2, "config": descriptor(b"{}"), "layers": [layer]})
        assert repo.put("far", body).status == 201
        assert repo.manifest("far").body == body
        assert repo.blob(sha256(b"far away")).status == 404
        assert Client(server.port).get("/healthz").status == 200
        with pytest.raises(BlockingIOError):
            listener.accept()
