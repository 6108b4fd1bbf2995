"""Tests that cause failures of machines: see docs/failures.md. They need root, strace and loop devices."""
