"""Check a response against the schema in the OpenAPI document of /api/v1."""

from __future__ import annotations

from typing import Any


def resolve(document: dict[str, Any], ref: str) -> dict[str, Any]:
    """What a $ref points at."""
    assert ref.startswith("#/")
    found: Any = document
    for key in ref[2:].split("/"):
        found = found[key]
    assert isinstance(found, dict)
    return found


TYPES = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
    "number": float,
}


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any, at: str = "$") -> list[str]:  # noqa: ANN401
    """The places at which a value does not match its JSON Schema, of the keywords that msgspec writes."""
    unknown = set(schema) - {
        *("$ref", "type", "title", "description", "properties", "required", "additionalProperties", "items", "enum"),
        *("anyOf", "default", "const", "minimum", "maximum"),
    }
    assert not unknown, f"the test does not know {unknown}"
    if "$ref" in schema:
        return faults(document, resolve(document, schema["$ref"]), value, at)
    if "anyOf" in schema:
        tried = [faults(document, option, value, at) for option in schema["anyOf"]]
        return [] if [] in tried else [f"{at}: none of {len(tried)}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, TYPES[kind]) or (kind == "integer" and isinstance(value, bool))):
        return [*found, f"{at}: {value!r} is no {kind}"]
    if kind == "array":
        for number, item in enumerate(value):
            found += faults(document, schema.get("items", {}), item, f"{at}[{number}]")
    return found + (faults_of_object(document, schema, value, at) if kind == "object" else [])


def faults_of_object(document: dict[str, Any], schema: dict[str, Any], value: dict[str, Any], at: str) -> list[str]:
    """The places at which an object lacks a field, or has one that is not described or does not match."""
    properties = schema.get("properties", {})
    found = [f"{at}: lacks {key}" for key in schema.get("required", ()) if key not in value]
    for key, item in value.items():
        if key in properties:
            found += faults(document, properties[key], item, f"{at}.{key}")
        elif properties:
            found.append(f"{at}: {key} is not described")
    return found
