"""/api/v1: the interface for the commands and other programs. docs/api.md describes it."""
