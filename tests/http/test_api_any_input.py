"""/api/v1 with random input made from its OpenAPI document: no internal error, and a refusal changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.rows import rows
from support.schema import faults, resolve
from support.wire_client import Client, Person, new_admin

if TYPE_CHECKING:
    from support.server import Server

KNOWN = ["one", "two/three", "private", "registry", "sha256:" + "0" * 64, "v1", "bob@acme.example", "admin", "reader"]

TEXT = (
    st.sampled_from(KNOWN)
    | st.text(max_size=12)
    | st.sampled_from(["", "\0", "~", "../x", "a" * 300, "é", "%2f", "1e9"])
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
TYPES = {"string": TEXT, "integer": st.integers(-1, 1 << 70), "boolean": st.booleans(), "null": st.none()}


def value(document: dict[str, Any], schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw a value: usually one that the schema allows, now and then anything else."""
    if "$ref" in schema:
        return value(document, resolve(document, schema["$ref"]))
    if "anyOf" in schema:
        return st.one_of(*(value(document, option) for option in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | TEXT
    if "properties" in schema:
        fields = {key: value(document, inner) for key, inner in schema["properties"].items()}
        return st.fixed_dictionaries({}, optional=fields) | st.fixed_dictionaries(fields) | ANY
    return TYPES.get(schema.get("type", ""), ANY) | ANY


def query(parameter: dict[str, Any]) -> st.SearchStrategy[str]:
    """A parameter's text."""
    schema = parameter["schema"]
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | TEXT
    return st.integers(-1, 2000).map(str) | TEXT if schema["type"] == "integer" else TEXT


@st.composite
def requests(draw: st.DrawFn, document: dict[str, Any], org: str) -> tuple[str, str, str, bytes | None]:
    """Draw an operation of the document: its path there, the method, the address and a body."""
    path = draw(st.sampled_from(sorted(document["paths"])))
    method = draw(st.sampled_from(sorted(document["paths"][path])))
    operation = document["paths"][path][method]
    given = {
        each["name"]: draw(query(each))
        for each in operation.get("parameters", ())
        if each["in"] == "query" and draw(st.integers(0, 3))
    }
    id_ = draw(TEXT.filter(lambda text: text != "current"))
    address = path.replace("{org}", draw(st.just(org) | st.just(org) | TEXT.map(lambda text: quote(text, safe=""))))
    address = address.replace("{id}", quote(id_, safe=""))
    if given:
        address += f"?{urlencode(given, errors='surrogatepass')}"
    if "requestBody" not in operation:
        return path, method, address, None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    body = json.dumps(draw(value(document, schema))).encode()
    return path, method, address, draw(st.just(body) | st.just(body) | st.binary(max_size=20))


@pytest.fixture(scope="module")
def person(server: Server) -> Person:
    """The admin of an organisation of its own, with something in it."""
    other = new_admin(server)
    for name in ("one", "two/three"):
        other.api.json("POST", f"{other.base}/repositories", {"name": name, "description": "x"})
    return other


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    """The OpenAPI document of the server."""
    found: dict[str, Any] = Client(server.port).get("/api/v1/openapi.json").json()
    return found


def test_any_request(server: Server, person: Person, document: dict[str, Any]) -> None:
    """The document describes each response, status and body; a refused request changes no row."""

    @settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(requests(document, person.org))
    def ask(request: tuple[str, str, str, bytes | None]) -> None:
        path, method, address, body = request
        before = rows(server)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        answer = person.api.send(method.upper(), address, body, headers)
        assert answer.status < 500, answer.body
        if answer.status >= 400:
            assert rows(server) == before
        responses = document["paths"][path][method]["responses"]
        assert str(answer.status) in responses or answer.status in {400, 404, 405}, (answer.status, answer.body)
        content = responses.get(str(answer.status), responses["400"]).get("content")
        if content is not None:
            assert faults(document, content["application/json"]["schema"], answer.json()) == []

    ask()
