"""protocol.md as a table: one request each against a repository that holds an image, by the number of the line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from support.wire_client import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Client,
    Repo,
    admin,
    descriptor,
    dumps,
    image,
    member,
    sha256,
    sha512,
    stranger,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.server import Server

BLOB = b"the layer of the table"
DIGEST = sha256(BLOB)
IMAGE = image("of the table")
ABSENT = sha256(b"nobody ever pushed this")
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
JSON = "application/json"


@dataclass(frozen=True)
class Row:
    """A request, who sends it, and what comes back. ``{n}`` is the repository."""

    number: int
    what: str
    request: str
    status: int
    code: str = ""
    body: bytes | None = None
    send: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    who: str = "admin"

    @property
    def id(self) -> str:
        """The name of the test: number and description of the row."""
        return f"{self.number}-{self.what.replace(' ', '-')}"


def document(**changes: object) -> bytes:
    """Return an image manifest that the repository accepts, with the changes."""
    whole = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(BLOB), "layers": [], **changes}
    return dumps({key: value for key, value in whole.items() if value is not None})


def index(**changes: object) -> bytes:
    """Return an index that the repository accepts, with the changes."""
    return dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], **changes})


OCI = {"Content-Type": OCI_MANIFEST}
AS_INDEX = {"Content-Type": OCI_INDEX}
PUT = "PUT {n}/manifests/table"
WHOLE = {"Content-Type": "application/octet-stream", "Content-Length": str(len(BLOB))}

ERRORS = [
    Row(3, "digest malformed", "GET {n}/blobs/sha256:abc", 400, "DIGEST_INVALID"),
    Row(3, "digest in upper case", f"GET {{n}}/blobs/{DIGEST.upper()}", 400, "DIGEST_INVALID"),
    Row(3, "digest of another algorithm", f"GET {{n}}/blobs/md5:{'0' * 32}", 400, "DIGEST_INVALID"),
    Row(3, "digest too long", f"GET {{n}}/blobs/{DIGEST}0", 400, "DIGEST_INVALID"),
    Row(3, "name in upper case", "GET /v2/acme/Table/tags/list", 400, "NAME_INVALID"),
    Row(3, "tag malformed", "GET {n}/manifests/-v1", 400, "TAG_INVALID"),
    Row(3, "manifest is no JSON", PUT, 400, "MANIFEST_INVALID", b"{", OCI),
    Row(3, "n is no number", "GET {n}/tags/list?n=ten", 400, "PAGINATION_NUMBER_INVALID"),
    Row(3, "n below 0", "GET {n}/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
    Row(3, "n is empty", "GET {n}/tags/list?n=", 400, "PAGINATION_NUMBER_INVALID"),
    Row(3, "blob unknown", f"GET {{n}}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
    Row(3, "upload unknown", "GET {n}/blobs/uploads/nobody", 404, "BLOB_UPLOAD_UNKNOWN"),
    Row(3, "upload unknown to PATCH", "PATCH {n}/blobs/uploads/nobody", 404, "BLOB_UPLOAD_UNKNOWN", b"x"),
    Row(3, "upload unknown to PUT", f"PUT {{n}}/blobs/uploads/x?digest={DIGEST}", 404, "BLOB_UPLOAD_UNKNOWN", BLOB),
    Row(3, "upload unknown to DELETE", "DELETE {n}/blobs/uploads/nobody", 404, "BLOB_UPLOAD_UNKNOWN"),
    Row(3, "manifest unknown by tag", "GET {n}/manifests/absent", 404, "MANIFEST_UNKNOWN"),
    Row(3, "manifest unknown by digest", f"GET {{n}}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
    Row(3, "method on a blob", f"PUT {{n}}/blobs/{DIGEST}", 405, "UNSUPPORTED", b""),
    Row(3, "method on a manifest", "POST {n}/manifests/v1", 405, "UNSUPPORTED", b""),
    Row(3, "method on tags", "DELETE {n}/tags/list", 405, "UNSUPPORTED"),
    Row(3, "method on uploads", "GET {n}/blobs/uploads/", 405, "UNSUPPORTED"),
    Row(3, "method on referrers", f"PUT {{n}}/referrers/{DIGEST}", 405, "UNSUPPORTED", b""),
    Row(3, "method on the base", "DELETE /v2/", 405, "UNSUPPORTED"),
    Row(3, "path unknown", "GET {n}/nothing/here", 404, "NOT_FOUND"),
    Row(3, "path unknown outside", "GET /nothing", 404, "NOT_FOUND"),
]
NAMES = [
    Row(4, "a name without its organisation", "GET /v2/one-part/tags/list", 404, "NAME_UNKNOWN"),
    *(
        Row(4, f"name {name}", f"GET /v2/{name}/tags/list", 400, "NAME_INVALID")
        for name in ("a/B", "a/-b", "a/b-", "a/b..c", "a/b___c", "a/b._c", "a//b", "a/" + "b" * 254, "a/b%20c")
    ),
]
TAGS = [
    Row(4, "tag of 128 characters", f"GET {{n}}/manifests/{'t' * 128}", 404, "MANIFEST_UNKNOWN"),
    Row(4, "tag of 129 characters", f"GET {{n}}/manifests/{'t' * 129}", 400, "TAG_INVALID"),
    Row(4, "tag that begins with a point", f"PUT {{n}}/manifests/{DIGEST}?tag=.a", 400, "TAG_INVALID", b"{}", OCI),
]
PATHS = [
    Row(7, "encoded slash", "GET /v2/acme%2Ftable/tags/list", 400, "NAME_INVALID"),
    Row(7, "encoded slash in lower case", "GET {n}%2ftags/list", 400, "NAME_INVALID"),
    Row(7, "encoded backslash", "GET {n}%5ctags/list", 400, "NAME_INVALID"),
    Row(7, "dots", "GET {n}/x/../tags/list", 400, "NAME_INVALID"),
    Row(7, "dots at the end", "GET {n}/tags/..", 400, "NAME_INVALID"),
    Row(7, "encoded dots", "GET {n}/x/%2e%2e/tags/list", 400, "NAME_INVALID"),
    Row(7, "dots in the interface", "GET /api/v1/../v1/me", 400, "NAME_INVALID"),
    Row(7, "NUL", "GET {n}/manifests/v1%00", 400, "NAME_INVALID"),
    Row(7, "encoded twice", "GET {n}%252ftags/list", 400, "NAME_INVALID"),
    Row(7, "no UTF-8 in the name", "GET {n}%ff/tags/list", 400, "NAME_INVALID"),
    Row(7, "no UTF-8 in the tag", "GET {n}/manifests/%ff", 400, "NAME_INVALID"),
    Row(7, "no UTF-8 in the upload", "GET {n}/blobs/uploads/%ff", 400, "NAME_INVALID"),
    Row(7, "no UTF-8 in nothing", "GET /v2/nothing/%ff", 400, "NAME_INVALID"),
    Row(7, "a letter may be encoded", "GET {n}/manifests/%761", 200, content=IMAGE.manifest),
    Row(7, "trailing slash on tags", "GET {n}/tags/list/", 404, "NOT_FOUND"),
    Row(7, "trailing slash on a manifest", "GET {n}/manifests/v1/", 404, "NOT_FOUND"),
]
PULLS = [
    Row(20, "GET", f"GET {{n}}/blobs/{DIGEST}", 200, expect=WHOLE | {"ETag": f'"{DIGEST}"'}, content=BLOB),
    Row(20, "HEAD", f"HEAD {{n}}/blobs/{DIGEST}", 200, expect=WHOLE | {"Accept-Ranges": "bytes"}, content=b""),
    Row(20, "HEAD tells the digest", f"HEAD {{n}}/blobs/{DIGEST}", 200, expect={"Docker-Content-Digest": DIGEST}),
    Row(20, "HEAD of an unknown one", f"HEAD {{n}}/blobs/{ABSENT}", 404, content=b""),
    Row(20, "known", f"GET {{n}}/blobs/{DIGEST}", 304, send={"If-None-Match": f'"{DIGEST}"'}, content=b""),
    Row(20, "known to HEAD", f"HEAD {{n}}/blobs/{DIGEST}", 304, send={"If-None-Match": f'"a", W/"{DIGEST}"'}),
    Row(20, "another is known", f"GET {{n}}/blobs/{DIGEST}", 200, send={"If-None-Match": f'"{ABSENT}"'}, content=BLOB),
]


def ranged(number: int, what: str, asked: str, status: int, content: bytes | None, told: str | None = None) -> Row:
    """A row that asks for a range."""
    request = f"GET {{n}}/blobs/{DIGEST}"
    expect = {} if told is None else {"Content-Range": f"bytes {told}/{len(BLOB)}"}
    code = "RANGE_INVALID" if status == 416 else ""
    return Row(number, what, request, status, code, send={"Range": asked}, expect=expect, content=content)


RANGES = [
    ranged(21, "first to last", "bytes=4-8", 206, BLOB[4:9], "4-8"),
    ranged(21, "one byte", "bytes=0-0", 206, BLOB[:1], "0-0"),
    ranged(21, "from", "bytes=10-", 206, BLOB[10:], f"10-{len(BLOB) - 1}"),
    ranged(21, "the end", "bytes=-5", 206, BLOB[-5:], f"{len(BLOB) - 5}-{len(BLOB) - 1}"),
    ranged(21, "end clamped", "bytes=4-99999", 206, BLOB[4:], f"4-{len(BLOB) - 1}"),
    ranged(21, "more than all of the end", "bytes=-99999", 206, BLOB, f"0-{len(BLOB) - 1}"),
    ranged(22, "behind the end", "bytes=1000-", 416, None, "*"),
    ranged(22, "at the end", f"bytes={len(BLOB)}-", 416, None, "*"),
    ranged(22, "backwards", "bytes=500-0", 416, None, "*"),
    ranged(22, "nothing of the end", "bytes=-0", 416, None, "*"),
    ranged(23, "several that overlap", "bytes=0-4,4-5", 200, BLOB),
    ranged(23, "several of which one lies inside", "bytes=0-1,1000-", 206, BLOB[:2], "0-1"),
    ranged(22, "several outside", "bytes=1000-,2000-3000", 416, None, "*"),
    ranged(21, "to an end of many digits", f"bytes=4-{'9' * 30}", 206, BLOB[4:], f"4-{len(BLOB) - 1}"),
    ranged(23, "another unit", "lines=0-1", 200, BLOB),
]
MANIFESTS = [
    Row(37, "by tag", "GET {n}/manifests/v1", 200, expect=OCI | {"ETag": f'"{IMAGE.digest}"'}, content=IMAGE.manifest),
    Row(37, "by digest", f"GET {{n}}/manifests/{IMAGE.digest}", 200, expect=OCI, content=IMAGE.manifest),
    Row(37, "HEAD", "HEAD {n}/manifests/v1", 200, expect={"Content-Length": str(len(IMAGE.manifest))}, content=b""),
    Row(37, "HEAD tells", "HEAD {n}/manifests/v1", 200, expect=OCI | {"Docker-Content-Digest": IMAGE.digest}),
    Row(37, "known", "GET {n}/manifests/v1", 304, send={"If-None-Match": f'"{IMAGE.digest}"'}, content=b""),
    Row(38, "another type accepted", "GET {n}/manifests/v1", 200, send={"Accept": DOCKER_MANIFEST}, expect=OCI),
    Row(38, "text accepted", "GET {n}/manifests/v1", 200, send={"Accept": "text/html"}, content=IMAGE.manifest),
    Row(39, "no layers", PUT, 201, body=document(), send=OCI),
    Row(39, "unknown fields", PUT, 201, body=document(of_the_future={"a": [1]}), send=OCI),
    Row(
        39, "type with a parameter", PUT, 201, body=document(), send={"Content-Type": f"{OCI_MANIFEST}; charset=utf-8"}
    ),
    Row(39, "mediaType left out", PUT, 201, body=document(mediaType=None), send=OCI),
    Row(39, "no entries", PUT, 201, body=index(), send=AS_INDEX),
    Row(39, "Content-Type left out", PUT, 201, body=index(annotations={"a": "b"})),
    Row(40, "mismatch", f"PUT {{n}}/manifests/{ABSENT}", 400, "DIGEST_INVALID", document(), OCI),
    Row(40, "mismatch in the query", PUT + f"?digest={ABSENT}", 400, "DIGEST_INVALID", document(), OCI),
    Row(40, "malformed", "PUT {n}/manifests/sha256:abc", 400, "DIGEST_INVALID", document(), OCI),
    Row(40, "malformed to GET", "GET {n}/manifests/sha256:abc", 400, "DIGEST_INVALID"),
    Row(42, "schema 1 by its type", PUT, 400, "MANIFEST_INVALID", b'{"schemaVersion":1}', {"Content-Type": SCHEMA_1}),
    Row(42, "schema 1 inside", PUT, 400, "MANIFEST_INVALID", document(schemaVersion=1), OCI),
    Row(42, "schemaVersion is true", PUT, 400, "MANIFEST_INVALID", document(schemaVersion=True), OCI),
    Row(42, "another type", PUT, 400, "MANIFEST_INVALID", document(mediaType=JSON), {"Content-Type": JSON}),
    Row(42, "config of any type", PUT, 201, body=document(config=descriptor(BLOB, "text/x")), send=OCI),
    Row(43, "layer missing", PUT, 400, "MANIFEST_BLOB_UNKNOWN", document(layers=[descriptor(b"absent")]), OCI),
    Row(43, "config missing", PUT, 400, "MANIFEST_BLOB_UNKNOWN", document(config=descriptor(b"absent")), OCI),
    Row(43, "child missing", PUT, 400, "MANIFEST_BLOB_UNKNOWN", index(manifests=[descriptor(b"no")]), AS_INDEX),
    Row(43, "size of a layer wrong", PUT, 400, "MANIFEST_INVALID", document(layers=[descriptor(BLOB, size=1)]), OCI),
    Row(43, "an index may hold blobs", PUT, 201, body=index(manifests=[descriptor(BLOB)]), send=AS_INDEX),
    Row(
        43,
        "layer not distributable",
        PUT,
        201,
        body=document(layers=[descriptor(b"x", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")]),
        send=OCI,
    ),
    Row(
        43,
        "foreign layer",
        PUT,
        201,
        body=document(
            mediaType=DOCKER_MANIFEST,
            layers=[descriptor(b"x", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["http://x"])],
        ),
        send={"Content-Type": DOCKER_MANIFEST},
    ),
    Row(
        44,
        "subject that is not there",
        PUT,
        201,
        body=document(subject=descriptor(b"absent", OCI_MANIFEST)),
        send=OCI,
        expect={"OCI-Subject": sha256(b"absent")},
    ),
]
MORE = [
    Row(
        25, "any type", "POST {n}/blobs/uploads/", 202, body=b"", send={"Content-Type": "a/b"}, expect={"Range": "0-0"}
    ),
    Row(25, "says no length", "POST {n}/blobs/uploads/", 202, body=b"", expect={"Content-Length": "0"}),
    Row(25, "without the slash", "POST {n}/blobs/uploads", 202, body=b""),
    Row(
        26, "whole", f"POST {{n}}/blobs/uploads/?digest={sha256(b'w')}", 201, body=b"w", expect={"Content-Length": "0"}
    ),
    Row(26, "mismatch", f"POST {{n}}/blobs/uploads/?digest={ABSENT}", 400, "DIGEST_INVALID", b"not this"),
    Row(26, "malformed", "POST {n}/blobs/uploads/?digest=sha256:1", 400, "DIGEST_INVALID", b"x"),
    Row(32, "whole by sha512", f"POST {{n}}/blobs/uploads/?digest={sha512(b'5')}", 201, body=b"5"),
    Row(32, "mismatch by sha512", f"POST {{n}}/blobs/uploads/?digest={sha512(b'5')}", 400, "DIGEST_INVALID", b"6"),
    Row(33, "empty", f"POST {{n}}/blobs/uploads/?digest={EMPTY}", 201, body=b""),
    Row(33, "there already", f"POST {{n}}/blobs/uploads/?digest={DIGEST}", 201, body=BLOB),
    Row(48, "nothing refers", f"GET {{n}}/referrers/{ABSENT}", 200, expect=AS_INDEX),
    Row(48, "malformed digest", "GET {n}/referrers/sha256:abc", 400, "DIGEST_INVALID"),
    Row(46, "unknown tag", "DELETE {n}/manifests/absent", 404, "MANIFEST_UNKNOWN"),
    Row(46, "unknown digest", f"DELETE {{n}}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
    Row(52, "unknown blob", f"DELETE {{n}}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
    Row(42, "list of Docker", PUT, 201, body=index(mediaType=DOCKER_LIST), send={"Content-Type": DOCKER_LIST}),
]
SIGNED_OUT = [
    Row(8, "anonymous at the base", "GET /v2/", 401, "UNAUTHORIZED", who="nobody"),
    Row(8, "anonymous without the slash", "GET /v2", 401, "UNAUTHORIZED", who="nobody"),
    Row(8, "anonymous pull", "GET {n}/manifests/v1", 401, "UNAUTHORIZED", who="nobody"),
    Row(8, "anonymous push", "POST {n}/blobs/uploads/", 401, "UNAUTHORIZED", b"", who="nobody"),
    Row(9, "signed in", "GET /v2/", 200, content=b"{}"),
    Row(18, "a reader pulls", "GET {n}/manifests/v1", 200, who="reader", content=IMAGE.manifest),
    Row(18, "a reader starts no upload", "POST {n}/blobs/uploads/", 401, "UNAUTHORIZED", b"", who="reader"),
    Row(18, "a reader puts no manifest", PUT, 401, "UNAUTHORIZED", document(), OCI, who="reader"),
    Row(18, "a writer deletes no tag", "DELETE {n}/manifests/v1", 401, "UNAUTHORIZED", who="writer"),
    Row(18, "a writer deletes no blob", f"DELETE {{n}}/blobs/{DIGEST}", 401, "UNAUTHORIZED", who="writer"),
    Row(18, "a writer pushes", PUT, 201, body=document(), send=OCI, who="writer"),
    Row(19, "another organisation", "GET {n}/manifests/v1", 401, "UNAUTHORIZED", who="stranger"),
]
ROWS = [*ERRORS, *NAMES, *TAGS, *PATHS, *PULLS, *RANGES, *MANIFESTS, *MORE, *SIGNED_OUT]


@pytest.fixture(scope="module")
def clients(server: Server) -> dict[str, Client]:
    """Clients by role, for a repository that holds IMAGE as v1, and BLOB."""
    repo = admin(server).new_repo()
    repo.push(IMAGE, "v1")
    repo.push_blob(BLOB)
    everyone: dict[str, Client] = {"nobody": Repo(server.port, None, repo.name), "admin": repo}
    for role in ("reader", "writer"):
        everyone[role] = member(server, role).at(repo.name)
    everyone["stranger"] = stranger(server).at(repo.name)
    return everyone


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_scenario(row: Row, clients: dict[str, Client]) -> None:
    """Each row gets the status, error code, headers and bytes that it expects."""
    repo = clients["admin"]
    assert isinstance(repo, Repo)
    method, _, path = row.request.partition(" ")
    answer = clients[row.who].send(method, path.replace("{n}", f"/v2/{repo.name}"), row.body, row.send)
    assert answer.status == row.status, answer.body
    for name, value in row.expect.items():
        assert answer.header(name) == value
    if row.content is not None:
        assert answer.body == row.content
    assert answer.header("Docker-Distribution-Api-Version") == "registry/2.0"
    assert answer.headers["Content-Encoding"] is None
    if row.status == 405:
        assert method not in answer.header("Allow").split(", ")
    if row.status >= 400 and method != "HEAD":
        assert answer.header("Content-Type") == "application/json"
        assert answer.code == row.code
        assert answer.message
        assert answer.json()["errors"][0]["detail"]["request_id"] == answer.header("X-Request-Id")
    if row.status == 201:
        assert answer.header("Docker-Content-Digest").startswith("sha")
