"""Which passwords are allowed: for the server, and for the commands that ask for a new one."""

from __future__ import annotations

import unicodedata
from typing import Final

SHORTEST: Final = 8
"""Characters, at least: NIST SP 800-63B, section 3.1.1.2."""
LONGEST: Final = 1024
"""Characters, at most."""

RESERVED: Final = "polly_"
"""The prefix of access tokens, with which no password begins."""


def normal(password: str) -> str:
    """Return the password in Unicode's normal form C (RFC 8265), so that it is the same from every keyboard."""
    return password if password.isascii() else unicodedata.normalize("NFC", password)


def problem(password: str) -> str | None:
    """Return why a password is not allowed, as a sentence with the rule; None if it is. No part of it is shown."""
    if len(password) <= LONGEST:  # the time to normalise grows with the square of the length
        password = normal(password)
    if not password.isascii() and password.encode("utf-8", "replace").decode() != password:
        return "The password is not valid UTF-8 text."
    if any(unicodedata.category(each) == "Cc" for each in password):
        return "The password has control characters, such as those of a tab or an arrow key. Leave them out."
    if password.startswith(RESERVED):
        return f"A password must not begin with {RESERVED}, because access tokens do."
    if not SHORTEST <= len(password) <= LONGEST:
        return f"A password must have {SHORTEST} to {LONGEST} characters; this one has {len(password)}."
    return None
