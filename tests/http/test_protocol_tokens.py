"""protocol.md 2, 5, 6 and 8 to 19: the challenge and the token endpoint, as each client uses them."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from polly_dockers.model import BITS, Action
from support.wire_client import Answer, Client, Person, Repo, admin, basic, bearer, image, member, raw, stranger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.server import Server

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
CHALLENGE = re.compile(
    r'Bearer realm="([^"]+)",service="([^"]+)"(?:,scope="([^"]+)")?'
    r'(?:,error="([a-z_]+)",error_description="[^"\\]+")?\Z'
)


@pytest.fixture(scope="module")
def repo(ann: Person) -> Repo:
    """A repository that holds an image."""
    made = ann.new_repo()
    made.push(image(), "v1")
    return made


def ask(client: Client, *scopes: str, **more: str) -> Answer:
    """GET of the token endpoint with the scopes."""
    return client.get("/token?" + urlencode([*(("scope", scope) for scope in scopes), *more.items()]))


def post(port: int, fields: Sequence[tuple[str, str]]) -> Answer:
    """POST of the form."""
    return Client(port).send("POST", "/token", urlencode(fields).encode(), FORM)


def claims(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    payload = token.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(found, dict)
    return found


def granted(answer: Answer) -> dict[str, set[str]]:
    """Return the actions that the token in a response allows, by repository."""
    assert answer.status == 200, answer.body
    words = [word.split(":") for word in answer.json().get("scope", "").split()]
    found = {name: set(actions.split(",")) for _, name, actions in words}
    grants = claims(answer.json()["token"])["grants"]
    bits = sorted([*grants["ids"].values(), *grants["names"].values()])
    assert bits == sorted(sum(BITS[Action(each)] for each in actions) for actions in found.values())
    return found


def test_the_challenge_at_the_base(server: Server) -> None:
    """8, 10, 11: the realm is absolute and has no query; there is a service, no scope, and no second scheme."""
    answer = Client(server.port).get("/v2/")
    found = CHALLENGE.match(answer.header("WWW-Authenticate"))
    assert found is not None
    assert found.groups() == (f"http://127.0.0.1:{server.port}/token", server.registry, None, None)
    assert not re.search("basic|bearer", answer.header("WWW-Authenticate")[7:], re.IGNORECASE)


def test_the_realm_is_where_the_client_came_to(server: Server) -> None:
    """11: without a public URL the realm has the host of the request, unless that Host is invalid."""
    for host, realm in (("registry.example:99", "http://registry.example:99/token"), ('a"b', f"{server.url}/token")):
        answer = raw(server.port, f"GET /v2/ HTTP/1.1\nHost: {host}\nConnection: close")
        assert answer.header("WWW-Authenticate").startswith(f'Bearer realm="{realm}",')


@pytest.mark.parametrize(
    ("method", "rest", "scope"),
    [
        ("GET", "manifests/v1", "pull"),
        ("HEAD", "manifests/v1", "pull"),
        ("GET", "tags/list", "pull"),
        ("GET", "referrers/sha256:" + "0" * 64, "pull"),
        ("HEAD", "blobs/sha256:" + "0" * 64, "pull"),
        ("POST", "blobs/uploads/", "pull,push"),
        ("PATCH", "blobs/uploads/x", "pull,push"),
        ("PUT", "manifests/v1", "pull,push"),
        ("DELETE", "blobs/uploads/x", "pull,push"),
        ("DELETE", "manifests/v1", "delete"),
        ("DELETE", "blobs/sha256:" + "0" * 64, "delete"),
    ],
)
def test_what_a_request_needs(server: Server, repo: Repo, method: str, rest: str, scope: str) -> None:
    """18: the challenge of each request names the scope that a token for it takes, as one parameter."""
    body = b"" if method in {"POST", "PATCH", "PUT"} else None
    answer = Client(server.port).send(method, repo.path(rest), body)
    found = CHALLENGE.match(answer.header("WWW-Authenticate"))
    assert answer.status == 401
    assert found is not None
    assert found.groups()[2:] == (f"repository:{repo.name}:{scope}", "insufficient_scope")


def test_the_catalogue_needs_its_scope(server: Server, ann: Person) -> None:
    """18: the challenge asks for registry:catalog:*, whether the client is signed in without it or not at all."""
    for client in (Client(server.port), bearer(server.port, ann.registry_token())):
        found = CHALLENGE.match(client.get("/v2/_catalog").header("WWW-Authenticate"))
        assert found is not None
        assert found.groups()[2:] == ("registry:catalog:*", "insufficient_scope")


def test_a_login(server: Server, ann: Person) -> None:
    """9, 12, 14: GET with Basic and no scope returns a token for /v2/, with all fields that clients read."""
    answer = ask(ann.by_password, account="ann", service=server.registry, client_id="docker", offline_token="true")
    body = answer.json()
    assert answer.status == 200
    assert body["token"] == body["access_token"]
    assert body["expires_in"] >= 60
    issued = dt.datetime.fromisoformat(body["issued_at"])
    assert issued.tzinfo is not None
    assert abs(dt.datetime.now(dt.UTC) - issued) < dt.timedelta(minutes=5)
    assert "refresh_token" not in body  # 16
    assert answer.header("Cache-Control") == "no-store"
    assert bearer(server.port, body["token"]).get("/v2/").status == 200


@pytest.mark.parametrize("user", ["POLLY", "ann@acme.example", "anything at all"])
def test_a_login_by_an_access_token(server: Server, ann: Person, user: str) -> None:
    """12: an access token signs in its own user, whatever user name is sent with it."""
    answer = ask(basic(server.port, user, ann.secret), account="somebody@else.example")
    assert answer.status == 200
    assert bearer(server.port, answer.json()["token"]).get("/v2/").status == 200


def test_scopes_repeated_and_apart_by_spaces(ann: Person, repo: Repo) -> None:
    """12: several scopes may be repeated, separated by spaces, or both."""
    second, third = ann.create(), ann.create()
    scopes = [f"repository:{name}:pull" for name in (repo.name, f"acme/{second}", f"acme/{third}")]
    wanted = {repo.name: {"pull"}, f"acme/{second}": {"pull"}, f"acme/{third}": {"pull"}}
    assert granted(ask(ann.by_password, *scopes)) == wanted
    assert granted(ask(ann.by_password, " ".join(scopes))) == wanted
    assert granted(ask(ann.by_password, scopes[0], f"{scopes[1]}  {scopes[2]}")) == wanted


@pytest.mark.parametrize(
    ("scope", "actions"),
    [
        ("repository:{}:pull", {"pull"}),
        ("repository:{}:pull,push", {"pull", "push"}),
        ("repository:{}:*", {"pull", "push", "delete"}),
        ("repository(plugin):{}:pull", {"pull"}),
        ("repository:{}:pull,fly", {"pull"}),
        ("repository:{}:", set()),
        ("repository:{}:fly", set()),
        ("repository:host:5000/{}:pull", set()),
        ("galaxy:{}:pull", set()),
        ("repository:{}", set()),
        ("repository:UPPER/{}:pull", set()),
        (":::", set()),
        ("junk", set()),
    ],
)
def test_the_grammar_of_a_scope(ann: Person, repo: Repo, scope: str, actions: set[str]) -> None:
    """17: scopes that are understood are granted, and others are ignored without an error."""
    assert granted(ask(ann.by_password, scope.format(repo.name))) == ({repo.name: actions} if actions else {})


def test_a_narrower_token(server: Server, repo: Repo) -> None:
    """13: fewer rights make a narrower token, and the answer says which scope it has."""
    everything = f"repository:{repo.name}:pull,push,delete"
    for person, actions in (
        (member(server, "reader"), {"pull"}),
        (member(server, "writer"), {"pull", "push"}),
        (admin(server), {"pull", "push", "delete"}),
    ):
        answer = ask(person.by_password, everything)
        assert granted(answer) == {repo.name: actions}
        assert answer.json()["scope"] == f"repository:{repo.name}:{','.join(sorted(actions))}"
    answer = ask(stranger(server).by_password, everything)
    assert granted(answer) == {}
    assert bearer(server.port, answer.json()["token"]).get("/v2/").status == 200


def test_a_token_is_good_for_what_was_asked(server: Server, ann: Person, repo: Repo) -> None:
    """18, 19: an admin's token for pull alone pushes and deletes nothing, here and elsewhere."""
    token = bearer(server.port, ann.registry_token(f"repository:{repo.name}:pull"))
    assert token.get(repo.path("manifests/v1")).status == 200
    for method, path in (
        ("POST", repo.path("blobs/uploads/")),
        ("DELETE", repo.path("manifests/v1")),
        ("GET", f"/v2/acme/{ann.create()}/tags/list"),
    ):
        answer = token.send(method, path)
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert 'error="insufficient_scope"' in answer.header("WWW-Authenticate")


@pytest.mark.parametrize("secret", ["wrong", "", "polly_wrong", "p:a:s:s", "ä€😀"])
def test_bad_credentials(server: Server, secret: str) -> None:
    """13: 401 with a challenge, whether the account exists or not."""
    for email in (member(server, "reader").email, "nobody@acme.example", "no email", ""):
        answer = ask(basic(server.port, email, secret))
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert answer.header("WWW-Authenticate").startswith("Bearer realm=")


@pytest.mark.parametrize(
    "header", ["Basic", "Basic ", "Basic !!!", "Basic YQ==", "Basic \xff\xfe", "Basic /w==", "Foo x"]
)
def test_malformed_credentials(server: Server, header: str) -> None:
    """13: a header without valid Basic credentials is 401."""
    answer = raw(server.port, f"GET /token HTTP/1.1\nHost: x\nConnection: close\nAuthorization: {header}")
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def test_nobody_gets_no_token(server: Server, repo: Repo) -> None:
    """Without credentials there is no token for a private repository, a missing one, or no scope at all."""
    for scopes in ([f"repository:{repo.name}:pull"], ["repository:acme/absent:pull"], [], ["registry:catalog:*"]):
        answer = ask(Client(server.port), *scopes)
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def test_a_public_repository(server: Server, ann: Person) -> None:
    """Anybody gets a token to pull a public one and nothing more; made private, the next request is refused."""
    name = ann.create(access="public")
    ann.repo(name).push(image("for all"), "v1")
    answer = ask(Client(server.port), f"repository:acme/{name}:pull,push,delete")
    assert granted(answer) == {f"acme/{name}": {"pull"}}
    anybody = bearer(server.port, answer.json()["token"])
    assert anybody.get(f"/v2/acme/{name}/manifests/v1").body == image("for all").manifest
    assert anybody.send("POST", f"/v2/acme/{name}/blobs/uploads/").status == 401
    assert anybody.get("/v2/_catalog").status == 401
    assert stranger(server).at(f"acme/{name}").manifest("v1").status == 200
    changed = ann.api.json("PATCH", f"{ann.base}/repository?name={name}", {"access": "private"})
    assert changed.status == 200
    assert anybody.get(f"/v2/acme/{name}/manifests/v1").status == 401
    assert ask(Client(server.port), f"repository:acme/{name}:pull").status == 401


def test_the_form_with_a_password(server: Server, ann: Person, repo: Repo) -> None:
    """15: grant_type=password; scope repeated as skopeo does, or apart by spaces."""
    other = f"acme/{ann.create()}"
    base = [("grant_type", "password"), ("username", ann.email), ("password", ann.password), ("service", "x")]
    one, two = f"repository:{repo.name}:pull", f"repository:{other}:pull,push"
    for scopes in ([("scope", one), ("scope", two)], [("scope", f"{one} {two}")]):
        answer = post(server.port, [*base, *scopes, ("client_id", "containerd")])
        assert granted(answer) == {repo.name: {"pull"}, other: {"pull", "push"}}
        body = answer.json()
        assert body["access_token"]
        assert body["expires_in"] >= 60
        assert set(body["scope"].split()) == {one, two}
        assert "refresh_token" not in body


def test_the_form_with_an_access_token(server: Server, ann: Person, repo: Repo) -> None:
    """15: grant_type=refresh_token takes an access token, of either scope."""
    for secret in (ann.secret, ann.access_token("registry")):
        fields = [("grant_type", "refresh_token"), ("refresh_token", secret), ("scope", f"repository:{repo.name}:pull")]
        assert granted(post(server.port, fields)) == {repo.name: {"pull"}}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("grant_type", "password"), ("username", "ann@acme.example"), ("password", "wrong")], 401),
        ([("grant_type", "password"), ("username", "ann@acme.example")], 401),
        ([("grant_type", "password")], 401),
        ([("grant_type", "refresh_token"), ("refresh_token", "polly_wrong")], 401),
        ([("grant_type", "refresh_token")], 401),
        ([("grant_type", "authorization_code"), ("code", "x")], 400),
        ([], 400),
    ],
)
def test_the_form_refused(server: Server, fields: list[tuple[str, str]], status: int) -> None:
    """15: what containerd and BuildKit fall back on: 401 for bad credentials, 400 for another grant."""
    answer = post(server.port, fields)
    assert (answer.status, answer.code) == (status, "UNAUTHORIZED" if status == 401 else "BAD_REQUEST")


@pytest.mark.parametrize("body", [b"\xff\xfe", b"{}", b"&&&=&=", b"a" * 70_000, b"a=b&" * 300])
def test_junk_for_a_form(server: Server, body: bytes) -> None:
    """15: a body that is not a form is 400, or 413 if it is too large."""
    answer = Client(server.port).send("POST", "/token", body, FORM)
    assert (answer.status, answer.code) in {(400, "BAD_REQUEST"), (413, "SIZE_INVALID")}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods(server: Server, method: str) -> None:
    """15: the token endpoint takes GET and POST; others are 405."""
    answer = Client(server.port).send(method, "/token")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")


def test_a_token_ends_with_its_access_token(server: Server, ann: Person) -> None:
    """14: expires_in is at least 60 and ends no later than the access token that was used."""
    answer = ask(basic(server.port, "POLLY", ann.access_token("registry", expires_in=90)))
    assert 60 <= answer.json()["expires_in"] <= 90


def test_a_push_to_what_is_not_there_says_how_to_make_it(server: Server) -> None:
    """19: the error for a push to a missing repository names the command that creates it."""
    missing = member(server, "writer").repo("not-made-yet")
    for answer in (missing.send("POST", missing.path("blobs/uploads/")), missing.put("v1", b"{}")):
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
        assert "polly dockers create --name not-made-yet" in answer.message
    pulled = missing.manifest("v1")
    assert (pulled.status, pulled.code) == (404, "NAME_UNKNOWN")


def test_a_push_makes_the_repository_where_the_organisation_says_so(server: Server) -> None:
    """An organisation with create-on-push: the first push by a writer makes it; a pull does not."""
    org, (email, password) = server.new_org(create_on_push=True)
    person = Person(server.port, org, email, password)
    repo = person.repo("made/by/push")
    assert repo.manifest("v1").status == 404
    made = image()
    repo.push(made, "v1")
    assert repo.manifest("v1").body == made.manifest
    assert person.repository("made/by/push")["access"] == "private"
    too_long = person.repo("x" * (254 - len(org)))  # 255 of its own, and a host comes before it
    answer = too_long.send("POST", too_long.path("blobs/uploads/"))
    assert (answer.status, answer.code) == (400, "NAME_INVALID")


def test_every_answer_has_its_headers(server: Server, ann: Person, repo: Repo) -> None:
    """6: each response has version and request ID: below /v2, at the token endpoint, in /api/v1 and elsewhere."""
    for client, path in (
        (Client(server.port), "/v2/"),
        (repo, "/v2/"),
        (ann.by_password, "/token"),
        (Client(server.port), "/token"),
        (ann.api, "/api/v1/me"),
        (Client(server.port), "/"),
        (Client(server.port), "/healthz"),
        (Client(server.port), "/readyz"),
        (Client(server.port), "/metrics"),
        (Client(server.port), "/nothing"),
    ):
        answer = client.get(path)
        assert answer.header("Docker-Distribution-Api-Version") == "registry/2.0"
        assert re.fullmatch("[0-9a-f]{16}", answer.header("X-Request-Id"))
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("Server") == "polly"
