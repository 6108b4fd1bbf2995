"""security.md 12 to 14: input that is too large, too deep or ambiguous."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from support.wire_client import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Image,
    Person,
    Repo,
    descriptor,
    dumps,
    image,
    sha256,
)

CONFIG = b"{}"
ENTRY = json.dumps(descriptor(CONFIG))
MANIFEST = f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{ENTRY},"layers":[]}}'
INDEX = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}'


@pytest.fixture(scope="module")
def repo(ann: Person) -> Repo:
    """A repository with the blob that MANIFEST names."""
    made = ann.new_repo()
    made.push_blob(CONFIG)
    return made


def test_the_base_of_the_confusions(repo: Repo) -> None:
    """13: the unchanged documents are accepted, so it is the changes that the tests below see refused."""
    assert repo.put("m", MANIFEST.encode()).status == 201
    assert repo.put("i", INDEX.encode(), OCI_INDEX).status == 201


def changed(document: str, old: str, new: str) -> str:
    """Return the document with one change; fails if the change changes nothing."""
    assert old in document
    return document.replace(old, new, 1)


CONFUSIONS = {
    "mediaType is not Content-Type": (MANIFEST, DOCKER_MANIFEST),
    "an image as an index": (MANIFEST, OCI_INDEX),
    "an index as an image": (INDEX, OCI_MANIFEST),
    "an index of another kind": (INDEX, DOCKER_LIST),
    "layers and manifests": (changed(MANIFEST, '"layers":[]', '"layers":[],"manifests":[]'), OCI_MANIFEST),
    "layers and fsLayers": (changed(MANIFEST, '"layers":[]', '"layers":[],"fsLayers":[]'), OCI_MANIFEST),
    "manifests and layers": (changed(INDEX, '"manifests":[]', '"manifests":[],"layers":[]'), OCI_INDEX),
    "manifests and config": (changed(INDEX, '"manifests":[]', f'"manifests":[],"config":{ENTRY}'), OCI_INDEX),
    "manifests and fsLayers": (changed(INDEX, '"manifests":[]', '"manifests":[],"fsLayers":[]'), OCI_INDEX),
    "manifests that are null beside": (changed(MANIFEST, '"layers":[]', '"layers":[],"manifests":null'), OCI_MANIFEST),
    "a key twice": (changed(MANIFEST, '"layers":[]', '"layers":[],"layers":[]'), OCI_MANIFEST),
    "a key twice, escaped": (changed(MANIFEST, '"layers":[]', '"layers":[],"l\\u0061yers":[]'), OCI_MANIFEST),
    "a key twice inside": (changed(MANIFEST, '"size"', '"size": 1, "size"'), OCI_MANIFEST),
    "a key twice in what is unknown": (changed(MANIFEST, '"layers":[]', '"layers":[],"x":{"y":1,"y":2}'), OCI_MANIFEST),
    "another case": (changed(MANIFEST, '"layers":[]', '"layers":[],"Layers":[]'), OCI_MANIFEST),
    "another case alone": (changed(MANIFEST, '"layers"', '"LAYERS"'), OCI_MANIFEST),
    "another case of what must not be": (changed(MANIFEST, '"layers":[]', '"layers":[],"Manifests":[]'), OCI_MANIFEST),
    "a long s": (changed(MANIFEST, '"layers":[]', '"layers":[],"layer\u017f":[]'), OCI_MANIFEST),
    "a long s, escaped": (changed(MANIFEST, '"layers":[]', '"layers":[],"layer\\u017f":[]'), OCI_MANIFEST),
    "an index's long s": (changed(INDEX, '"manifests":[]', '"manifests":[],"manife\u017ft\u017f":[]'), OCI_INDEX),
    "a long s inside": (changed(MANIFEST, '"digest"', f'"dige\u017ft": "{sha256(b"x")}", "digest"'), OCI_MANIFEST),
    "a half of a character as a key": (changed(MANIFEST, '"layers":[]', '"layers":[],"\\ud800":1'), OCI_MANIFEST),
    "manifests and history": (changed(INDEX, '"manifests":[]', '"manifests":[],"history":[]'), OCI_INDEX),
    "another case inside": (changed(MANIFEST, '"digest"', f'"Digest": "{sha256(b"x")}", "digest"'), OCI_MANIFEST),
    "mediaType in another case": (changed(INDEX, '"mediaType"', '"MediaType"'), OCI_INDEX),
    "mediaType is a number": (changed(INDEX, f'"{OCI_INDEX}"', "1"), OCI_INDEX),
    "manifests is an object": (changed(INDEX, "[]", "{}"), OCI_INDEX),
    "manifests holds null": (changed(INDEX, "[]", "[null]"), OCI_INDEX),
    "manifests holds text": (changed(INDEX, "[]", '["a"]'), OCI_INDEX),
    "layers left out": (changed(MANIFEST, ',"layers":[]', ""), OCI_MANIFEST),
    "config is text": (changed(MANIFEST, f'"config":{ENTRY}', '"config":"x"'), OCI_MANIFEST),
    "config left out": (changed(MANIFEST, f'"config":{ENTRY},', ""), OCI_MANIFEST),
    "size is text": (changed(MANIFEST, '"size": 2', '"size": "2"'), OCI_MANIFEST),
    "size is a fraction": (changed(MANIFEST, '"size": 2', '"size": 2.5'), OCI_MANIFEST),
    "size is below 0": (changed(MANIFEST, '"size": 2', '"size": -2'), OCI_MANIFEST),
    "size is true": (changed(MANIFEST, '"size": 2', '"size": true'), OCI_MANIFEST),
    "size is 2.0": (changed(MANIFEST, '"size": 2', '"size": 2.0'), OCI_MANIFEST),
    "size is 2e0": (changed(MANIFEST, '"size": 2', '"size": 2e0'), OCI_MANIFEST),
    "schemaVersion is 2.0": (changed(MANIFEST, '"schemaVersion":2', '"schemaVersion":2.0'), OCI_MANIFEST),
    "size is huge": (changed(MANIFEST, '"size": 2', '"size": 99999999999999999999'), OCI_MANIFEST),
    "size of 5000 digits": (changed(MANIFEST, '"size": 2', '"size": ' + "9" * 5000), OCI_MANIFEST),
    "subject is text": (changed(INDEX, '"manifests"', '"subject":"x","manifests"'), OCI_INDEX),
    "annotations is a list": (changed(INDEX, '"manifests"', '"annotations":[],"manifests"'), OCI_INDEX),
    "annotations hold a number": (changed(INDEX, '"manifests"', '"annotations":{"a":1},"manifests"'), OCI_INDEX),
    "annotations hold a list, inside": (changed(MANIFEST, '"size"', '"annotations":{"a":[]},"size"'), OCI_MANIFEST),
    "urls is text": (changed(MANIFEST, '"size"', '"urls":"http://x","size"'), OCI_MANIFEST),
    "urls hold a number": (changed(MANIFEST, '"size"', '"urls":[1],"size"'), OCI_MANIFEST),
    "data is no base64": (changed(MANIFEST, '"size"', '"data":"a","size"'), OCI_MANIFEST),
    "data is a list": (changed(MANIFEST, '"size"', '"data":[1],"size"'), OCI_MANIFEST),
    "platform is text": (changed(MANIFEST, '"size"', '"platform":"linux","size"'), OCI_MANIFEST),
    "platform's os is a number": (changed(MANIFEST, '"size"', '"platform":{"os":1},"size"'), OCI_MANIFEST),
    "platform's os in another case": (changed(MANIFEST, '"size"', '"platform":{"O\u017f":"x"},"size"'), OCI_MANIFEST),
    "artifactType is a number": (changed(INDEX, '"manifests"', '"artifactType":1,"manifests"'), OCI_INDEX),
    "half a character as a type": (changed(INDEX, '"manifests"', '"artifactType":"\\ud800","manifests"'), OCI_INDEX),
    "half a character as another": (changed(MANIFEST, '{"mediaType": "', '{"mediaType": "\\ud800'), OCI_MANIFEST),
    "NaN": (changed(INDEX, '"manifests"', '"x":NaN,"manifests"'), OCI_INDEX),
    "a list": ("[]", OCI_INDEX),
    "text": ('"x"', OCI_MANIFEST),
    "null": ("null", OCI_MANIFEST),
    "nothing": ("", OCI_MANIFEST),
    "two documents": (INDEX + INDEX, OCI_INDEX),
    "a byte order mark": ("\ufeff" + INDEX, OCI_INDEX),
    "deep": ("[" * 200_000, OCI_MANIFEST),
    "deep inside": (changed(INDEX, "[]", "[" * 100_000 + "]" * 100_000), OCI_INDEX),
    "deep objects": ('{"a":' * 50_000 + "1" + "}" * 50_000, OCI_INDEX),
    "digest in upper case": (changed(MANIFEST, sha256(CONFIG), sha256(CONFIG).upper()), OCI_MANIFEST),
    "digest too short": (changed(MANIFEST, sha256(CONFIG), sha256(CONFIG)[:-1]), OCI_MANIFEST),
    "digest is a path": (changed(MANIFEST, sha256(CONFIG), "sha256:../../../../etc/passwd"), OCI_MANIFEST),
}  # fmt: skip


@pytest.mark.parametrize("confusion", CONFUSIONS)
def test_type_confusion(repo: Repo, confusion: str) -> None:
    """13 (CVE-2021-41190), 12 (RecursionError), 14: 400 MANIFEST_INVALID, and the tag is not made."""
    body, content_type = CONFUSIONS[confusion]
    answer = repo.put("confused", body.encode(), content_type)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert repo.manifest("confused").status == 404


@pytest.mark.parametrize("body", [b"\xff\xfe{\x00}\x00", b'{"a":"\xff"}', b"\x1f\x8b\x08"])
def test_bytes_that_are_no_text(repo: Repo, body: bytes) -> None:
    """13: a manifest in another encoding than UTF-8 is refused."""
    assert repo.put("confused", body, OCI_INDEX).code == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    "config", [b"[" * 100_000, b"\xff\xfe", b"", b'{"os":1}', b'{"os":"a b","architecture":"c"}', b"[]"]
)
def test_configs_that_are_none(ann: Person, repo: Repo, config: bytes) -> None:
    """12: a config of any bytes is kept; if it names no platform, the commit has none."""
    kind = "application/vnd.oci.image.config.v1+json"
    body = dumps({"schemaVersion": 2, "config": descriptor(config, kind), "layers": []})
    repo.push(Image(body, OCI_MANIFEST, (config,)), "config")
    newest = ann.commits(repo.name.partition("/")[2], limit=1)["items"][0]
    assert (newest["commit"], newest["platforms"]) == (sha256(body), [])


def test_annotations_of_any_text(repo: Repo) -> None:
    """12: annotations come back in the referrers as they are, with NUL and lone surrogates."""
    subject = image()
    words = json.dumps({"a": "é\0", "half": "\ud800"})
    body = changed(
        INDEX,
        '"manifests"',
        f'"annotations":{words},"subject":{json.dumps(descriptor(subject.manifest, OCI_MANIFEST))},"manifests"',
    )
    assert repo.put("annotated", body.encode(), OCI_INDEX).status == 201
    (found,) = repo.get(repo.path(f"referrers/{subject.digest}")).json()["manifests"]
    assert found["annotations"] == json.loads(words)


@pytest.mark.parametrize("count", [101, 201, 1000])
def test_too_many_scopes(ann: Person, count: int) -> None:
    """12 (CVE-2017-11468): a hundred scopes at most, repeated or apart by spaces, by GET and by POST."""
    scopes = [("scope", f"r:{number}:p") for number in range(count)]
    packed = [("scope", " ".join(value for _, value in scopes))]
    form = [("grant_type", "password"), ("username", ann.email), ("password", ann.password)]
    for query in (scopes, packed):
        if len(urlencode(query)) < 8000:  # what a request line may hold
            assert ann.by_password.get(f"/token?{urlencode(query)}").code == "BAD_REQUEST"
        answer = ann.by_password.send("POST", "/token", urlencode([*form, *query]).encode())
        assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    allowed = urlencode(scopes[:100])
    assert ann.by_password.get(f"/token?{allowed}").status == 200


@pytest.mark.parametrize("n", ["10001", "99999999", "9" * 4400, "0" * 4400 + "1"])
def test_n_is_clamped(ann: Person, n: str) -> None:
    """12 (CVE-2023-2253): n may have any number of digits, and no memory is reserved for it."""
    repo = ann.new_repo()
    repo.push(image(), "v1")
    answer = repo.get(repo.path(f"tags/list?n={n}"))
    assert answer.status == 200
    assert set(answer.json()["tags"]) <= {"v1"}


def test_a_parameter_twice(ann: Person) -> None:
    """12: 400 for a parameter that is given twice, because one value would be ignored."""
    for path in ("repositories?limit=1&limit=2", "policy?limit=1&limit=1", "commits?repository=a&repository=b"):
        answer = ann.api.get(f"{ann.base}/{path}")
        assert (answer.status, answer.code) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "limit",
    [
        "0",
        "1001",
        "-1",
        "1e3",
        "x",
        "",
        "0000000019999",
        "9" * 4400,
        "000000001" + "0" * 4400,
        "\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_limit_is_bounded(ann: Person, limit: str) -> None:
    """12: a limit of the interface that is not 1 to 1000, however it is spelt, is 400."""
    for path in ("repositories?", "members?"):
        answer = ann.api.get(f"{ann.base}/{path}{urlencode({'limit': limit})}")
        assert (answer.status, answer.code) == (400, "BAD_REQUEST")


def test_large_heads_are_refused(repo: Repo) -> None:
    """12: a request line or a header that is too long is a 4xx with an error body."""
    for answer in (
        repo.get("/v2/" + "a" * 70_000),
        repo.get(repo.path("tags/list?last=" + "a" * 70_000)),
        repo.send("GET", "/v2/", headers={"X-Long": "a" * 70_000}),
    ):
        assert 400 <= answer.status < 500
        assert answer.code


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:..%2f..%2fpolly.db",
        "sha256:" + "g" * 64,
        "sha512:" + "a" * 64,
        "sha256:" + "A" * 64,
        "sha256:",
        ":",
        "sha256-" + "a" * 64,
    ],
)
def test_digests(repo: Repo, digest: str) -> None:
    """14: only a digest of exact length in lower case reaches a path of the storage."""
    for method, rest in (("GET", f"blobs/{digest}"), ("HEAD", f"blobs/{digest}"), ("GET", f"referrers/{digest}")):
        assert repo.send(method, repo.path(rest)).status in {400, 404}
    assert repo.send("POST", repo.path(f"blobs/uploads/?digest={digest}"), b"x").status == 400
    assert repo.send("POST", repo.path(f"blobs/uploads/?mount={digest}&from=acme/x")).status == 202
