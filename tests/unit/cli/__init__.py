"""Tests of the parts of the polly commands."""
