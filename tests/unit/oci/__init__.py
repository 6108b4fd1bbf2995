"""Tests of manifests as documents."""
