"""Passwords: hashed with argon2id, on separate threads, so that signing in does not block the event loop."""

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
"""Characters, at least: NIST SP 800-63B, section 3.1.1.2."""
LONGEST: Final = 1024
"""Characters, at most."""

RESERVED: Final = "polly_"
"""The prefix of access tokens, with which no password begins."""

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's parameters for argon2id: 19 MiB, two passes."""

NOBODY: Final = _HASHER.hash(secrets.token_urlsafe(32))
"""The hash that is checked for an unknown account, so that it takes as long as a known one."""

UNSET: Final = "!"
"""Stored in place of a hash for an account without a password, as after rebuilding the database."""


def normal(password: str) -> str:
    """The password in Unicode's normal form C (RFC 8265), so that it is the same from every keyboard."""
    return password if password.isascii() else unicodedata.normalize("NFC", password)


def check_strength(password: str) -> None:
    """Raise BadRequest for a password that is not allowed."""
    if not password.isascii() and password.encode("utf-8", "replace").decode() != password:
        msg = "The password is not valid UTF-8 text."
        raise BadRequest(msg)
    if any(unicodedata.category(each) == "Cc" for each in password):
        msg = "The password has control characters, such as those of a tab or an arrow key. Leave them out."
        raise BadRequest(msg)
    if password.startswith(RESERVED):
        msg = f"A password must not begin with {RESERVED}, because access tokens do."
        raise BadRequest(msg)
    if not SHORTEST <= len(password) <= LONGEST:
        msg = f"A password must have {SHORTEST} to {LONGEST} characters; this one has {len(password)}."
        raise BadRequest(msg)


def checked(password: str) -> str:
    """The password in its normal form. Raises BadRequest as ``check_strength``."""
    if len(password) <= LONGEST:  # the time to normalise grows with the square of the length
        password = normal(password)
    check_strength(password)
    return password


def hash_now(password: str) -> str:
    """The hash to store. Takes about 20 ms. Raises BadRequest as ``check_strength``."""
    return _HASHER.hash(checked(password))


class Passwords:
    """Hashes and verifies passwords on two threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="polly-passwords")

    async def hash(self, password: str) -> str:
        """The hash to store. Raises BadRequest as ``check_strength``."""
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
