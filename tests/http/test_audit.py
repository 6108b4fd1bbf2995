"""The audit log: who did what, and from where. Only admins of the organisation see it."""

from __future__ import annotations

import datetime as dt
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from support.server import new_password, running_server
from support.wire_client import Person, admin, basic, bearer, image, member, stranger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, so that nothing but what the test does is in the log."""
    with running_server(tmp_path_factory.mktemp("audit"), "--workers", "1") as running:
        yield running


@pytest.fixture(scope="module")
def ann(server: Server) -> Person:
    """The admin of the organisation."""
    return admin(server)


def entries(person: Person, query: str = "") -> list[dict[str, Any]]:
    """The organisation's entries, newest first."""
    answer = person.api.get(f"{person.base}/audit?limit=1000{query}")
    assert answer.status == 200, answer.body
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def newest(person: Person, event: str) -> tuple[str, str, str]:
    """Return actor, subject and detail of the newest entry of an event; fails unless it came from this machine."""
    entry = entries(person, f"&event={event}")[0]
    assert entry["address"] == "127.0.0.1"
    return entry["by"], entry["subject"], entry["detail"]


def test_a_push_and_what_undoes_it(ann: Person) -> None:
    """Repository, push by tag and by digest, change, deletion and restore: each by its image path."""
    repo = ann.new_repo()
    made = image()
    assert newest(ann, "repository-create") == (ann.email, repo.name, "private")
    repo.push(made, "v1")
    assert newest(ann, "push") == (ann.email, f"{repo.name}:v1", made.digest)
    other = image()
    repo.push(other)
    repo.put(other.digest, other.manifest)
    assert newest(ann, "push") == (ann.email, repo.name, other.digest)
    name = repo.name.partition("/")[2]
    ann.api.json("PATCH", f"{ann.base}/repository?name={name}", {"description": "for now"})
    assert newest(ann, "repository-update") == (ann.email, repo.name, "description: for now")
    assert repo.delete(f"manifests/{made.digest}").status == 202
    assert newest(ann, "delete") == (ann.email, f"{repo.name}@{made.digest}", "with the tags v1")
    ann.api.json("POST", f"{ann.base}/trash", {"repository": name, "commit": made.digest})
    assert newest(ann, "restore") == (ann.email, f"{repo.name}@{made.digest}", "")
    ann.api.send("DELETE", f"{ann.base}/repository?name={name}")
    assert newest(ann, "delete") == (ann.email, repo.name, "")


def test_a_push_that_changes_nothing_is_no_entry(ann: Person) -> None:
    """Pushing the same image to the same tag again adds no entry."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    before = entries(ann, "&event=push")
    repo.push(made, "v1")
    assert entries(ann, "&event=push") == before


def test_what_was_refused_is_no_entry_of_what_was_asked_for(ann: Person, server: Server) -> None:
    """A refused deletion, a refused push and a preview add no entry of a deletion or a push."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    before = entries(ann, "&event=push") + entries(ann, "&event=delete")
    reader = member(server, "reader")
    assert reader.at(repo.name).delete("manifests/v1").status == 401
    assert repo.put("v2", image().manifest).status == 400
    name = repo.name.partition("/")[2]
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}&preview=true").status == 200
    assert entries(ann, "&event=push") + entries(ann, "&event=delete") == before


def test_rights(ann: Person) -> None:
    """The entries say who invited, changed or removed a member, who joined, and who revoked an invitation."""
    bob = ann.add("reader")
    assert newest(ann, "member-invite") == (ann.email, bob.email, "reader")
    assert newest(ann, "member-accept") == (bob.email, bob.email, "reader")
    ann.invite("nobody@guest.example", "reader")
    ann.api.send("DELETE", f"{ann.base}/members?email=nobody@guest.example")
    assert newest(ann, "member-uninvite") == (ann.email, "nobody@guest.example", "")
    ann.api.json("PATCH", f"{ann.base}/members?email={bob.email}", {"role": "writer"})
    assert newest(ann, "member-role") == (ann.email, bob.email, "reader to writer")
    ann.api.json("PATCH", f"{ann.base}/members?email={bob.email}", {"role": "writer"})  # it changes nothing
    assert newest(ann, "member-role") == (ann.email, bob.email, "reader to writer")
    ann.api.send("DELETE", f"{ann.base}/members?email={bob.email}")
    assert newest(ann, "member-remove") == (ann.email, bob.email, "")


def test_sign_ins_and_tokens(ann: Person) -> None:
    """A sign-in with a password, a token that is created, used and revoked, and a changed password."""
    bob = ann.add("writer")
    token = bob.by_password.json("POST", "/api/v1/tokens", {"scope": "full", "label": "laptop"}).json()
    assert newest(ann, "sign-in") == (bob.email, "", "")
    assert newest(ann, "token-create") == (bob.email, token["id"], "full: laptop")
    api = bearer(bob.port, token["token"])
    assert api.get("/api/v1/me").status == 200
    assert newest(ann, "token-use") == (bob.email, token["id"], "full: laptop")
    assert api.send("DELETE", "/api/v1/tokens/current").status == 204
    assert newest(ann, "token-revoke") == (bob.email, token["id"], "")
    bob.by_password.json("PUT", "/api/v1/me/password", {"password": new_password()})
    assert newest(ann, "password-change") == (bob.email, "", "")


def test_refused_sign_ins(ann: Person, server: Server) -> None:
    """Each wrong password for a member is counted in the log; the answer does not wait for it, and it is not lost."""
    bob = ann.add("reader")
    for _ in range(3):
        assert basic(server.port, bob.email, new_password()).get("/token").status == 401
    nobody = f"nobody-{new_password().lower()}@acme.example"
    assert basic(server.port, nobody, new_password()).get("/token").status == 401
    server.stop()  # what waits is written before the end
    server.start()
    refused = [entry for entry in entries(ann, "&event=sign-in-refused") if entry["by"] == bob.email]
    told = [int(entry["detail"].partition(" ")[0] or 1) for entry in refused]
    assert sum(told) == 3
    assert nobody not in {entry["by"] for entry in entries(ann)}


def test_only_admins_of_the_organisation_see_it(ann: Person, server: Server) -> None:
    """The error names the role for a writer, and does not show an outsider that the organisation exists."""
    writer = member(server, "writer")
    assert (writer.api.get(f"{ann.base}/audit").status, writer.api.get(f"{ann.base}/audit").code) == (403, "DENIED")
    other = stranger(server)
    there = other.api.get(f"{ann.base}/audit")
    absent = other.api.get("/api/v1/organisations/absent/audit")
    assert (there.status, there.code) == (absent.status, absent.code) == (404, "ORGANISATION_UNKNOWN")


def test_pages(ann: Person) -> None:
    """Newest first and oldest first, page by page: complete, none twice."""
    ann.new_repo()
    ann.api.get("/api/v1/me")
    whole = entries(ann)
    for order, expected in (("newest", whole), ("oldest", whole[::-1])):
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = ann.api.get(f"{ann.base}/audit?limit=7&order={order}&cursor={cursor}").json()
            found += page["items"]
            if page["next"] is None:
                break
            cursor = page["next"]
        assert found == expected


def test_an_event_that_does_not_exist(ann: Person) -> None:
    """The error names the events that exist."""
    answer = ann.api.get(f"{ann.base}/audit?event=explosion")
    assert (answer.status, "sign-in-refused" in answer.message) == (400, True)


def test_a_user_of_two_organisations(ann: Person, server: Server) -> None:
    """A sign-in is in the log of each, once its user has accepted the invitation."""
    other, bob = stranger(server), ann.add("writer")
    code = other.invite(bob.email, "writer")
    assert newest(other, "member-invite") == (other.email, bob.email, "writer")
    assert bob.by_password.get("/token").status == 200
    assert newest(ann, "sign-in")[0] == bob.email
    assert bob.email not in {entry["by"] for entry in entries(other)}
    assert bob.api.json("POST", "/api/v1/invitation", {"code": code}).status == 200
    assert newest(other, "member-accept") == (bob.email, bob.email, "writer")
    assert bob.by_password.get("/token").status == 200
    assert newest(other, "sign-in")[0] == bob.email


def test_a_label_of_a_user_of_two_organisations_is_their_own(ann: Person, server: Server) -> None:
    """The label of a token may name something of the other organisation, so the log has the token's id instead."""
    other, bob = stranger(server), ann.add("writer")
    assert bob.api.json("POST", "/api/v1/invitation", {"code": other.invite(bob.email, "reader")}).status == 200
    wanted = {"scope": "full", "label": "deploy key of the secret project"}
    token = bob.by_password.json("POST", "/api/v1/tokens", wanted).json()
    bearer(bob.port, token["token"]).get("/api/v1/me")
    for admin_of_one in (ann, other):
        for event in ("token-create", "token-use"):
            assert newest(admin_of_one, event) == (bob.email, token["id"], "full")


def test_entries_are_narrowed(ann: Person, server: Server) -> None:
    """Filters by user, by docker repository, by time, and without entries about tokens; they can be combined."""
    bob, repo, other = ann.add("writer"), ann.new_repo(), ann.new_repo()
    before = dt.datetime.now(dt.UTC)
    bob.at(repo.name).push(image(), "v1")
    other.push(image(), "v1")
    ann.api.get("/api/v1/me")
    by_bob = f"&by={bob.email.upper()}&token_events=hide"
    assert {entry["by"] for entry in entries(ann, by_bob)} == {bob.email}
    name = repo.name.partition("/")[2]
    assert [entry["event"] for entry in entries(ann, f"&name={name}")] == ["push", "repository-create"]
    assert [entry["event"] for entry in entries(ann, f"{by_bob}&name={name}")] == ["push"]
    assert [entry["event"] for entry in entries(ann, f"&name={name}&by=nobody@acme.example")] == []
    assert any(entry["event"].startswith("token-") for entry in entries(ann))
    assert not any(entry["event"].startswith("token-") for entry in entries(ann, "&token_events=hide"))
    moment = urllib.parse.quote(before.isoformat())
    assert [entry["event"] for entry in entries(ann, f"&name={name}&since={moment}")] == ["push"]
    assert [entry["event"] for entry in entries(ann, f"&name={name}&until={moment}")] == ["repository-create"]
    for wrong in ("since=yesterday", "until=2026-01-01", "name=..", "token_events=perhaps"):
        assert ann.api.get(f"{ann.base}/audit?{wrong}").status == 400
    assert server
