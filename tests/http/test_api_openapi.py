"""The description of /api/v1: a valid OpenAPI 3.1 document of exactly the routes that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from support.schema import faults, resolve
from support.wire_client import Answer, Client, Person, basic, image, new_admin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
TABLE = {
    "/api/v1": {"get"},
    "/api/v1/tokens": {"get", "post"},
    "/api/v1/tokens/{id}": {"delete"},
    "/api/v1/me": {"get"},
    "/api/v1/me/password": {"put"},
    "/api/v1/organisations/{org}/repositories": {"get", "post"},
    "/api/v1/organisations/{org}/repository": {"delete", "get", "patch"},
    "/api/v1/organisations/{org}/trash": {"get", "post"},
    "/api/v1/organisations/{org}/policy": {"get", "put"},
    "/api/v1/organisations/{org}/policy-preview": {"get"},
    "/api/v1/organisations/{org}/audit": {"get"},
    "/api/v1/organisations/{org}/commits": {"get"},
    "/api/v1/organisations/{org}/tags": {"get"},
    "/api/v1/invitation": {"post"},
    "/api/v1/organisations/{org}/invitations": {"delete", "get", "post"},
    "/api/v1/organisations/{org}/members": {"get", "patch", "delete"},
}
"""The rows of docs/api.md, but for that of the description itself."""


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    """The description that the server serves to anyone."""
    answer = Client(server.port).get("/api/v1/openapi.json")
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    return answer.json()


def walk(part: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - any JSON
    """Yield every object in the document."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from walk(value)
    elif isinstance(part, list):
        for value in part:
            yield from walk(value)


def test_its_structure(document: dict[str, Any]) -> None:
    """It has openapi, info, paths and components; each response has a description, each id in a path a parameter."""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]
    assert set(document) <= {"openapi", "info", "paths", "components", "servers", "security", "tags"}
    schemes = document["components"]["securitySchemes"]
    for path, item in document["paths"].items():
        assert set(item) <= set(METHODS)
        for operation in item.values():
            assert operation["summary"]
            assert all(set(need) <= set(schemes) for need in operation["security"])
            parameters = operation.get("parameters", [])
            in_path = {entry["name"] for entry in parameters if entry["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert all(entry["required"] for entry in parameters if entry["in"] == "path")
            assert all(entry["in"] in {"path", "query"} and entry["schema"] for entry in parameters)
            for status, response in operation["responses"].items():
                assert re.fullmatch("[2-5][0-9][0-9]", status)
                assert response["description"]


def test_its_references(document: dict[str, Any]) -> None:
    """Every $ref resolves, and every schema is used."""
    refs = {part["$ref"] for part in walk(document) if "$ref" in part}
    for ref in refs:
        assert resolve(document, ref)
    assert {ref.rpartition("/")[2] for ref in refs} == set(document["components"]["schemas"])


def test_its_routes(document: dict[str, Any]) -> None:
    """It has the addresses in the tables of docs/api.md and no others."""
    assert {path: set(item) for path, item in document["paths"].items()} == TABLE


def test_its_routes_are_the_servers(document: dict[str, Any], ann: Person) -> None:
    """The server takes the methods that are described at an address, and refuses every other with 405."""
    for path, item in document["paths"].items():
        address = path.replace("{org}", ann.org).replace("{id}", "absent")
        for method in ("get", "put", "post", "patch", "delete"):
            answer = ann.api.send(method.upper(), address, b"" if method in {"put", "post", "patch"} else None)
            assert (answer.status == 405) == (method not in item), (method, path)


def check(document: dict[str, Any], method: str, path: str, answer: Answer) -> None:
    """Fail unless the document has such a response, with a schema that the body follows."""
    responses = document["paths"][path][method]["responses"]
    assert str(answer.status) in responses, (method, path, answer.status, answer.body)
    content = responses[str(answer.status)].get("content")
    if content is None:
        assert answer.body == b""
        return
    assert answer.header("Content-Type") == "application/json"
    assert faults(document, content["application/json"]["schema"], answer.json()) == []


def test_the_checker_finds_faults(document: dict[str, Any]) -> None:
    """The little validator of this file refuses what is wrong."""
    schema = {"$ref": "#/components/schemas/Me"}
    texts = dict.fromkeys(("id", "label", "created_at", "expires_at"), "")
    token = {**texts, "scope": "full", "last_used_at": None, "current": True}
    good: dict[str, Any] = {"email": "a", "organisations": [{"organisation": "x", "role": "admin"}], "token": token}
    assert faults(document, schema, good) == []
    for bad in (
        {},
        good | {"email": 1},
        good | {"more": 1},
        good | {"organisations": [{"organisation": "x", "role": "owner"}]},
        good | {"token": token | {"current": 1}},
        good | {"token": token | {"last_used_at": 1}},
    ):
        assert faults(document, schema, bad)


def test_the_answers_of_the_server(document: dict[str, Any], server: Server) -> None:
    """Responses of the server, errors included, follow the schemas in the document."""
    ann = new_admin(server)
    name = ann.create()
    ann.repo(name).push(image(), "v1")
    bob = ann.add("reader")
    orgs = "/api/v1/organisations/{org}"
    wanted = {"email": bob.email, "role": "reader"}
    guest = Person(ann.port, ann.org, f"x{bob.email}", "a password of x")
    joining = {"code": ann.invite(guest.email, "reader"), "email": guest.email, "password": guest.password}
    requests: list[tuple[Client, str, str, str, object]] = [
        (Client(ann.port), "get", "/api/v1", "", None),
        (ann.by_password, "post", "/api/v1/tokens", "", {"label": "x"}),
        (ann.api, "post", "/api/v1/tokens", "", {"label": 1}),
        (ann.api, "get", "/api/v1/tokens", "", None),
        (Client(ann.port), "get", "/api/v1/tokens", "", None),
        (ann.api, "delete", "/api/v1/tokens/{id}", "", None),
        (bob.api, "get", "/api/v1/me", "", None),
        (bob.by_password, "put", "/api/v1/me/password", "", {"password": "x"}),
        (ann.api, "get", f"{orgs}/repositories", "?limit=2&sort=pushed&order=oldest&search=", None),
        (ann.api, "get", f"{orgs}/repositories", "?limit=x", None),
        (ann.api, "post", f"{orgs}/repositories", "", {"name": name + "-2", "description": "x"}),
        (ann.api, "post", f"{orgs}/repositories", "", {"name": name, "description": "x"}),
        (bob.api, "post", f"{orgs}/repositories", "", {"name": name + "-3", "description": "x"}),
        (ann.api, "post", f"{orgs}/repositories", "", {"name": "n", "description": "x" * (1 << 20)}),
        (ann.api, "get", f"{orgs}/repository", f"?name={name}", None),
        (ann.api, "get", f"{orgs}/repository", "?name=absent", None),
        (ann.api, "patch", f"{orgs}/repository", f"?name={name}", {"description": "y"}),
        (bob.api, "patch", f"{orgs}/repository", f"?name={name}", {"description": "y"}),
        (ann.api, "get", f"{orgs}/commits", f"?repository={name}", None),
        (ann.api, "get", f"{orgs}/commits", f"?repository={name}&tag=absent", None),
        (ann.api, "get", f"{orgs}/tags", f"?repository={name}", None),
        (ann.api, "get", f"{orgs}/tags", "?repository=absent", None),
        (bob.api, "get", f"{orgs}/policy", "", None),
        (ann.api, "put", f"{orgs}/policy", f"?name={name}", {"keep": "rules", "newest": 1}),
        (ann.api, "put", f"{orgs}/policy", f"?name={name}", {"keep": "rules"}),
        (ann.api, "put", f"{orgs}/policy", "?name=absent", {"keep": "everything"}),
        (bob.api, "put", f"{orgs}/policy", "?preview=true", {"keep": "everything"}),
        (ann.api, "get", f"{orgs}/policy", "", None),
        (ann.api, "get", f"{orgs}/policy-preview", f"?name={name}&as_of=2100-01-01T00:00:00Z", None),
        (bob.api, "get", f"{orgs}/policy-preview", "", None),
        (ann.api, "get", f"{orgs}/policy-preview", "?as_of=tomorrow", None),
        (ann.api, "get", f"{orgs}/members", "?limit=1", None),
        (ann.api, "post", f"{orgs}/invitations", "", wanted),
        (ann.api, "post", f"{orgs}/invitations", "", wanted | {"email": f"y{bob.email}"}),
        (bob.api, "post", f"{orgs}/invitations", "", wanted),
        (bob.api, "get", f"{orgs}/invitations", "", None),
        (ann.api, "delete", f"{orgs}/invitations", "?email=absent", None),
        (ann.api, "delete", f"{orgs}/invitations", f"?email=y{bob.email}", None),
        (bob.api, "post", "/api/v1/invitation", "", {"code": "invite-none"}),
        (Client(ann.port), "post", "/api/v1/invitation", "", {"code": "invite-none"}),
        (Client(ann.port), "post", "/api/v1/invitation", "", joining),
        (ann.api, "patch", f"{orgs}/members", f"?email={bob.email}", {"role": "writer"}),
        (ann.api, "patch", f"{orgs}/members", f"?email={ann.email}", {"role": "writer"}),
        (ann.api, "delete", f"{orgs}/members", "?email=absent", None),
        (ann.api, "delete", f"{orgs}/members", f"?email=x{bob.email}", None),
    ]
    for client, method, path, query, body in requests:
        address = path.replace("{org}", ann.org).replace("{id}", "absent") + query
        answer = (
            client.json(method.upper(), address, body) if body is not None else client.send(method.upper(), address)
        )
        check(document, method, path, answer)
    for _ in range(12):
        answer = basic(ann.port, f"throttled@{ann.org}.example", "wrong").json("POST", "/api/v1/tokens", {})
        check(document, "post", "/api/v1/tokens", answer)
    assert answer.status == 429


def test_the_roles_that_it_names(document: dict[str, Any], server: Server) -> None:
    """A member with a lower role than the document names is refused, and a stranger does not find the organisation."""
    ann = new_admin(server)
    name = ann.create()
    below = {"writer": ann.add("reader"), "admin": ann.add("writer"), "reader": new_admin(server)}
    bodies: dict[str, object] = {
        "RepositoryCreate": {"name": f"{name}-2", "description": "x"},
        "RepositoryUpdate": {"description": "x"},
        "Restore": {"repository": name},
        "PolicyUpdate": {"keep": "everything"},
        "InvitationCreate": {"email": "guest@polly.example", "role": "reader"},
        "MemberUpdate": {"role": "reader"},
    }
    for path, item in document["paths"].items():
        for method, operation in item.items():
            role = re.search(r"role (\w+)", operation.get("description", ""))
            if role is None:
                assert "{org}" not in path
                continue
            address = f"{path.replace('{org}', ann.org)}?name={name}&repository={name}&email={ann.email}"
            client = below[role[1]].api
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                answer = client.json(method.upper(), address, bodies[schema.rpartition("/")[2]])
            else:
                answer = client.send(method.upper(), address)
            assert answer.status == (404 if role[1] == "reader" else 403), (method, path, answer.body)
