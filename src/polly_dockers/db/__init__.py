"""Rows: the engine (read, write), the schema, and queries as plain functions over a Connection."""
