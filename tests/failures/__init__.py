"""Failures of machines, made to happen: see docs/reliability.md. Root, strace and loop devices are needed."""
