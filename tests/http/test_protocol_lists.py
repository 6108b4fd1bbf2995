"""protocol.md 47 to 51: tags, referrers and the catalogue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from support.wire_client import (
    CONFIG,
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Answer,
    Client,
    Image,
    Person,
    Repo,
    bearer,
    descriptor,
    dumps,
    image,
    member,
    sha256,
    stranger,
)

if TYPE_CHECKING:
    from support.server import Server

TAGS = ["0.1", "A", "B", "Z", "_x", "a", "a-b", "a.b", "b", "latest", "v1", "v1.0", "v10", "v2", "z"]
"""In the order of their bytes."""


@pytest.fixture
def repo(ann: Person) -> Repo:
    """A new repository."""
    return ann.new_repo()


@pytest.fixture(scope="module")
def tagged(ann: Person) -> Repo:
    """A repository with TAGS, pushed in another order."""
    made = ann.new_repo()
    made.push(image(), *sorted(TAGS, key=lambda tag: sha256(tag.encode())))
    return made


def follow(client: Client, path: str, key: str) -> list[list[str]]:
    """The pages of a list, by its Link."""
    pages = []
    while True:
        answer = client.get(path)
        assert answer.status == 200, answer.body
        pages.append(answer.json()[key])
        link = answer.headers["Link"]
        if link is None:
            return pages
        found = re.fullmatch(r'<(/v2/[^>]*)>; rel="next"', link)
        assert found is not None, link  # 5: relative
        assert found[1] != path, "the pages go round in a circle"
        path = found[1]


def test_all_tags(tagged: Repo) -> None:
    """47: without n the list has all tags, in the order of their bytes, with the name and without a Link."""
    answer = tagged.get(tagged.path("tags/list"))
    assert answer.json() == {"name": tagged.name, "tags": TAGS}
    assert answer.headers["Link"] is None
    assert answer.header("Content-Type") == "application/json"


def test_no_tags(repo: Repo) -> None:
    """47: a repository that holds nothing has a list, not null."""
    assert repo.get(repo.path("tags/list")).json() == {"name": repo.name, "tags": []}


@pytest.mark.parametrize("n", [1, 2, 5, 14])
def test_pages_of_tags(tagged: Repo, n: int) -> None:
    """47: pages of n by the Link, each tag once, the last page shorter and without a Link."""
    pages = follow(tagged, tagged.path(f"tags/list?n={n}"), "tags")
    assert [len(page) for page in pages[:-1]] == [n] * (len(pages) - 1)
    assert [tag for page in pages for tag in page] == TAGS


@pytest.mark.parametrize("n", [15, 16, 10_000, 10**12])
def test_a_page_that_holds_all(tagged: Repo, n: int) -> None:
    """47: an n as large as the list or larger, and one that is clamped, gives all and no Link."""
    assert follow(tagged, tagged.path(f"tags/list?n={n}"), "tags") == [TAGS]


def test_a_page_of_nothing(tagged: Repo) -> None:
    """47: n=0 gives an empty page without a Link."""
    answer = tagged.get(tagged.path("tags/list?n=0"))
    assert (answer.json()["tags"], answer.headers["Link"]) == ([], None)


@pytest.mark.parametrize("last", ["", "0", "A", "a", "a-", "v1", "v1.0", "v3", "z", "zz", "~", "ä"])
def test_last_is_exclusive(tagged: Repo, last: str) -> None:
    """47: a page begins after ``last``, whether a tag of that name exists or not."""
    found = tagged.get(tagged.path(f"tags/list?{urlencode({'last': last})}")).json()["tags"]
    assert found == [tag for tag in TAGS if tag.encode() > last.encode()]


def test_names_that_begin_alike(ann: Person) -> None:
    """47: repositories whose names are the beginning of one another keep their tags apart."""
    names = [ann.create(f"alike{rest}") for rest in ("", "/a", "/a/b", "-a")]
    for name in names:
        ann.repo(name).push(image(), f"of{name.removeprefix('alike').replace('/', '-') or '-'}")
    for name in names:
        repo = ann.repo(name)
        tags = repo.get(repo.path("tags/list")).json()["tags"]
        assert tags == [f"of{name.removeprefix('alike').replace('/', '-') or '-'}"]


def artifact(repo: Repo, subject: Image, kind: str | None = None, **more: object) -> Image:
    """Push something that refers to an image."""
    body = b"signature of " + subject.digest.encode() + str(more).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", "application/vnd.test.config"),
        "layers": [descriptor(body, "text/plain")],
        "subject": descriptor(subject.manifest, OCI_MANIFEST),
        **({"artifactType": kind} if kind else {}),
        **more,
    }
    made = Image(dumps(document), OCI_MANIFEST, (b"{}", body))
    repo.push(made)
    return made


def referrers(repo: Repo, digest: str, *kinds: str) -> tuple[Answer, list[dict[str, Any]]]:
    """Return the response, and the entries of the index in it."""
    query = urlencode([("artifactType", kind) for kind in kinds])
    answer = repo.get(repo.path(f"referrers/{digest}?{query}"))
    assert (answer.status, answer.header("Content-Type")) == (200, OCI_INDEX)
    document = answer.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    return answer, document["manifests"]


def test_referrers(repo: Repo) -> None:
    """48, 49: descriptors with artifactType (or the config's type) and annotations; none before there are any."""
    subject = image()
    assert referrers(repo, subject.digest)[1] == []
    first = artifact(repo, subject, "application/vnd.test.sbom", annotations={"a": "b"})
    second = artifact(repo, subject)
    repo.push(subject, "v1")
    _, found = referrers(repo, subject.digest)
    assert found == [
        descriptor(first.manifest, OCI_MANIFEST, artifactType="application/vnd.test.sbom", annotations={"a": "b"}),
        descriptor(second.manifest, OCI_MANIFEST, artifactType="application/vnd.test.config"),
    ]


def test_referrers_that_are_indexes(repo: Repo) -> None:
    """49: an index without artifactType has none in its descriptor."""
    subject = image()
    plain = dumps({"schemaVersion": 2, "manifests": [], "subject": descriptor(subject.manifest, OCI_MANIFEST)})
    answer = repo.put(sha256(plain), plain, OCI_INDEX)
    assert answer.header("OCI-Subject") == subject.digest
    assert referrers(repo, subject.digest)[1] == [descriptor(plain, OCI_INDEX)]


def test_referrers_filtered(repo: Repo) -> None:
    """49: the response says that the filter was applied; if the filter is repeated, either type matches."""
    subject = image()
    made = {kind: artifact(repo, subject, f"application/vnd.{kind}") for kind in ("a", "b", "c")}
    for kinds in (["a"], ["b", "c"], ["a", "absent"], ["absent"]):
        answer, found = referrers(repo, subject.digest, *(f"application/vnd.{kind}" for kind in kinds))
        assert answer.header("OCI-Filters-Applied") == "artifactType"
        assert [item["digest"] for item in found] == [made[kind].digest for kind in kinds if kind in made]
    assert referrers(repo, subject.digest)[0].headers["OCI-Filters-Applied"] is None


def test_referrers_that_are_deleted(repo: Repo) -> None:
    """46, 48: a deleted referrer is not listed; the subject may be deleted before it."""
    subject = image()
    repo.push(subject, "v1")
    made = artifact(repo, subject)
    assert repo.delete(f"manifests/{subject.digest}").status == 202
    assert [item["digest"] for item in referrers(repo, subject.digest)[1]] == [made.digest]
    assert repo.delete(f"manifests/{made.digest}").status == 202
    assert referrers(repo, subject.digest)[1] == []


def test_the_fallback_tag(repo: Repo) -> None:
    """50: entries of an index under sha256-<hex> are listed too, each once."""
    subject = image()
    repo.push(subject)
    both = artifact(repo, subject, "application/vnd.new")
    old = image("pushed by an old client")
    repo.push(old)
    entries = [
        descriptor(old.manifest, OCI_MANIFEST, artifactType="application/vnd.old"),
        descriptor(both.manifest, OCI_MANIFEST, artifactType="application/vnd.new"),
    ]
    fallback = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    assert repo.put(subject.digest.replace(":", "-"), fallback, OCI_INDEX).status == 201
    assert {item["digest"] for item in referrers(repo, subject.digest)[1]} == {old.digest, both.digest}
    assert len(referrers(repo, subject.digest)[1]) == 2
    assert [item["digest"] for item in referrers(repo, subject.digest, "application/vnd.old")[1]] == [old.digest]


def test_a_fallback_tag_that_is_an_image(repo: Repo) -> None:
    """50: if an image has such a tag, it adds no referrers and causes no error."""
    subject, odd = image(), image()
    repo.push(odd, subject.digest.replace(":", "-"))
    assert referrers(repo, subject.digest)[1] == []


def test_referrers_are_never_404(ann: Person) -> None:
    """48: a member gets an empty index from a repository that does not exist."""
    missing = ann.repo("never-made")
    assert referrers(missing, EMPTY)[1] == []


def test_pages_of_referrers_by_bytes(repo: Repo) -> None:
    """42, 48, 49: a page ends once its annotations reach 4 MiB; its Link leads to the rest, nothing twice."""
    subject = image()
    repo.push(subject)
    pushed = {}
    for number in range(4):
        annotations = {"text": ("\u00e9" + "x" * 9) * 150_000, "half": "\ud800", "number": str(number)}
        entry = {"subject": descriptor(subject.manifest, OCI_MANIFEST), "annotations": annotations}
        body = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], **entry})
        assert repo.put(sha256(body), body, OCI_INDEX).status == 201
        pushed[sha256(body)] = annotations
    base = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    small = dumps({**base, "subject": descriptor(subject.manifest)})
    assert repo.put(sha256(small), small, OCI_INDEX).status == 201
    path = repo.path(f"referrers/{subject.digest}")
    assert len(repo.get(path).body) < 5 << 20
    pages = follow(repo, path, "manifests")
    found: list[Any] = [item for page in pages for item in page]
    assert {item["digest"]: item.get("annotations") for item in found} == {**pushed, sha256(small): None}
    assert (len(found), len(pages) > 1) == (5, True)


def test_referrers_are_no_commits(ann: Person, repo: Repo) -> None:
    """Signatures and SBOMs are attached to commits and do not show up as such unless they are tagged."""
    subject = image()
    repo.push(subject, "v1")
    artifact(repo, subject)
    found = ann.commits(repo.name.partition("/")[2])
    assert [item["commit"] for item in found["items"]] == [subject.digest]


def test_an_index_is_one_commit(ann: Person, repo: Repo) -> None:
    """An image of several platforms is one commit with its platforms; its children are no commits."""
    children = [image("of amd64"), image("of arm64")]
    for child in children:
        repo.push(child)
    entries = [
        descriptor(child.manifest, OCI_MANIFEST, platform={"os": "linux", "architecture": arch})
        for child, arch in zip(children, ("amd64", "arm64"), strict=True)
    ]
    body = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    assert repo.put("v1", body, OCI_INDEX).status == 201
    (found,) = ann.commits(repo.name.partition("/")[2])["items"]
    assert (found["commit"], found["platforms"]) == (sha256(body), ["linux/amd64", "linux/arm64"])
    whole = len(body) + sum(len(part) for child in children for part in (child.manifest, *child.blobs))
    assert found["size"] == whole


def test_the_platform_of_an_image(ann: Person, repo: Repo) -> None:
    """A commit has the platform of its config."""
    config = dumps({"os": "linux", "architecture": "arm64", "variant": "v8"})
    body = dumps({"schemaVersion": 2, "config": descriptor(config, CONFIG), "layers": []})
    repo.push(Image(body, OCI_MANIFEST, (config,)), "v1")
    (found,) = ann.commits(repo.name.partition("/")[2])["items"]
    assert found["platforms"] == ["linux/arm64/v8"]


def catalogue(person: Person) -> Client:
    """A client with a token for the catalogue."""
    return bearer(person.port, person.registry_token("registry:catalog:*"))


def test_the_catalogue_is_the_callers_own(server: Server, ann: Person) -> None:
    """51: the repositories of the caller's organisations, in order, and none of anyone else's."""
    made = [f"{ann.org}/{ann.create()}" for _ in range(3)]
    other = stranger(server)
    foreign = f"{other.org}/{other.create(access='public')}"
    found = catalogue(member(server, "reader")).get("/v2/_catalog").json()["repositories"]
    assert set(made) <= set(found)
    assert foreign not in found
    assert all(name.startswith(f"{ann.org}/") for name in found)
    assert found == sorted(found)
    assert foreign in catalogue(other).get("/v2/_catalog").json()["repositories"]


def test_pages_of_the_catalogue(server: Server) -> None:
    """51: pages by the Link hold each repository once; n=0 is empty; a large n is clamped."""
    other = stranger(server)
    for _ in range(3):
        other.create()
    client = catalogue(other)
    everything = client.get("/v2/_catalog").json()["repositories"]
    pages = follow(client, "/v2/_catalog?n=2", "repositories")
    assert [name for page in pages for name in page] == everything
    assert client.get("/v2/_catalog?n=0").json() == {"repositories": []}
    assert client.get(f"/v2/_catalog?n={10**15}").json() == {"repositories": everything}
    assert client.get("/v2/_catalog?n=x").code == "PAGINATION_NUMBER_INVALID"
