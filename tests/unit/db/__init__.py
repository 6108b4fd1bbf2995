"""Tests of queries and of the journal."""
