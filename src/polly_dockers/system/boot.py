"""Which start of the machine this is, and how long ago it was: what no clock that is set can change."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def _this() -> bytes:
    """What is another after each start of the machine; of this process alone where nobody tells."""
    try:
        return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return os.urandom(16)


THIS: Final = _this()
"""16 bytes."""

_CLOCK: Final = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC


def running() -> int:
    """Microseconds since that start, the time that the machine slept included."""
    return time.clock_gettime_ns(_CLOCK) // 1000
