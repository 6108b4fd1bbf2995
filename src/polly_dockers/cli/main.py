"""The command ``polly``: where it starts, and how it ends whatever happens."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """Run ``polly`` with the arguments of the process, and end the process."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        from polly_dockers.cli.tree import polly

        polly.app(prog_name="polly")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("POLLY_DEBUG"):
            raise
        sys.stderr.write(
            f"Error: polly failed where it should not: {type(error).__name__}: {error}. "
            "POLLY_DEBUG=1 before the command shows where; please tell your administrator.\n"
        )
        sys.exit(1)


if __name__ == "__main__":
    run()
