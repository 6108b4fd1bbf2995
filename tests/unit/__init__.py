"""Tests that need no running server; the folders are those of the code."""
