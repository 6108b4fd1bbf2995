"""Bytes: the BlobStore protocol with its guarantees, and the stores that keep them."""
