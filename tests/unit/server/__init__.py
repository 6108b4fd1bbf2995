"""Tests of the parts of the server's process."""
