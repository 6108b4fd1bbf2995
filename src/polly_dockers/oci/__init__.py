"""Manifests and references as documents. Nothing here touches a store; ``reference`` is light, for the commands."""
