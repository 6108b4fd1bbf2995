"""docs/api.md: repositories and commits, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from support.wire_client import Person, image, member, stranger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server


@pytest.fixture(scope="module")
def eve(server: Server) -> Person:
    """The admin of another organisation, to whose lists no other test adds."""
    return stranger(server)


def pages(person: Person, path: str, **query: object) -> Iterator[dict[str, Any]]:
    """Yield the pages of a list until its end."""
    cursor: str | None = ""
    seen: set[str] = set()
    while cursor is not None:
        assert cursor not in seen, "the pages go round in a circle"
        seen.add(cursor)
        answer = person.api.get(f"{person.base}/{path}?{urlencode({**query, 'cursor': cursor})}")
        assert answer.status == 200, answer.body
        page = answer.json()
        yield page
        cursor = page["next"]


def names(person: Person, **query: object) -> list[str]:
    """The names of all repositories by pages."""
    return [item["name"] for page in pages(person, "repositories", **query) for item in page["items"]]


def test_a_repository_is_made(server: Server) -> None:
    """POST …/repositories: 201 with the item, which GET …/repository and the list then show."""
    writer = member(server, "writer")
    wanted = {"name": "made/by.a_writer", "description": " for the paper ", "access": "private"}
    answer = writer.api.json("POST", f"{writer.base}/repositories", wanted)
    assert answer.status == 201
    item = answer.json()
    assert item.pop("created_at").endswith("Z")
    assert item == {
        "name": "made/by.a_writer",
        "path": f"{server.registry}/acme/made/by.a_writer",
        "description": "for the paper",
        "access": "private",
        "sparse_indexes": "deny",
        "tags": 0,
        "commits": 0,
        "size": 0,
        "created_by": writer.email,
        "pushed_at": None,
    }
    shown = member(server, "reader").repository("made/by.a_writer")
    assert {key: shown[key] for key in item} == item
    assert "made/by.a_writer" in names(writer)


@pytest.mark.parametrize(
    "name",
    [
        "Upper",
        "/start",
        "end/",
        "a//b",
        "a b",
        "",
        "-a",
        "a-",
        "a..b",
        "ä",
        "a/../b",
        "a" * 256,
        "a:b",
        "a@b",
        "\0",
        "a\n",
    ],
)
def test_names_that_are_none(ann: Person, name: str) -> None:
    """400 NAME_INVALID with a message that says what would be right; nothing is created."""
    before = names(ann)
    answer = ann.api.json("POST", f"{ann.base}/repositories", {"name": name, "description": "x"})
    assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert names(ann) == before


def test_a_name_that_docker_takes_no_more(ann: Person) -> None:
    """Host, organisation and name have 255 characters together at most; one more is refused."""
    longest = 255 - len(f"127.0.0.1:{ann.port}/{ann.org}/")
    answer = ann.api.json("POST", f"{ann.base}/repositories", {"name": "n" * (longest + 1), "description": "x"})
    assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert ann.create("n" * longest)


def test_a_name_that_would_be_right(ann: Person) -> None:
    """The message about an invalid name gives a valid one."""
    answer = ann.api.json("POST", f"{ann.base}/repositories", {"name": "My Image", "description": "x"})
    assert "'my-image'" in answer.message


@pytest.mark.parametrize("description", ["", "   ", "\n", "d" * 1001])
def test_descriptions_that_are_none(ann: Person, description: str) -> None:
    """A description that is empty or longer than 1000 characters is refused, and nothing changes."""
    name = ann.create()
    for method, path, body in (
        ("POST", "repositories", {"name": "no-description", "description": description}),
        ("PATCH", f"repository?name={name}", {"description": description}),
    ):
        answer = ann.api.json(method, f"{ann.base}/{path}", body)
        assert (answer.status, answer.code) == (400, "BAD_REQUEST")
        assert "description" in answer.message
    assert ann.repository(name)["description"] == "x"
    assert "no-description" not in names(ann)


BODIES: list[Any] = [
    {},
    {"name": "x"},
    {"description": "x"},
    {"name": "x", "description": "x", "of_the_future": 1},
    {"name": 1, "description": "x"},
    {"name": "x", "description": None},
    {"name": "x", "description": "x", "access": "secret"},
    {"name": ["x"], "description": "x"},
    [],
    "x",
    None,
]


@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_are_none(ann: Person, body: object) -> None:
    """400 BAD_REQUEST for fields that are missing, unknown or of another type; nothing is made."""
    before = names(ann)
    answer = ann.api.json("POST", f"{ann.base}/repositories", body)
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert names(ann) == before


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"name":"x","description":"\xff"}', b"[" * 60_000])
def test_bodies_that_are_no_json(ann: Person, body: bytes) -> None:
    """400 BAD_REQUEST for a body that is not JSON in UTF-8."""
    answer = ann.api.send("POST", f"{ann.base}/repositories", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type(ann: Person, content_type: str) -> None:
    """400 BAD_REQUEST unless the Content-Type is JSON, which a form on another site cannot send."""
    body = b'{"name":"by-a-form","description":"x"}'
    answer = ann.api.send("POST", f"{ann.base}/repositories", body, {"Content-Type": content_type})
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert "by-a-form" not in names(ann)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(ann: Person, chunked: bool) -> None:  # noqa: FBT001
    """413 SIZE_INVALID over 64 KiB, whether the length is announced or not."""
    body = b'{"name":"large","description":"' + b"x" * (1 << 16) + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = ann.api.send("POST", f"{ann.base}/repositories", iter([body]) if chunked else body, headers)
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")


def test_a_name_that_is_there(ann: Person) -> None:
    """409 NAME_EXISTS, and the existing repository does not change."""
    name = ann.create()
    answer = ann.api.json("POST", f"{ann.base}/repositories", {"name": name, "description": "another"})
    assert (answer.status, answer.code) == (409, "NAME_EXISTS")
    assert ann.repository(name)["description"] == "x"


def test_roles(server: Server, ann: Person) -> None:
    """A reader creates and changes nothing, a writer may change the description, an admin also the access."""
    name = ann.create()
    reader, writer = member(server, "reader"), member(server, "writer")
    path = f"{ann.base}/repository?name={name}"
    for person, method, where, body in (
        (reader, "POST", f"{ann.base}/repositories", {"name": "no", "description": "x"}),
        (reader, "PATCH", path, {"description": "by a reader"}),
        (reader, "PATCH", path, {"access": "private"}),
        (writer, "PATCH", path, {"access": "public"}),
        (writer, "PATCH", path, {"access": "public", "description": "by a writer"}),
        (writer, "POST", f"{ann.base}/repositories", {"name": "no", "description": "x", "access": "public"}),
    ):
        answer = person.api.json(method, where, body)
        assert (answer.status, answer.code) == (403, "DENIED")
    shown = ann.repository(name)
    assert (shown["description"], shown["access"]) == ("x", "private")
    assert "no" not in names(ann)
    assert writer.api.json("PATCH", path, {"description": "by a writer"}).json()["description"] == "by a writer"
    assert ann.api.json("PATCH", path, {"access": "public"}).json()["access"] == "public"


def test_a_change(ann: Person) -> None:
    """PATCH …/repository: what is given changes, the rest stays, and GET shows it."""
    name = ann.create()
    path = f"{ann.base}/repository?name={name}"
    for body in ({"description": "new"}, {"sparse_indexes": "allow"}, {"access": "public"}, {"access": None}):
        answer = ann.api.json("PATCH", path, body)
        if body == {"access": None}:
            assert (answer.status, answer.code) == (400, "BAD_REQUEST")
            continue
        assert answer.status == 200
        assert answer.json() == ann.repository(name)
    shown = ann.repository(name)
    assert (shown["description"], shown["sparse_indexes"], shown["access"]) == ("new", "allow", "public")
    for bad in ({}, {"name": "other"}, {"description": 1}, {"sparse_indexes": "maybe"}, {"access": "open"}):
        assert ann.api.json("PATCH", path, bad).code == "BAD_REQUEST"
    assert ann.repository(name) == shown


def test_what_is_not_there(ann: Person, eve: Person) -> None:
    """404 for a name or an organisation that does not exist or is not the caller's, 400 for an invalid name."""
    for rest, code, status in (
        ("repository?name=absent", "NAME_UNKNOWN", 404),
        ("commits?repository=absent", "NAME_UNKNOWN", 404),
        ("repository?name=Upper", "NAME_INVALID", 400),
        ("commits?repository=a//b", "NAME_INVALID", 400),
        ("repository", "BAD_REQUEST", 400),
        ("repository?name=", "BAD_REQUEST", 400),
        ("commits", "BAD_REQUEST", 400),
    ):
        answer = ann.api.get(f"{ann.base}/{rest}")
        assert (answer.status, answer.code) == (status, code)
    for org in (eve.org, "no-such-organisation"):
        for rest in ("repositories", "repository?name=x", "commits?repository=x", "members"):
            answer = ann.api.get(f"/api/v1/organisations/{org}/{rest}")
            assert (answer.status, answer.code) == (404, "ORGANISATION_UNKNOWN")
        answer = ann.api.json("POST", f"/api/v1/organisations/{org}/repositories", {"name": "x", "description": "x"})
        assert answer.code == "ORGANISATION_UNKNOWN"
    assert ann.api.get("/api/v1/organisations/Upper/repositories").code == "NAME_INVALID"


def test_pages_of_repositories(eve: Person) -> None:
    """Pages of any limit, in both orders, hold each repository once; total counts all."""
    made = [eve.create() for _ in range(7)]
    everything = names(eve, limit=1000)
    assert everything[:7] == made[::-1]
    for limit in (1, 3, len(everything)):
        assert names(eve, limit=limit) == everything
        assert names(eve, limit=limit, order="oldest") == everything[::-1]
    assert {page["total"] for page in pages(eve, "repositories", limit=3)} == {len(everything)}


def test_a_page_while_the_list_grows(eve: Person) -> None:
    """A cursor continues where its page ended, whatever was created since: none twice, none left out."""
    before = names(eve, limit=1000)
    found = []
    for page in pages(eve, "repositories", limit=2):
        found += [item["name"] for item in page["items"]]
        eve.create()
        if len(found) >= len(before):
            break
    assert found[: len(before)] == before


def test_search(eve: Person) -> None:
    """Search finds part of a name or description in any case; %, _ and quotes are literal; total counts matches."""
    eve.create("needle-one", description="a Thing")
    eve.create("other-two", description="holds a NEEDLE, 100%_sure 'quoted'")
    for search, found in (
        ("needle", ["other-two", "needle-one"]),
        ("NEEDLE", ["other-two", "needle-one"]),
        ("thing", ["needle-one"]),
        ("100%_s", ["other-two"]),
        ("'quoted'", ["other-two"]),
        ("1__%", []),
        ("absent-altogether", []),
    ):
        assert names(eve, search=search) == found
        assert names(eve, search=search, limit=1) == found
        assert {page["total"] for page in pages(eve, "repositories", search=search)} == {len(found)}


def test_sorted_by_the_last_push(eve: Person) -> None:
    """sort=pushed sorts by the last push, and a repository without a push by its creation."""
    first, second, third = eve.create(), eve.create(), eve.create()
    eve.repo(first).push(image(), "v1")
    assert names(eve, sort="pushed")[:3] == [first, third, second]
    eve.repo(second).push(image(), "v1")
    assert names(eve, sort="pushed", limit=1)[:3] == [second, first, third]
    assert names(eve, sort="pushed", order="oldest", limit=2)[-3:] == [third, first, second]
    assert names(eve)[:3] == [third, second, first]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "order=up",
        "sort=size",
        "cursor=!!!",
        "cursor=YQ",
        "cursor=" + "A" * 700,
        "order=",
        "sort=",
    ],
)
def test_queries_that_are_none(ann: Person, query: str) -> None:
    """400 BAD_REQUEST that names the parameter."""
    answer = ann.api.get(f"{ann.base}/repositories?{query}")
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert query.partition("=")[0] in answer.message


def test_the_total_of_a_tag_after_a_deletion(ann: Person) -> None:
    """The total on a page of a tag's commits is right, also after a manifest was deleted with its commits."""
    repo = ann.new_repo()
    name = repo.name.partition("/")[2]
    first, second = image(), image()
    for made in (first, second, first):
        repo.push(made, "v1")
    repo.push(second, "v2")
    assert ann.commits(name, tag="v1")["total"] == 3
    assert repo.delete(f"manifests/{second.digest}").status == 202
    assert ann.commits(name, tag="v1")["total"] == len(ann.commits(name, tag="v1")["items"]) == 2
    gone = ann.api.get(f"{ann.base}/commits?repository={name}&tag=v2")
    assert (gone.status, gone.code) == (404, "TAG_UNKNOWN")
    repo.push(second, "v2")
    assert ann.commits(name, tag="v2")["total"] == 1


def test_totals_after_pushes(ann: Person) -> None:
    """Tags, commits, size and the last push are up to date on the next request."""
    name = ann.create()
    repo = ann.repo(name)
    first, second = image(), image()
    repo.push(first, "v1", "v2")
    repo.push(second, "v1")
    shown = ann.repository(name)
    size = sum(len(part) for made in (first, second) for part in (made.manifest, *made.blobs))
    assert (shown["tags"], shown["commits"], shown["size"]) == (2, 3, size)
    assert shown["pushed_at"] >= shown["created_at"]
    repo.delete("manifests/v2")
    repo.delete(f"manifests/{second.digest}")
    shown = ann.repository(name)
    assert (shown["tags"], shown["commits"]) == (0, 2)
    (listed,) = (item for page in pages(ann, "repositories") for item in page["items"] if item["name"] == name)
    assert listed == shown


def test_commits(server: Server) -> None:
    """Newest first; the newest of a tag is active; a rollback is a commit, and the same push again is not."""
    writer = member(server, "writer")
    name = writer.create()
    repo = writer.repo(name)
    first, second = image(), image()
    for made, tag in ((first, "v1"), (second, "v1"), (first, "v1"), (first, "v1"), (first, "v2")):
        repo.push(made, tag)
    found = writer.commits(name)
    assert found["repository"] == f"{server.registry}/acme/{name}"
    assert (found["total"], found["next"]) == (4, None)
    assert [(item["tag"], item["commit"], item["status"]) for item in found["items"]] == [
        ("v2", first.digest, "active"),
        ("v1", first.digest, "active"),
        ("v1", second.digest, "inactive"),
        ("v1", first.digest, "inactive"),
    ]
    newest = found["items"][0]
    assert newest["path"] == f"{server.registry}/acme/{name}@{first.digest}"
    assert (newest["pushed_by"], newest["platforms"]) == (writer.email, ["linux/amd64"])
    assert newest["size"] == len(first.manifest) + sum(len(blob) for blob in first.blobs)
    assert newest["pushed_at"].endswith("Z")
    for item in found["items"]:
        assert repo.manifest(item["commit"]).status == 200


def test_pages_of_commits(ann: Person) -> None:
    """By pages, by tag, in both orders."""
    name = ann.create()
    repo = ann.repo(name)
    made = [image() for _ in range(6)]
    for number, item in enumerate(made):
        repo.push(item, f"t{number % 2}")
    everything = [item.digest for item in made]
    for limit in (1, 4, 6):
        for order, wanted in (("oldest", everything), ("newest", everything[::-1])):
            found = [
                item["commit"]
                for page in pages(ann, "commits", repository=name, limit=limit, order=order)
                for item in page["items"]
            ]
            assert found == wanted
    of_tag = list(pages(ann, "commits", repository=name, tag="t1", limit=2))
    assert [item["commit"] for page in of_tag for item in page["items"]] == everything[1::2][::-1]
    assert {page["total"] for page in of_tag} == {3}


def test_commits_of_what_is_no_tag(ann: Person) -> None:
    """TAG_UNKNOWN for a tag without pushes, TAG_INVALID for an invalid one; a deleted tag still has its commits."""
    name = ann.create()
    repo = ann.repo(name)
    repo.push(image(), "v1")
    for tag, status, code in (("absent", 404, "TAG_UNKNOWN"), ("-x", 400, "TAG_INVALID"), ("", 400, "TAG_INVALID")):
        answer = ann.api.get(f"{ann.base}/commits?repository={name}&tag={quote(tag)}")
        assert (answer.status, answer.code) == (status, code)
    repo.delete("manifests/v1")
    assert [item["status"] for item in ann.commits(name, tag="v1")["items"]] == ["inactive"]
