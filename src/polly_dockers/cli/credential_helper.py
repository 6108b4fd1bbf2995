"""``docker-credential-polly``: gives Docker, podman, skopeo and buildah a password.

The protocol is that of docker-credential-helpers: the action is the argument, its input is on stdin, its response or
error is on stdout, and an error has exit code 1. ``get`` returns an access token of scope
registry that expires within the hour.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import NoReturn

from polly_dockers import __version__
from polly_dockers.cli import credentials, profiles
from polly_dockers.cli.errors import CommandError, RequestError, UnreachableError
from polly_dockers.system import process

_LONGEST = 1_048_576
NOT_FOUND = "credentials not found in native keychain"
"""The error by which clients know that they may continue without signing in (credentials/error.go)."""


def run() -> None:
    """Handle one request of a client, and end the process."""
    process.prepare()
    action = sys.argv[1] if len(sys.argv) == 2 else ""  # noqa: PLR2004
    answers = {"get": _get, "store": _store, "erase": _erase, "list": _list, "version": _version}
    if action not in answers:
        sys.stderr.write(
            f"usage: docker-credential-polly {{{','.join(answers)}}}; Docker calls it, see polly dockers configure\n"
        )
        sys.exit(2)
    try:
        with process.undone_by_signals():
            answers[action]()
    except CommandError as error:
        from polly_dockers.cli.terminal import escaped

        _fail(escaped(error.message))
    except KeyboardInterrupt:
        os._exit(process.INTERRUPTED)
    except BrokenPipeError:
        os._exit(process.PIPE_CLOSED)
    except OSError as error:
        _fail(f"docker-credential-polly: {error.strerror}")
    except Exception:
        if os.environ.get("POLLY_DEBUG"):
            raise
        _fail("docker-credential-polly: an unexpected failure; POLLY_DEBUG=1 shows the details")


def _fail(message: str) -> NoReturn:
    """Print the error on stdout, where clients read it, and exit."""
    try:
        process.write_data(f"{message}\n")
    except OSError:
        process.drop_output()
        sys.stderr.write(f"{message}\n")
    sys.exit(1)


def _get() -> None:
    host = _host(_input())
    try:
        sign_in = _signed_in(host)
    except CommandError as error:
        if error.message == NOT_FOUND:  # stdout is the client's; this is for the person
            from polly_dockers.cli import terminal

            terminal.say(f"Not signed in to {host}; run: polly login --server {host}")
        raise
    with credentials.handed_out(sign_in) as secret:
        process.write_data(json.dumps({"ServerURL": host, "Username": credentials.USER, "Secret": secret}))


def _store() -> None:
    """Store nothing, because ``get`` returns fresh tokens. Raises CommandError unless that user is signed in."""
    try:
        login = json.loads(_input())
        host, user = _host(_text(login["ServerURL"])), _text(login["Username"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = "store takes JSON with ServerURL, Username and Secret"
        raise CommandError(msg) from error
    try:
        email = _signed_in(host).email
    except CommandError as error:
        msg = f"docker-credential-polly keeps no passwords. To sign in to {host}, run: polly login --server {host}"
        raise CommandError(msg) from error
    if user not in {credentials.USER, email}:
        if "@" in user:
            way = f"To be {user} instead, run: polly login --server {host} --email {user}"
        else:
            way = "docker-credential-polly signs Docker in by itself, so docker login is not needed."
        msg = f"{email} is signed in to {host}. {way}"
        raise CommandError(msg)


def _erase() -> None:
    sign_in = _signed_in(_host(_input()))
    token_id = credentials.delete_cached(sign_in.server, sign_in.token)
    if token_id:
        from polly_dockers.cli.client import Client

        with contextlib.suppress(CommandError):  # it expires within the hour
            Client(sign_in.server, token=sign_in.token, ca_file=sign_in.ca_file).revoke_token(token_id)


def _list() -> None:
    known = profiles.load().by_name.values()
    hosts = {host: credentials.USER for each in known for host in profiles.aliases(each.registry)}
    if os.environ.get("POLLY_SERVER") and os.environ.get("POLLY_TOKEN"):
        from polly_dockers.cli import server_url

        hosts[server_url.host(server_url.normal(os.environ["POLLY_SERVER"]))] = credentials.USER
    process.write_data(json.dumps(hosts))


def _version() -> None:
    process.write_data(f"docker-credential-polly (polly-dockers) {__version__}\n")


def _input() -> str:
    """Return what the client sends, which is UTF-8 in every locale."""
    return sys.stdin.buffer.read(_LONGEST).decode("utf-8-sig", "replace")


def _text(value: object) -> str:
    """Return a value that must be text. Raises TypeError for another type, ValueError for a lone surrogate."""
    if not isinstance(value, str):
        raise TypeError(value)
    value.encode()
    return value


def _host(text: str) -> str:
    """Return ``HOST[:PORT]`` from what a client sends; some send ``https://HOST/v1/``."""
    host = text.strip().rpartition("://")[2].partition("/")[0]
    if not host:
        msg = "no credentials server URL"
        raise CommandError(msg)
    return host


def _signed_in(host: str) -> credentials.SignIn:
    """Return the sign-in for the host of an image. Raises CommandError with NOT_FOUND if there is none.

    A server that is itself at the host comes before one that only says so, which may be false.
    """
    token, address = credentials.token_of_environment(), os.environ.get("POLLY_SERVER")
    variables: credentials.SignIn | None = None
    if token and address:
        from polly_dockers.cli import server_url

        variables = credentials.SignIn(server_url.normal(address), token, variable=True)
        if profiles.same(host, server_url.host(variables.server)):
            return variables
    known = profiles.load()
    names = sorted([known.current, *known.by_name], key=lambda name: not _is_at(known.by_name.get(name), host))
    for name in [os.environ.get("POLLY_PROFILE", ""), *names]:
        profile = known.by_name.get(name)
        if profile and profiles.same(profile.registry, host):
            if variables and profiles.same(profile.server, variables.server):
                return variables
            return credentials.SignIn(profile.server, profile.token, profile.email, profile.ca_file)
    if variables and profiles.same(host, _registry(variables.server)):
        return variables
    raise CommandError(NOT_FOUND)


def _is_at(profile: profiles.Profile | None, host: str) -> bool:
    """Return whether the server of the profile has this host in its own address."""
    return profile is not None and profiles.same(profile.server.rpartition("://")[2], host)


def _registry(server: str) -> str:
    """Return the registry of a server without a profile; empty if the server does not respond.

    The client's host may belong to another registry, for which the client must be able to continue.
    """
    from polly_dockers.cli.client import Client

    try:
        return Client(server).info().registry
    except (UnreachableError, RequestError):
        return ""


if __name__ == "__main__":
    run()
