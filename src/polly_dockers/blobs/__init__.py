"""Blobs: the protocol of a store and its guarantees (``store``), and the stores that fulfil it."""
