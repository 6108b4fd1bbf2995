"""Passwords: argon2id, on threads of their own, so that a sign-in never holds the loop for anyone."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from polly_dockers.errors import BadRequest

SHORTEST: Final = 8
"""Characters: NIST SP 800-63B, section 3.1.1.2."""
LONGEST: Final = 1024

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's parameters for argon2id: 19 MiB, two passes."""

NOBODY: Final = _HASHER.hash(secrets.token_urlsafe(32))
"""What an unknown account is checked against, so that it takes as long as a known one."""

UNSET: Final = "!"
"""In place of a hash: an account that has no password, as after a rebuild of its database."""


def normal(password: str) -> str:
    """The password in Unicode's normal form C, so that it is the same from every keyboard, as RFC 8265 has it."""
    return password if password.isascii() else unicodedata.normalize("NFC", password)


def check_strength(password: str) -> None:
    """Raise BadRequest for a password that is too short or too long to keep."""
    if not password.isascii() and password.encode("utf-8", "replace").decode() != password:
        msg = "The password is not text in UTF-8."
        raise BadRequest(msg)
    if any(unicodedata.category(each) == "Cc" for each in password):
        msg = "A password has no control characters, such as those of a tab or an arrow key."
        raise BadRequest(msg)
    if password.startswith(RESERVED):
        msg = f"A password does not begin with {RESERVED}: that is how access tokens begin."
        raise BadRequest(msg)
    if not SHORTEST <= len(password) <= LONGEST:
        msg = f"A password has {SHORTEST} to {LONGEST} characters; this one has {len(password)}."
        raise BadRequest(msg)


RESERVED: Final = "polly_"
"""What access tokens begin with, and so no password does."""


def checked(password: str) -> str:
    """The password in its normal form; raises BadRequest as ``check_strength``."""
    if len(password) <= LONGEST:  # the time that it takes to normalise grows with the square of the length
        password = normal(password)
    check_strength(password)
    return password


def hash_now(password: str) -> str:
    """The hash to store; raises BadRequest as ``check_strength``. Takes some 20 ms."""
    return _HASHER.hash(checked(password))


class Passwords:
    """Hashing and checking for a process that serves requests."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="polly-passwords")

    async def hash(self, password: str) -> str:
        """The hash to store; raises BadRequest as ``check_strength``."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, hash_now, password)

    async def verify(self, stored: str, password: str) -> bool:
        """Whether the password is the one that was stored."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, _verify, stored, password)

    def close(self) -> None:
        """Let go of the threads."""
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
