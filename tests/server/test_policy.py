"""Policies while a server runs: what the preview names goes to the trash, and what something else needs stays."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from support import collecting
from support.server import polly_server
from support.wire_client import (
    OCI_INDEX,
    OCI_MANIFEST,
    Person,
    Repo,
    descriptor,
    dumps,
    image,
    sha256,
    stranger,
)

if TYPE_CHECKING:
    from support.server import Server

DAY = 86_400
NEWEST = {"keep": "rules", "newest": 1}


pytestmark = pytest.mark.server_options("--collect-seconds", "0")


def days_pass(server: Server, days: int) -> None:
    """Have every push and pull be so many days earlier, by a change of the rows.

    This is for tests in which a command or the server itself decides afterwards: their processes have their own clock.
    Where only the collector decides, ``collect_after`` collects by a clock that is ahead.
    """
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        past = days * DAY * 1_000_000
        connection.execute("UPDATE manifests SET pushed_at = pushed_at - ?", (past,))
        connection.execute("UPDATE commits SET pushed_at = pushed_at - ?", (past,))
        connection.execute("UPDATE manifest_pulls SET pulled_at = pulled_at - ?", (past,))


def settle(server: Server) -> None:
    """Have every worker write its pulls, which it does when it ends."""
    server.stop()
    server.start()


def collect(server: Server, *more: str) -> str:
    """Run the collector as a command; its output."""
    return polly_server("gc", "--data", str(server.data), *more)


def collect_after(server: Server, days: int, *, trash_days: int = 30) -> int:
    """Collect as if so many days had passed; how many manifests went to the trash by policy."""
    return collecting.collect(server, later=days * DAY, trash_days=trash_days).expired


def short(repo: Repo) -> str:
    """The name inside the organisation."""
    return repo.name.partition("/")[2]


def put(person: Person, body: dict[str, Any], query: str = "") -> dict[str, Any]:
    """Set a policy, or preview it; the response."""
    answer = person.api.json("PUT", f"{person.base}/policy{query}", body)
    assert answer.status == 200, answer.body
    return answer.json()


def going(person: Person, body: dict[str, Any], query: str = "?preview=true") -> list[str]:
    """The digests that a policy would move to the trash."""
    return sorted(each["path"].partition("@")[2] for each in put(person, body, query)["preview"]["items"])


def trashed(person: Person) -> list[dict[str, Any]]:
    """The items of the trash."""
    answer = person.api.get(f"{person.base}/trash?limit=1000")
    assert answer.status == 200
    return list(answer.json()["items"])


def overwritten(repo: Repo, times: int = 3, tag: str = "v1") -> list[str]:
    """Push so many images under one tag; their digests, the active one last."""
    digests = []
    for _ in range(times):
        made = image()
        repo.push(made, tag)
        digests.append(made.digest)
    return digests


def test_without_a_policy_everything_stays(server: Server, ann: Person) -> None:
    """Without a policy commits of any age stay."""
    repo = ann.new_repo()
    digests = overwritten(repo)
    assert collect_after(server, 4000) == 0
    assert trashed(ann) == []
    assert [repo.manifest(each).status for each in digests] == [200] * 3
    assert ann.api.get(f"{ann.base}/policy").json() == {
        "organisation": {"keep": "everything", "younger": None, "newest": None, "pulled": None},
        "items": [],
        "next": None,
    }


KEPT = [
    ({"newest": 2}, 2),
    ({"newest": 9}, 4),
    ({"younger": 5 * DAY}, 1),
    ({"younger": 25 * DAY}, 2),
    ({"younger": 25 * DAY, "newest": 3}, 3),
    ({"younger": 999 * DAY, "newest": 1}, 4),
    ({"newest": 1}, 1),
]
"""How many of four commits, of 10, 20, 30 and 40 days, are kept."""


def test_what_the_preview_named_is_deleted(server: Server, ann: Person) -> None:
    """For any rules, exactly what the preview named is deleted; trash and audit log say that a policy did it."""
    repo = ann.new_repo()
    digests = []
    for _ in range(4):
        digests += overwritten(repo, 1)
        days_pass(server, 10)
    for rules, kept in KEPT:
        assert going(ann, {"keep": "rules", **rules}) == sorted(digests[: 4 - kept])
    collect(server)
    assert trashed(ann) == []
    change = put(ann, NEWEST)
    assert (change["preview"]["manifests"], change["preview"]["commits"]) == (3, 3)
    assert "Would move 3 manifests to the trash by policy" in collect(server, "--dry-run")
    assert "Moved 3 manifests to the trash by policy" in collect(server)
    items = trashed(ann)
    assert sorted(item["name"] for item in items) == sorted(digests[:3])
    assert all(item["by_policy"] and item["deleted_by"] is None for item in items)
    assert [repo.manifest(each).status for each in digests] == [404, 404, 404, 200]
    assert going(ann, NEWEST) == []
    entries = ann.api.get(f"{ann.base}/audit?event=expire").json()["items"]
    assert sorted(each["subject"] for each in entries) == sorted(f"{repo.name}@{each}" for each in digests[:3])
    assert {each["by"] for each in entries} == {"policy"}


def test_what_the_preview_counts(server: Server, ann: Person) -> None:
    """It counts bytes that nothing else in the docker repository needs; images are newest first, with their tags."""
    repo = ann.new_repo()
    old = overwritten(repo, 2)
    shared = image("shared")
    repo.push(shared, "other")
    repo.push(image("shared", annotations={"a": "b"}), "other")
    days_pass(server, 10)
    seen = put(ann, NEWEST, "?preview=true")["preview"]
    assert (seen["manifests"], seen["commits"], seen["complete"]) == (2, 2, True)
    assert [each["path"].partition("@")[2] for each in seen["items"]] == [shared.digest, old[0]]
    assert [each["tags"] for each in seen["items"]] == [["other"], ["v1"]]
    sizes = [len(repo.manifest(each).body) for each in (shared.digest, old[0])]
    document, kept = repo.manifest(old[0]).json(), set(map(sha256, shared.blobs))
    own = [each["size"] for each in (document["config"], *document["layers"]) if each["digest"] not in kept]
    assert seen["size"] == sum(sizes) + sum(own)


def test_what_was_pulled_stays(server: Server, ann: Person) -> None:
    """A GET or HEAD from any worker counts as a pull, also after a restart, for as long as the rule says."""
    repo = ann.new_repo()
    digests = overwritten(repo, 4)
    settle(server)
    days_pass(server, 100)
    assert repo.manifest(digests[0]).status == 200
    assert repo.send("HEAD", repo.path(f"manifests/{digests[1]}")).status == 200
    settle(server)
    days_pass(server, 20)
    put(ann, {"keep": "rules", "pulled": 30 * DAY})
    collect(server)
    assert [item["name"] for item in trashed(ann)] == [digests[2]]
    days_pass(server, 20)
    collect(server)
    assert sorted(item["name"] for item in trashed(ann)) == sorted(digests[:3])


def test_what_something_else_needs_stays(server: Server, ann: Person) -> None:
    """9: images of an index that stays, referrers of what stays, and the subject of a tagged signature stay."""
    repo = ann.new_repo()
    child, signature, subject = image(), None, image()
    repo.push(child)
    index = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child.manifest, OCI_MANIFEST)]})
    assert repo.put("v1", index, OCI_INDEX).status == 201
    signature = image(subject=descriptor(index, OCI_INDEX))
    repo.push(signature)
    repo.push(subject)
    tagged = image(subject=descriptor(subject.manifest, OCI_MANIFEST))
    repo.push(tagged, "signature")
    put(ann, {"keep": "rules", "newest": 1, "younger": DAY, "pulled": DAY})
    assert collect_after(server, 1000) == 0
    assert trashed(ann) == []
    for each in (child, signature, subject, tagged):
        assert repo.manifest(each.digest).status == 200
    repo.push(image(), "v1")
    settle(server)
    assert collect_after(server, 2000) == 3
    assert {item["name"] for item in trashed(ann)} == {child.digest, sha256(index), signature.digest}
    restored = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), "commit": sha256(index)})
    assert restored.status == 200, restored.body
    assert trashed(ann) == []
    for each in (child, signature):
        assert repo.manifest(each.digest).body == each.manifest


def test_what_is_restored_is_not_taken_again(server: Server, ann: Person) -> None:
    """A restored commit stays for a day, or as long as the rules say, so that the policy can be changed."""
    repo = ann.new_repo()
    digests = overwritten(repo, 2)
    days_pass(server, 10)
    put(ann, NEWEST)
    collect(server)
    answer = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), "commit": digests[0]})
    assert answer.status == 200
    collect(server)
    assert trashed(ann) == []
    assert repo.manifest(digests[0]).status == 200
    assert [item["commit"] for item in ann.commits(short(repo))["items"]] == digests[::-1]


def test_a_repository_that_is_restored_is_not_emptied(server: Server, ann: Person) -> None:
    """All of a repository counts as pulled when it is restored, because nobody could pull from the trash."""
    repo = ann.new_repo()
    digests = overwritten(repo, 2)
    settle(server)
    put(ann, {"keep": "rules", "pulled": 10 * DAY})
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={short(repo)}").status == 200
    days_pass(server, 20)
    assert ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo)}).status == 200
    collect(server)
    assert trashed(ann) == []
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE repositories SET restored_at = restored_at - ?", (11 * DAY * 1_000_000,))
    collect(server)
    assert [item["name"] for item in trashed(ann)] == [digests[0]]


def test_a_sparse_index_that_is_pushed_again_stays(server: Server, ann: Person) -> None:
    """Pushing a sparse index again counts as a push, as it does for a whole manifest."""
    repo = ann.new_repo()
    changed = ann.api.json("PATCH", f"{ann.base}/repository?name={short(repo)}", {"sparse_indexes": "allow"})
    assert changed.status == 200
    absent = image()
    index = dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(absent.manifest, OCI_MANIFEST)]}
    )
    assert repo.put(sha256(index), index, OCI_INDEX).status == 201
    settle(server)
    days_pass(server, 400)
    assert repo.put(sha256(index), index, OCI_INDEX).status == 201
    put(ann, {"keep": "rules", "younger": DAY})
    collect(server)
    assert trashed(ann) == []


def test_a_tag_in_the_trash_comes_back(server: Server, ann: Person) -> None:
    """The newest commit of a deleted tag stays as long as the tag can be restored."""
    repo = ann.new_repo()
    digests = overwritten(repo, 2)
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={short(repo)}&tag=v1").status == 200
    put(ann, {"keep": "rules", "younger": DAY})
    assert collect_after(server, 10) == 1
    assert sorted(item["name"] for item in trashed(ann)) == sorted(["v1", digests[0]])
    assert ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), "tag": "v1"}).status == 200
    assert sha256(repo.manifest("v1").body) == digests[1]


def test_a_repository_has_its_own(server: Server, ann: Person) -> None:
    """A repository's policy wins over the organisation's, whichever keeps more; inherit removes it."""
    one, two = ann.new_repo(), ann.new_repo()
    first, second = overwritten(one), overwritten(two)
    put(ann, NEWEST)
    put(ann, {"keep": "everything"}, f"?name={short(one)}")
    put(ann, {"keep": "rules", "newest": 2}, f"?name={short(two)}")
    shown = ann.api.get(f"{ann.base}/policy").json()
    assert [(each["repository"].rpartition("/")[2], each["policy"]["newest"]) for each in shown["items"]] == sorted(
        [(short(one), None), (short(two), 2)]
    )
    assert collect_after(server, 10) == 1
    assert [item["name"] for item in trashed(ann)] == [second[0]]
    put(ann, {"keep": "inherit"}, f"?name={short(one)}")
    assert collect_after(server, 10) == 2
    assert sorted(item["name"] for item in trashed(ann)) == sorted([second[0], *first[:2]])


def test_pages_of_repositories_with_their_own(ann: Person) -> None:
    """They are sorted by name, each once."""
    names = sorted(short(ann.new_repo()) for _ in range(3))
    for name in names:
        put(ann, NEWEST, f"?name={name}")
    seen, query = [], "?limit=2"
    while query:
        page = ann.api.get(f"{ann.base}/policy{query}").json()
        seen += [each["repository"].rpartition("/")[2] for each in page["items"]]
        query = f"?limit=2&cursor={page['next']}" if page["next"] else ""
    assert seen == names


def test_rights(server: Server, ann: Person) -> None:
    """Admins set policies and members read them; other people and wrong bodies change nothing."""
    repo = ann.new_repo()
    digests = overwritten(repo)
    for role, status in (("writer", 403), ("reader", 403)):
        member = ann.add(role)
        for query in ("", "?preview=true", f"?name={short(repo)}"):
            assert member.api.json("PUT", f"{ann.base}/policy{query}", NEWEST).status == status
        assert member.api.get(f"{ann.base}/policy").status == 200
    other = stranger(server)
    for query in ("", "?preview=true", f"?name={short(repo)}", "?name=absent"):
        assert other.api.json("PUT", f"{ann.base}/policy{query}", NEWEST).status == 404
    assert other.api.get(f"{ann.base}/policy").status == 404
    assert other.api.json("PUT", f"{other.base}/policy?name={short(repo)}", NEWEST).status == 404
    for body in (
        {"keep": "rules"},
        {"keep": "rules", "newest": 0},
        {"keep": "rules", "newest": 1001},
        {"keep": "rules", "newest": "1"},
        {"keep": "rules", "younger": DAY - 1},
        {"keep": "rules", "pulled": 10**12},
        {"keep": "everything", "newest": 1},
        {"keep": "inherit"},
        {"keep": "nothing"},
        {"newest": 1},
        {"keep": "rules", "newest": 1, "more": 1},
    ):
        assert ann.api.json("PUT", f"{ann.base}/policy", body).status == 400, body
    put(other, NEWEST)
    assert collect_after(server, 10) == 0
    assert trashed(ann) == []
    assert [repo.manifest(each).status for each in digests] == [200] * 3
    assert ann.api.get(f"{ann.base}/policy").json()["organisation"]["keep"] == "everything"


def test_who_set_it(ann: Person) -> None:
    """The audit log names the policy, what it is for, and who wrote it."""
    name = short(ann.new_repo())
    put(ann, {"keep": "rules", "newest": 2, "younger": 7 * DAY})
    put(ann, NEWEST, f"?name={name}")
    put(ann, {"keep": "inherit"}, f"?name={name}")
    put(ann, {"keep": "everything"})
    put(ann, NEWEST, "?preview=true")
    entries = ann.api.get(f"{ann.base}/audit?event=policy-update").json()["items"]
    assert [(each["subject"], each["detail"], each["by"]) for each in entries[::-1]] == [
        (ann.org, "keep younger than 7d, newest 2", ann.email),
        (f"{ann.org}/{name}", "keep newest 1", ann.email),
        (f"{ann.org}/{name}", "inherit", ann.email),
        (ann.org, "keep everything", ann.email),
    ]


def test_a_policy_survives_the_database(server: Server, ann: Person) -> None:
    """After a rebuild a policy is as before, and everything counts as pulled at that moment."""
    repo = ann.new_repo()
    digests = overwritten(repo)
    put(ann, {"keep": "rules", "pulled": 5 * DAY})
    put(ann, {"keep": "rules", "newest": 2}, f"?name={short(repo)}")
    shown = ann.api.get(f"{ann.base}/policy").json()
    server.stop()
    server.lose_database()
    polly_server("rebuild", "--data", str(server.data))
    server.give_admin_back()
    server.start()
    again = Person(ann.port, ann.org, ann.email, ann.password)
    assert again.api.get(f"{again.base}/policy").json() == shown
    put(again, {"keep": "inherit"}, f"?name={short(repo)}")
    assert collect_after(server, 4) == 0
    assert trashed(again) == []
    assert collect_after(server, 6) == 2
    assert sorted(item["name"] for item in trashed(again)) == sorted(digests[:2])


def test_purged_in_the_end(server: Server, ann: Person) -> None:
    """What a policy moved to the trash is purged after trash_days, and its space is freed."""
    repo = ann.new_repo()
    digests = overwritten(repo)
    put(ann, NEWEST)
    assert collect_after(server, 10) == 2
    for days in (41, 43, 45):
        collect_after(server, days)
    assert trashed(ann) == []
    assert len(list((server.data / "blobs").glob("*/*/*"))) == len(image().blobs)
    assert [item["commit"] for item in ann.commits(short(repo))["items"]] == [digests[-1]]


def test_a_preview_of_a_later_day_is_what_goes_then(server: Server, ann: Person) -> None:
    """A preview of a later day names what goes by then if nothing is pushed or pulled in between."""
    first, second = ann.new_repo(), ann.new_repo()
    mine, own = overwritten(first), overwritten(second)
    settle(server)
    put(ann, {"keep": "rules", "younger": 30 * 86_400})
    put(ann, {"keep": "rules", "younger": 60 * 86_400}, f"?name={short(second)}")
    day = dt.datetime.now(dt.UTC) + dt.timedelta(days=40)

    def seen(days: int, name: str = "") -> list[str]:
        at = urllib.parse.quote((day + dt.timedelta(days=days - 40)).isoformat())
        answer = ann.api.get(f"{ann.base}/policy-preview?as_of={at}{name}")
        assert answer.status == 200, answer.body
        assert (
            answer.json()["preview"]["as_of"] == f"{day + dt.timedelta(days=days - 40):%Y-%m-%dT%H:%M:%S.%f}"[:23] + "Z"
        )
        return sorted(each["path"].partition("@")[2] for each in answer.json()["preview"]["items"])

    assert ann.api.get(f"{ann.base}/policy-preview").json()["preview"]["items"] == []
    expected = sorted(mine[:2])
    assert (seen(20), seen(40), seen(70)) == ([], expected, sorted(mine[:2] + own[:2]))
    assert (seen(40, f"&name={short(second)}"), seen(70, f"&name={short(second)}")) == ([], sorted(own[:2]))
    body = {"keep": "rules", "younger": 30 * 86_400}
    query = f"?preview=true&as_of={urllib.parse.quote(day.isoformat())}"
    assert going(ann, body, query) == expected
    collect_after(server, 40)
    assert sorted(each["name"] for each in trashed(ann)) == expected


def test_a_moment_that_can_not_be(ann: Person) -> None:
    """A moment in the past, a time without a zone, and a moment for a policy that is set are refused."""
    for text in ("2020-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "tomorrow", "2030-01-01", "2030-01-01T00:00:00"):
        answer = ann.api.get(f"{ann.base}/policy-preview?as_of={text}")
        assert (answer.status, answer.code, "as_of" in answer.message) == (400, "BAD_REQUEST", True)
    answer = ann.api.json("PUT", f"{ann.base}/policy?as_of=2030-01-01T00:00:00Z", {"keep": "rules", "newest": 1})
    assert (answer.status, "preview" in answer.message) == (400, True)
    assert ann.api.get(f"{ann.base}/policy").json()["organisation"]["keep"] == "everything"
    assert ann.add("writer").api.get(f"{ann.base}/policy-preview").status == 403
