"""Damage to rows, as a disk could do it: the database itself stays readable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from polly_dockers.db.schema import manifests

if TYPE_CHECKING:
    from sqlalchemy import Connection


def damage_manifest(connection: Connection, digest: str, wrong: bytes | None = None) -> None:
    """Store other bytes for a manifest in all repositories: ``wrong``, or its own with one bit flipped."""
    mine = manifests.c.digest == digest
    body = bytearray(connection.execute(select(manifests.c.body).where(mine)).scalars().first() or b"")
    body[len(body) // 2] ^= 1
    connection.execute(update(manifests).where(mine).values(body=bytes(body) if wrong is None else wrong))
