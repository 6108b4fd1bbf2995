"""Tests of what is close to the operating system."""
