"""Manifests and references as documents: bytes in, what the registry must know out. Nothing here touches a store."""

from polly_dockers.oci import fields, manifest

__all__ = ["fields", "manifest"]
