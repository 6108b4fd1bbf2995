"""/api/v1: what the commands speak. docs/api.md says it in words, ``openapi`` for machines."""
