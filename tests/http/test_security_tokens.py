"""security.md 7, 17 and 20: forged tokens, what logs contain, and too many failed sign-ins."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import pysqlite3.dbapi2 as sqlite
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.server import running_server
from support.wire_client import Client, Person, Repo, admin, basic, bearer, image, raw, sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Server


@dataclass(frozen=True)
class Forge:
    """The server's own key, which an attacker does not have, and a valid token."""

    kid: str
    key: Ed25519PrivateKey
    good: str
    repo: Repo

    def claims(self, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        """Return the claims of the valid token with the changes; None removes a claim."""
        payload = self.good.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) | changes
        return {key: value for key, value in found.items() if key not in changes or value is not None}

    def sign(self, key: Any = None, headers: dict[str, Any] | None = None, **changes: Any) -> str:  # noqa: ANN401
        """A token signed by EdDSA with the server's key, or another."""
        return jwt.encode(
            self.claims(**changes), key or self.key, algorithm="EdDSA", headers={"kid": self.kid, **(headers or {})}
        )

    def by_hand(self, header: dict[str, Any], secret: bytes | None = None) -> str:
        """A token that a library would not make: signed by HS256 with ``secret``, or not at all."""
        parts = [json.dumps(part).encode() for part in (header, self.claims())]
        text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        signature = hmac.new(secret, text, hashlib.sha256).digest() if secret is not None else b""
        return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.fixture(scope="module")
def forge(server: Server) -> Forge:
    """The server's key, read out of its database."""
    with contextlib.closing(sqlite.connect(server.data / "polly.db")) as connection:
        kid, raw_key = connection.execute("SELECT kid, private_key FROM signing_keys").fetchone()
    repo = admin(server).new_repo()
    repo.push(image(), "v1")
    good = str(repo.authorization).removeprefix("Bearer ")
    return Forge(kid, Ed25519PrivateKey.from_private_bytes(raw_key), good, repo)


def public(forge: Forge, encoding: Encoding = Encoding.Raw, form: PublicFormat = PublicFormat.Raw) -> bytes:
    """The server's public key."""
    return forge.key.public_key().public_bytes(encoding, form)


def jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """A public key, as a header may embed it."""
    x = base64.urlsafe_b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x}


def admin_secret(forge: Forge) -> str:
    """An access token, which /v2 takes by way of the token endpoint only."""
    return Person(forge.repo.port, "acme", *_PASSWORDS[forge.repo.port]).secret


_PASSWORDS: dict[int, tuple[str, str]] = {}


OTHER = Ed25519PrivateKey.generate()
FORGERIES: dict[str, Callable[[Forge], str]] = {
    "algorithm none": lambda forge: forge.by_hand({"alg": "none", "kid": forge.kid}),
    "algorithm None": lambda forge: forge.by_hand({"alg": "None", "kid": forge.kid}),
    "HS256 by the public key": lambda forge: forge.by_hand({"alg": "HS256", "kid": forge.kid}, public(forge)),
    "HS256 by the public key in PEM": lambda forge: forge.by_hand(
        {"alg": "HS256", "kid": forge.kid}, public(forge, Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
    "HS256 by nothing": lambda forge: forge.by_hand({"alg": "HS256", "kid": forge.kid}, b""),
    "another key": lambda forge: forge.sign(OTHER),
    "unknown kid": lambda forge: forge.sign(OTHER, {"kid": "unknown"}),
    "no kid": lambda forge: jwt.encode(forge.claims(), forge.key, algorithm="EdDSA"),
    "kid is a path": lambda forge: forge.sign(OTHER, {"kid": "../../../dev/null"}),
    "embedded jwk": lambda forge: forge.sign(OTHER, {"jwk": jwk(OTHER)}),
    "embedded jwk of an unknown kid": lambda forge: forge.sign(OTHER, {"jwk": jwk(OTHER), "kid": "mine"}),
    "jku": lambda forge: forge.sign(OTHER, {"jku": "http://127.0.0.1/keys"}),
    "x5c": lambda forge: forge.sign(OTHER, {"x5c": ["AAAA"]}),
    "unknown crit": lambda forge: forge.sign(headers={"crit": ["polly"], "polly": True}),
    "expired": lambda forge: forge.sign(exp=int(time.time()) - 61),
    "not yet": lambda forge: forge.sign(iat=int(time.time()) + 3600),
    "without exp": lambda forge: forge.sign(exp=None),
    "without iat": lambda forge: forge.sign(iat=None),
    "without aud": lambda forge: forge.sign(aud=None),
    "without iss": lambda forge: forge.sign(iss=None),
    "another audience": lambda forge: forge.sign(aud="registry.example"),
    "another issuer": lambda forge: forge.sign(iss="auth.docker.io"),
    "claims changed": lambda forge: ".".join(
        [forge.good.split(".")[0], forge.sign(sub="1", jti="x").split(".")[1], forge.good.split(".")[2]]
    ),
    "signature cut off": lambda forge: forge.good.rpartition(".")[0] + ".",
    "signature cut short": lambda forge: forge.good[:-4],
    "no token": lambda _forge: "junk",
    "dots": lambda _forge: "..",
    "empty": lambda _forge: "",
    "an access token": admin_secret,
    "deep header": lambda _forge: base64.urlsafe_b64encode(b'{"a":' + b"[" * 5000).decode().rstrip("=") + ".e30.AAAA",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token(server: Server, forge: Forge, forgery: str) -> None:
    """7 (CVE-2025-24976, CVE-2026-32597, CVE-2026-48526): 401 for a token that is forged, expired or for others."""
    _PASSWORDS[server.port] = server.admin
    forged = bearer(server.port, FORGERIES[forgery](forge))
    for path in ("/v2/", forge.repo.path("manifests/v1")):
        answer = forged.get(path)
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def test_the_forge_is_right(server: Server, forge: Forge) -> None:
    """7: the same token signed again without a change is valid, so it is the changes that are refused."""
    assert bearer(server.port, forge.sign(jti="another")).get(forge.repo.path("manifests/v1")).status == 200
    assert bearer(server.port, forge.sign(headers={"jwk": jwk(OTHER)})).get("/v2/").status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_bytes_that_are_no_text(server: Server, scheme: str) -> None:
    """7: a token that is not ASCII is 401 in the registry and in /api/v1, and not an internal error."""
    for path in ("/v2/", "/api/v1/me"):
        answer = raw(
            server.port, f"GET {path} HTTP/1.1\nHost: x\nConnection: close\nAuthorization: {scheme} \xff.\xfe.x"
        )
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def test_the_interface_takes_no_registry_token(server: Server, forge: Forge) -> None:
    """7: a registry token, and an access token for the registry only, open nothing of /api/v1."""
    ann = admin(server)
    for secret in (forge.good, ann.access_token("registry")):
        answer = bearer(server.port, secret).get("/api/v1/me")
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def lines(server: Server) -> list[dict[str, Any]]:
    """The server's log."""
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def test_what_the_log_tells(tmp_path: Path) -> None:
    """17: every request by its id, and no password, token, Authorization or query, whatever went wrong."""
    with running_server(tmp_path, "--log-level", "debug", "--workers", "1") as server:
        ann = admin(server)
        repo = ann.new_repo()
        registry_token = str(repo.authorization).removeprefix("Bearer ")
        secrets = [ann.password, ann.secret, registry_token, ann.access_token("registry"), "a-wrong-password"]
        basic(server.port, ann.email, "a-wrong-password").get("/token?scope=repository:acme/query-of-a-scope:pull")
        form = f"grant_type=password&username={ann.email}&password={ann.password}".encode()
        Client(server.port).send("POST", "/token", form)
        repo.push(image(), "v1")
        refused = repo.get(repo.path("manifests/absent?secret=query-of-a-pull"))
        raw(server.port, f"GET /v2/ HTTP/1.1\nHost: x\nConnection: close\nAuthorization: Basic {ann.password}\xff")
        repo.get("/v2/acme/%1b%5b31mred%0a/tags/list")
        location = repo.start()
        repo.send("PUT", f"{location}?digest={sha256(b'x')}&_state=state-of-an-upload", b"y")
        assert ann.by_password.json("PUT", "/api/v1/me/password", {"password": "the-next-password"}).status == 204
    text = server.log.read_text()
    for secret in (*secrets, "the-next-password", "query-of-a", "state-of-an-upload", "Authorization", "Basic "):
        assert secret not in text
    assert base64.b64encode(f"{ann.email}:{ann.password}".encode()).decode() not in text
    assert "\x1b" not in text
    found = {line.get("request_id"): line for line in lines(server)}
    line = found[refused.header("X-Request-Id")]
    assert (line["status"], line["path"], line["method"]) == (404, repo.path("manifests/absent"), "GET")
    assert line["user"]


def test_a_name_of_no_text_in_the_log(tmp_path: Path) -> None:
    """17: a path that is not UTF-8 is answered and logged, escaped, like any other."""
    with running_server(tmp_path, "--workers", "1") as server:
        answer = Client(server.port).get("/v2/acme/%ff%fe/tags/list")
        assert answer.status == 400
    assert answer.header("X-Request-Id") in {line.get("request_id") for line in lines(server)}


def test_what_is_not_a_request_has_an_id_too(tmp_path: Path) -> None:
    """17: it is refused with the headers and the body of every error, and the log has it under its ID."""
    with running_server(tmp_path, "--workers", "1") as server:
        common = Client(server.port).get("/healthz").headers
        answers = [raw(server.port, "GET / HTTP/1.1"), raw(server.port, "GET /\nX: " + "a" * 70_000)]
    assert [answer.status for answer in answers] == [400, 431]
    found = {line.get("request_id"): line for line in lines(server)}
    for answer in answers:
        assert set(common) <= set(answer.headers)
        assert answer.header("Content-Type") == "application/json"
        for name in ("Server", "X-Content-Type-Options", "Docker-Distribution-Api-Version"):
            assert answer.headers[name] == common[name]
        assert (answer.code, answer.message[-1]) == ("BAD_REQUEST", ".")
        assert answer.json()["errors"][0]["detail"] == {"request_id": answer.header("X-Request-Id")}
        line = found[answer.header("X-Request-Id")]
        assert (line["status"], line["sent"]) == (answer.status, len(answer.body))


def test_secrets_are_kept_hashed_and_closed(server: Server) -> None:
    """19: the data folder contains no password or access token, and only its owner may read it."""
    ann = admin(server)
    assert ann.secret
    for path in (server.data, *server.data.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 or stat.S_IMODE(server.data.stat().st_mode) == 0o700, path
    for path in server.data.glob("polly.db*"):
        content = path.read_bytes()
        assert ann.secret.encode() not in content
        assert ann.password.encode() not in content
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


def test_wrong_passwords_are_throttled(tmp_path: Path) -> None:
    """20: ten for one account from one address; then 429 with Retry-After, whatever the password; others go on."""
    with running_server(tmp_path) as server:
        ann = admin(server)
        bob = ann.add("reader")
        wrong = basic(server.port, bob.email, "wrong password")
        assert [wrong.get("/token").status for _ in range(12)] == [401] * 10 + [429] * 2
        for client in (wrong, bob.by_password):
            answer = client.get("/token")
            assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
            assert 1 <= int(answer.header("Retry-After")) <= 900
        by_form = {"grant_type": "password", "username": bob.email.upper(), "password": bob.password}
        form = "&".join(f"{key}={value}" for key, value in by_form.items()).encode()
        assert Client(server.port).send("POST", "/token", form).status == 429
        assert bob.by_password.json("POST", "/api/v1/tokens", {}).status == 429
        assert ann.by_password.get("/token").status == 200
        nobody = basic(server.port, "nobody@acme.example", "wrong password")
        assert [nobody.get("/token").status for _ in range(12)] == [401] * 10 + [429] * 2


def test_a_right_password_forgives(tmp_path: Path) -> None:
    """20: a successful sign-in resets the count; access tokens are never throttled."""
    with running_server(tmp_path, "--workers", "1") as server:
        ann = admin(server)
        secret = ann.secret
        wrong = basic(server.port, ann.email, "wrong password")
        for _ in range(2):
            assert [wrong.get("/token").status for _ in range(9)] == [401] * 9
            assert ann.by_password.get("/token").status == 200
        assert [wrong.get("/token").status for _ in range(12)][-1] == 429
        assert basic(server.port, ann.email, secret).get("/token").status == 200
        assert bearer(server.port, secret).get("/api/v1/me").status == 200
