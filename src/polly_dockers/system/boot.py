"""The boot of the machine: its id, and the time since then, which setting the clock does not change."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def _this() -> bytes:
    """An id that each boot has for itself; if the system has none, one of this process."""
    try:
        return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return os.urandom(16)


THIS: Final = _this()
"""The id of this boot: 16 bytes."""

_CLOCK: Final = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC


def running() -> int:
    """Microseconds since the boot, including the time that the machine was suspended."""
    return time.clock_gettime_ns(_CLOCK) // 1000
