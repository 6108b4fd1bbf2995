"""Polly Docker Repository: a private registry for Docker and OCI images, and its commands."""

__version__ = "0.1.0"
