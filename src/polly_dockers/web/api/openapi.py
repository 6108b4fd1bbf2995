"""Describes /api/v1 as OpenAPI 3.1, from the route table and the types of ``api_types``."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import msgspec

from polly_dockers import __version__, api_types

if TYPE_CHECKING:
    from polly_dockers.web.api.params import Parameter
    from polly_dockers.web.api.routing import Route


@functools.cache
def document(routes: tuple[Route, ...]) -> bytes:
    """The document, as JSON."""
    documented = [route for route in routes if route.documented]
    paths: dict[str, Any] = {}
    for route in documented:
        paths.setdefault(f"/api/v1{route.path}", {})[route.method.lower()] = _operation(route)
    bodies = (shape for route in documented for shape in (route.body, route.response) if shape is not None)
    shapes = sorted({api_types.Errors, *bodies}, key=lambda shape: shape.__name__)
    _, components = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Polly Docker Repository",
                "version": __version__,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer", "description": "An access token of scope full."},
                    "password": {"type": "http", "scheme": "basic", "description": "Email and password."},
                },
            },
        }
    )


def _operation(route: Route) -> dict[str, Any]:
    success = {"description": route.summary, **(_content(route.response) if route.response is not None else {})}
    error = {"description": "An error. Its message says what to do.", **_content(api_types.Errors)}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "responses": {str(route.status): success} | {str(status): error for status in route.statuses},
        "security": list(route.sign_in.security),
    }
    if "{org}" in route.path:
        operation["description"] = f"For members of the organisation with the role {route.role.name} or higher."
    variables = re.findall(r"\{(\w+)\}", route.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in variables]
    parameters += [_parameter(parameter) for parameter in route.query]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, **_content(route.body)}
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "schema": parameter.schema,
        "description": parameter.help,
    }


def _content(shape: type) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}}}
