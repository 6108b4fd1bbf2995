"""security.md 2 and 20, on every worker: each refuses what was revoked; failed sign-ins are counted together."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pysqlite3.dbapi2 as sqlite
import pytest

from polly_dockers.auth.throttles import FAILURES_PAIR, PLACES
from support.server import new_password, polly_server, running_server
from support.wire_client import (
    Client,
    Person,
    Repo,
    admin,
    basic,
    bearer,
    dumps,
    image,
    new_admin,
    sha256,
    stranger,
)
from support.workers import Worker, each_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.server import Server

FORM, JSON = "application/x-www-form-urlencoded", "application/json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers whose people are locked out and whose keys go."""
    options = ("--workers", "2", "--public-repositories", "allow", "--collect-seconds", "0")
    with running_server(tmp_path_factory.mktemp("workers"), *options) as running:
        yield running


@pytest.fixture(scope="module")
def workers(server: Server) -> Iterator[list[Worker]]:
    """A connection to each worker."""
    with each_worker(server) as found:
        yield found


@pytest.fixture(scope="module")
def boss(server: Server) -> Person:
    """The admin of the organisation."""
    return admin(server)


def new_repo(boss: Person, **more: str) -> Repo:
    """A repository that holds an image."""
    made = boss.new_repo(**more)
    made.push(image("of the workers"), "v1")
    return made


@pytest.fixture(scope="module")
def repo(boss: Person) -> Repo:
    """A repository that holds an image."""
    return new_repo(boss)


def execute(server: Server, statement: str, *values: object) -> None:
    """Change the rows beneath the server."""
    with contextlib.closing(sqlite.connect(server.data / "polly.db", timeout=30)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        assert connection.execute(statement, values).rowcount >= 1
        connection.commit()


# --- what ends ---------------------------------------------------------------------------------------------------


def revoke(_server: Server, _boss: Person, bob: Person) -> None:
    """Revoke the access token with itself, as polly logout does."""
    token_id = bob.api.get("/api/v1/me").json()["token"]["id"]
    assert bob.api.send("DELETE", f"/api/v1/tokens/{token_id}").status == 204


def expire(server: Server, _boss: Person, bob: Person) -> None:
    """Make the access token expire."""
    token_id = bob.api.get("/api/v1/me").json()["token"]["id"]
    execute(server, "UPDATE access_tokens SET expires_at = 1 WHERE id = ?", token_id)


def change_password(_server: Server, _boss: Person, bob: Person) -> None:
    """Change the password."""
    assert bob.by_password.json("PUT", "/api/v1/me/password", {"password": new_password()}).status == 204


def remove(_server: Server, boss: Person, bob: Person) -> None:
    """Remove the member."""
    assert boss.api.send("DELETE", f"{boss.base}/members?email={bob.email}").status == 204


def delete_organisation(server: Server, boss: Person, _bob: Person) -> None:
    """Delete the organisation."""
    polly_server("org", "delete", "--data", str(server.data), "--org", boss.org, "--yes")


def revoke_keys(server: Server, _boss: Person, _bob: Person) -> None:
    """Delete the key that signed."""
    polly_server("key", "rotate", "--data", str(server.data), "--revoke")


ENDS: dict[str, tuple[Callable[[Server, Person, Person], None], int]] = {
    "the access token is revoked": (revoke, 401),
    "the access token expires": (expire, 401),
    "the password is changed": (change_password, 401),
    "the member is removed": (remove, 404),
    "the organisation is deleted": (delete_organisation, 404),
    "the key is revoked": (revoke_keys, 200),
}
"""What happens, and what the interface says then to the access token."""


def asked(repo: Repo, upload: str) -> list[tuple[str, str]]:
    """One request of every kind; blobs, uploads, lists and tokens."""
    digest = image("of the workers").digest
    return [
        ("GET", repo.path("manifests/v1")),
        ("GET", repo.path(f"manifests/{digest}")),
        ("GET", repo.path("tags/list")),
        ("GET", repo.path(f"blobs/{sha256(image('of the workers').blobs[0])}")),
        ("GET", repo.path(f"referrers/{digest}")),
        ("GET", upload),
        ("POST", repo.path("blobs/uploads/")),
        ("PUT", repo.path("manifests/v2")),
    ]


@pytest.mark.parametrize("end", ENDS)
def test_what_ended_is_refused_by_each_worker_at_its_next_request(
    server: Server, workers: list[Worker], boss: Person, repo: Repo, end: str
) -> None:
    """2: each worker has verified the token before and remembers it, and still refuses the next request of any kind."""
    if ENDS[end][0] is delete_organisation:
        boss = new_admin(server)
        repo = new_repo(boss)
    bob = boss.add("writer")
    theirs = bob.at(repo.name)
    upload = theirs.start()
    for worker in workers:
        assert worker.get(theirs, repo.path("manifests/v1")).status == 200
        assert worker.get(theirs, "/v2/").status == 200
        assert worker.get(bob.api, f"{boss.base}/repositories").status == 200
    happens, status = ENDS[end]
    api = bob.api
    happens(server, boss, bob)
    for worker in workers:
        for method, path in asked(repo, upload):
            body = b"" if method in {"POST", "PUT"} else None
            answer = worker.send(theirs, method, path, body)
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED"), (method, path)
        assert worker.get(api, f"{boss.base}/repositories").status == status


def test_a_role_that_is_lowered_ends_pushing_on_each_worker(
    server: Server, workers: list[Worker], boss: Person, repo: Repo
) -> None:
    """2: once a writer becomes a reader, their token neither begins nor continues an upload, and pulls as before."""
    bob = boss.add("writer")
    theirs = bob.at(repo.name)
    uploads = [theirs.start() for _ in workers]
    for worker in workers:
        assert worker.send(theirs, "POST", repo.path("blobs/uploads/"), b"").status == 202
    arguments = ("--data", str(server.data), "--org", boss.org, "--email", bob.email, "--role", "reader")
    polly_server("user", "set-role", *arguments)
    for worker, upload in zip(workers, uploads, strict=True):
        for method, path in (
            ("PATCH", upload),
            ("POST", repo.path("blobs/uploads/")),
            ("PUT", repo.path("manifests/x")),
        ):
            answer = worker.send(theirs, method, path, b"x")
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert worker.get(theirs, repo.path("manifests/v1")).status == 200


def test_what_anybody_may_pull_needs_a_key_that_is_there(server: Server, workers: list[Worker], boss: Person) -> None:
    """7: an anonymous token for a public repository ends with the key that signed it; a new one is valid at once."""
    repo = new_repo(boss, access="public")

    def nobody(worker: Worker) -> Client:
        answer = worker.get(Client(server.port), f"/token?scope=repository:{repo.name}:pull")
        return bearer(server.port, answer.json()["token"])

    before = nobody(workers[0])
    for worker in workers:
        assert worker.get(before, repo.path("manifests/v1")).status == 200
    revoke_keys(server, boss, boss)
    for worker in workers:
        answer = worker.get(before, repo.path("manifests/v1"))
        assert answer.status == 401
        assert 'error="invalid_token"' in answer.header("WWW-Authenticate")
        assert worker.get(nobody(worker), repo.path("manifests/v1")).status == 200


def test_no_worker_signs_by_a_key_that_is_revoked(
    server: Server, workers: list[Worker], boss: Person, repo: Repo
) -> None:
    """7: right after a key is revoked, each worker issues a valid token, though nobody told it of the new key."""
    for number in range(2):
        revoke_keys(server, boss, boss)
        for worker in workers[::-1] if number else workers:
            query = urlencode({"scope": f"repository:{repo.name}:pull"})
            answer = worker.get(basic(server.port, "POLLY", boss.secret), f"/token?{query}")
            given = bearer(server.port, answer.json()["token"])
            assert worker.get(given, repo.path("manifests/v1")).status == 200


# --- throttles ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """A request that shows a password."""

    client: Client
    method: str
    path: str
    body: bytes | None = None
    kind: str = ""
    good: int = 200
    """The status where the password is right."""


def by_basic(person: Person, password: str) -> Attempt:
    """The token endpoint, as docker login asks it."""
    return Attempt(basic(person.port, person.email, password), "GET", "/token")


def by_form(person: Person, password: str) -> Attempt:
    """The token endpoint, as containerd asks it."""
    fields = {"grant_type": "password", "username": person.email, "password": password}
    return Attempt(Client(person.port), "POST", "/token", urlencode(fields).encode(), FORM)


def by_interface(person: Person, password: str) -> Attempt:
    """A new access token, as polly login asks for it."""
    return Attempt(basic(person.port, person.email, password), "POST", "/api/v1/tokens", dumps({}), JSON, 201)


def by_change(person: Person, password: str) -> Attempt:
    """Set the password to what it is, as polly password sets a new one."""
    body = dumps({"password": person.password})
    return Attempt(basic(person.port, person.email, password), "PUT", "/api/v1/me/password", body, JSON, 204)


WAYS = {way.__name__: way for way in (by_basic, by_form, by_interface, by_change)}


def attempt(worker: Worker, made: Attempt) -> int:
    """The status that the worker answers with."""
    answer = worker.send(made.client, made.method, made.path, made.body, made.kind)
    if answer.status == 429:
        assert answer.code == "TOOMANYREQUESTS"
        assert 1 <= int(answer.header("Retry-After")) <= 900
    return answer.status


@pytest.mark.parametrize("way", WAYS)
def test_wrong_passwords_by_each_way_are_throttled_across_workers(
    workers: list[Worker], boss: Person, way: str
) -> None:
    """20: ten wrong ones, spread over the workers; then each answers 429 to any password sent in any way."""
    victim, other = boss.add("reader"), boss.add("reader")
    turns = itertools.cycle(workers)
    wrong = [attempt(next(turns), WAYS[way](victim, "a wrong one")) for _ in range(10)]
    assert wrong == [401] * 10
    for each in WAYS.values():
        for worker in workers:
            assert attempt(worker, each(victim, victim.password)) == 429
    good = WAYS[way](other, other.password)
    assert attempt(workers[0], good) == good.good


@pytest.mark.parametrize("way", WAYS)
def test_right_passwords_are_not_throttled(workers: list[Worker], boss: Person, way: str) -> None:
    """20: a dozen successful sign-ins after a few failures are all let in, on each worker."""
    person = boss.add("reader")
    turns = itertools.cycle(workers)
    assert [attempt(next(turns), WAYS[way](person, "a wrong one")) for _ in range(3)] == [401] * 3
    good = WAYS[way](person, person.password)
    assert [attempt(next(turns), good) for _ in range(12)] == [good.good] * 12


@pytest.mark.parametrize("way", WAYS)
def test_twenty_right_passwords_at_once(server: Server, boss: Person, way: str) -> None:
    """20: failures are counted, not attempts: twenty jobs behind one address are let in at the same time."""
    person = boss.add("reader")
    good = WAYS[way](person, person.password)
    headers = {"Content-Type": good.kind} if good.kind else {}
    with ThreadPoolExecutor(20) as jobs:
        sent = [jobs.submit(good.client.send, good.method, good.path, good.body, headers) for _ in range(20)]
        seen = {each.result().status for each in sent}
    if way == "by_change":  # each ends the sign-ins that are checked at the same time
        assert seen <= {good.good, 401}
    else:
        assert seen == {good.good}
    assert attempt_at(server, good) == good.good


def attempt_at(server: Server, made: Attempt) -> int:
    """The status that any worker answers with."""
    headers = {"Content-Type": made.kind} if made.kind else {}
    return replace(made.client, port=server.port).send(made.method, made.path, made.body, headers).status


def test_a_burst_of_wrong_passwords_passes_the_limit_by_little(boss: Person) -> None:
    """20: of eighty guesses at once, ten are checked, and as many as the workers check at the same moment.

    The bound is stated in throttles.py: places x workers - 1 above the limit.
    """
    victim = boss.add("reader")
    guess = basic(boss.port, victim.email, "a wrong one")
    with ThreadPoolExecutor(80) as guesses:
        seen = list(guesses.map(lambda _: guess.get("/token").status, range(80)))
    assert set(seen) == {401, 429}
    assert FAILURES_PAIR <= seen.count(401) <= FAILURES_PAIR + PLACES * 2 - 1
    assert victim.by_password.get("/token").status == 429


def test_what_is_throttled_writes_nothing(server: Server, workers: list[Worker], boss: Person) -> None:
    """20: throttled requests are answered while another process holds the write lock, so guesses delay no push."""
    victim = boss.add("reader")
    turns = itertools.cycle(workers)
    assert [attempt(next(turns), by_basic(victim, "a wrong one")) for _ in range(10)] == [401] * 10
    with (server.data / "writer.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for worker in workers:
            assert attempt(worker, by_basic(victim, "a wrong one")) == 429


@pytest.mark.parametrize("signed_in", [True, False], ids=["signed in", "not signed in"])
def test_guessing_an_invitation_is_throttled_across_workers(
    server: Server,
    workers: list[Worker],
    boss: Person,
    signed_in: bool,  # noqa: FBT001
) -> None:
    """20: the code of an invitation is guessed ten times; then the right one is 429 too, on each worker."""
    guest = stranger(server) if signed_in else Person(server.port, "x", f"g-{token_hex(4)}@guest.example", "")
    given = boss.invite(guest.email, "admin")
    more = {} if signed_in else {"email": guest.email, "password": new_password()}
    client = guest.api if signed_in else Client(server.port)
    turns = itertools.cycle(workers)

    def accept(code: str) -> int:
        body = dumps({"code": code, **more})
        return attempt(next(turns), Attempt(client, "POST", "/api/v1/invitation", body, JSON))

    assert [accept("invite-wrong") for _ in range(10)] == [404] * 10
    assert [accept(given) for _ in workers] == [429] * len(workers)


def test_one_address_that_tries_many_accounts_is_throttled(server: Server, workers: list[Worker], boss: Person) -> None:
    """20: a hundred wrong passwords from one address, however many emails they are for; access tokens go on."""
    eve = boss.add("reader")
    secrets = [boss.secret, eve.secret]
    turns = itertools.cycle(workers)
    execute(server, "UPDATE throttles SET failures = 95 WHERE key = 'address:127.0.0.1'")
    seen = [
        attempt(next(turns), by_basic(Person(server.port, "x", f"p{number}@spray.example", ""), "a wrong one"))
        for number in range(8)
    ]
    assert seen == [401] * 5 + [429] * 3
    assert attempt(workers[0], by_basic(eve, eve.password)) == 429
    for worker, secret in itertools.product(workers, secrets):
        assert worker.get(basic(server.port, "POLLY", secret), "/token").status == 200
    execute(server, "DELETE FROM throttles WHERE key = 'address:127.0.0.1'")
