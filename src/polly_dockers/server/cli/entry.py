"""The entry point of ``polly-server``. It also works, with a message, if only the client commands are installed."""

from __future__ import annotations

import sys
from typing import NoReturn


def run() -> NoReturn:
    """Run ``polly-server`` with the arguments of the process, and end the process."""
    try:
        from polly_dockers.server.cli import main  # noqa: PLC0415 - it may not be installed
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("polly_dockers"):
            raise
        sys.stderr.write(
            "Error: The server is not installed here, only the commands polly and docker-credential-polly. "
            "To install it, run in a copy of the repository, in a virtual environment: pip install '.[server]'\n"
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    main.main()
