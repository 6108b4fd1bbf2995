"""The command ``polly``: its start, and its exit code for every error."""

from __future__ import annotations

import os
import sys

from polly_dockers.system import process


def run() -> None:
    """Run ``polly`` with the arguments of the process, and end the process."""
    process.prepare()
    try:
        _check_text()
        from polly_dockers.cli.tree import polly

        with process.undone_by_signals():
            code = polly.app(prog_name="polly", standalone_mode=False)
            sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except KeyboardInterrupt:
        process.exit_now(process.INTERRUPTED)
    except SystemExit as error:
        if isinstance(error.code, int) and error.code > 128:  # noqa: PLR2004 - by a signal
            # A usual exit may free a question that was open, which then puts the terminal back into raw mode.
            process.exit_now(error.code)
        raise
    except OSError as error:  # from the help, which no command prints
        process.drop_output()
        sys.stderr.write(f"Error: the output can't be written: {error.strerror}.\n")
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "format_message"):  # the library's error for an invalid command line
            from polly_dockers.cli import terminal, usage_errors

            terminal.say(f"Error: {usage_errors.message(error)}")
            sys.exit(2)
        if os.environ.get("POLLY_DEBUG"):
            raise
        sys.stderr.write(  # without the error itself, which may contain a secret
            "Error: an unexpected failure of polly. Please tell your administrator. To see the details, put "
            "POLLY_DEBUG=1 before the command.\n"
        )
        sys.exit(1)


def _check_text() -> None:
    """Exit with code 2 for an argument or a variable that is not valid text, which could not be sent to a server."""
    values = {f"Argument {number}": text for number, text in enumerate(sys.argv[1:], 1)}
    values |= {name: text for name, text in os.environ.items() if name.startswith("POLLY_") and name not in _BYTES}
    for name, text in values.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            sys.stderr.write(
                f"Error: {name} is not text in the encoding of the locale. Set LC_ALL to the right locale.\n"
            )
            sys.exit(2)


_BYTES = {"POLLY_PASSWORD", "POLLY_CA_FILE", "POLLY_DOCKER"}
"""Variables that are read as bytes."""


if __name__ == "__main__":
    run()
