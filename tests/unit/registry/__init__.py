"""Tests of use cases over a database and a store in memory, without a process."""
