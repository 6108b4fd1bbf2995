"""Passwords: hashed with argon2id, on separate threads, so that signing in does not block the event loop."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from polly_dockers import password_rules
from polly_dockers.errors import BadRequest
from polly_dockers.password_rules import LONGEST, normal

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's parameters for argon2id: 19 MiB, two passes."""

NOBODY: Final = _HASHER.hash(secrets.token_urlsafe(32))
"""The hash that is checked for an unknown account, so that it takes as long as a known one."""

UNSET: Final = "!"
"""Stored in place of a hash for an account without a password, as after rebuilding the database."""


def checked(password: str) -> str:
    """The password in its normal form. Raises BadRequest for one that is not allowed."""
    if wrong := password_rules.problem(password):
        raise BadRequest(wrong)
    return normal(password)


def hash_now(password: str) -> str:
    """The hash to store. Takes about 20 ms. Raises BadRequest as ``checked``."""
    return _HASHER.hash(checked(password))


class Passwords:
    """Hashes and verifies passwords on two threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="polly-passwords")

    async def hash(self, password: str) -> str:
        """The hash to store. Raises BadRequest as ``checked``."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, hash_now, password)

    async def verify(self, stored: str, password: str) -> bool:
        """Whether the password matches the stored hash."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, _verify, stored, password)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)


def _verify(stored: str, password: str) -> bool:
    if len(password) > LONGEST:
        return False
    if stored == UNSET:
        _verify(NOBODY, password)
        return False
    try:
        return _HASHER.verify(stored, normal(password))
    except (VerificationError, InvalidHashError):
        return False
