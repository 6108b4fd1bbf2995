"""Helpers for the operating system: file owners, the disk, processes, locks, syncs, time, addresses, the log."""
