"""Tests of who may do what, without a process."""
