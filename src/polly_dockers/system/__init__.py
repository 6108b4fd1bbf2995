"""Helpers for the operating system: file owners, processes, locks, syncs, time, addresses, writing the log."""
