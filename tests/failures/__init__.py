"""Failures of machines, made to happen: see docs/failures.md. Root, strace and loop devices are needed."""
