"""Signing in and out, and who is signed in."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NoReturn

from polly_dockers.cli import ask, credentials, durations, profiles, render, server_url, terminal
from polly_dockers.cli.client import Client
from polly_dockers.cli.failures import CommandError, RequestError, UnreachableError, UsageError
from polly_dockers.cli.new_token import new_token

if TYPE_CHECKING:
    from polly_dockers.cli.command import Call

_UNAUTHORIZED = 401


def login(
    call: Call, email: str | None, expires: str, *, password_stdin: bool, auto: bool, password: str | None = None
) -> None:
    """Sign in, and keep the access token as a profile; a ``password`` that is known is not asked for.

    Raises UsageError for what is missing and can't be asked, CommandError for what the server refuses.
    """
    lifetime = durations.seconds(expires)
    server = address(call, auto=auto)
    if server_url.is_plain(server):
        terminal.say(f"Warning: {server} is not encrypted; whoever is on the way can read your password and images.")
    info = Client(server).info()
    token = credentials.token_of_environment() if auto else ""
    if token:
        me = Client(server, token=token).me()
        profile = profiles.Profile(server, info.registry, me.email, token, me.token.expires_at, {})
        _keep(call, profile)
    else:
        if email is None or password is None:
            email, password = _credentials(call, server, email, password_stdin=password_stdin, auto=auto)
        client = Client(server, email=email, password=password)
        profiles.check_writable()
        with new_token(client, "full", lifetime, f"polly login on {socket.gethostname()}") as created:
            profile = profiles.Profile(server, info.registry, created.email, created.token, created.expires_at, {})
            _keep(call, profile)
    call.remember("polly login", server=server, email=None if token else profile.email)
    terminal.success(f"Logged in to Polly as {terminal.clean(profile.email)}")
    terminal.say("Use the command polly --help to learn how to use the CLI")


def logout(call: Call) -> None:
    """End the access token on the server, and forget the profile, even where the server can't be reached.

    Raises CommandError where the token may still be good.
    """
    session = call.session
    if session.stored is None:
        msg = "POLLY_TOKEN in the environment says who you are; there is nothing to sign out of."
        raise UsageError(msg)
    profiles.check_writable()
    failure: CommandError | None = None
    try:
        session.client.revoke_token("current")
    except RequestError as error:
        failure = None if error.status == _UNAUTHORIZED else error
    except UnreachableError as error:
        failure = error
    with profiles.edit() as known:
        known.remove(session.profile)
    credentials.forget(session.server, session.token)
    if failure:
        msg = (
            f"You are signed out here, but the token could not be ended on the server: {failure.message} "
            f"It ends by itself on {render.date(session.stored.expires_at)}."
        )
        raise CommandError(msg)
    terminal.success(f"Logged out of {session.server}")


def whoami(call: Call, output: str) -> None:
    """Print user, organisations with roles, server and expiry."""
    session = call.session
    me = session.client.me()
    if output == "json":
        render.document(
            {
                "email": me.email,
                "organisations": me.organisations,
                "server": session.server,
                "registry": session.registry,
                "profile": session.profile or None,
                "expires_at": me.token.expires_at,
            }
        )
        return
    wanted = session.chosen
    places = [(each.organisation, str(each.role)) for each in me.organisations if wanted in {"", each.organisation}]
    columns = [render.Column(each) for each in ("user", "organisation", "role", "server", "expires")]
    until = render.date(me.token.expires_at)
    render.show(columns, [(me.email, *place, session.server, until) for place in places or [("-", "-")]])


def change_password(call: Call, *, password_stdin: bool) -> None:
    """Set a new password, and sign in again with it, because the server ends all tokens.

    Raises UsageError for a repetition that differs, CommandError for what the server refuses.
    """
    session = call.session
    email = session.client.me().email
    if password_stdin:
        old, new = ask.line_of_stdin("the current password"), ask.line_of_stdin("the new password")
    elif call.may_ask():
        old, new = ask.password("Enter your current password"), ask.password("Enter the new password")
        if ask.password("Enter the new password again") != new:
            msg = "The two new passwords differ; nothing is changed."
            raise UsageError(msg)
    else:
        _missing("--password-stdin", "stdin is read for the current password and the new one, a line each")
    if session.stored is not None:
        profiles.check_writable()
    Client(session.server, email=email, password=old).change_password(new)
    terminal.success("Password changed")
    stored = session.stored
    if stored is None:
        terminal.say("POLLY_TOKEN has ended with it.")
        return
    client = Client(session.server, email=email, password=new)
    credentials.forget(session.server, session.token)
    try:
        label = f"polly login on {socket.gethostname()}"
        with new_token(client, "full", durations.seconds("90d"), label) as created, profiles.edit() as known:
            known.by_name[session.profile] = stored._replace(
                token=created.token, expires_at=created.expires_at, docker_tokens={}
            )
    except CommandError as error:
        msg = (
            f"The password is changed, but signing in with it failed: {error.message} "
            f"Run: polly login --server {session.server}"
        )
        raise CommandError(msg) from error
    terminal.say("You are signed out everywhere else.")


def _keep(call: Call, profile: profiles.Profile) -> None:
    """Save the profile as the current one, under the name asked for, the one it has, or the host of its images."""
    organisation = call.org or os.environ.get("POLLY_ORG")
    if organisation:
        mine = [each.organisation for each in Client(profile.server, token=profile.token).me().organisations]
        if organisation not in mine:
            msg = f"You are not a member of {organisation!r}. You are a member of: {', '.join(mine) or 'none'}."
            raise CommandError(msg)
        profile = profile._replace(organisation=organisation)
    with profiles.edit() as known:
        had = (name for name, each in known.by_name.items() if each.server == profile.server)
        name = call.profile or os.environ.get("POLLY_PROFILE") or next(had, profile.registry)
        before = known.by_name.get(name)
        if before and not organisation and (before.email, before.server) == (profile.email, profile.server):
            profile = profile._replace(organisation=before.organisation)
        known.by_name[name] = profile
        known.current = name


def address(call: Call, *, auto: bool = False) -> str:
    """Return the server that is meant, or that a person answers with. Raises UsageError where nobody can be asked."""
    given = call.server or os.environ.get("POLLY_SERVER")
    if not given:
        known = profiles.load()
        name = call.profile or os.environ.get("POLLY_PROFILE") or known.current
        stored = known.by_name.get(name)
        if stored:
            return stored.server
        if auto:
            _missing("--server", "or POLLY_SERVER in the environment")
        given = call.need("--server", lambda: ask.text("Enter the address of the server", check=_wrong_server))
    return server_url.normal(given)


def _wrong_server(text: str) -> str | None:
    try:
        server_url.normal(text)
    except UsageError as error:
        return error.message
    return None


def _credentials(call: Call, server: str, email: str | None, *, password_stdin: bool, auto: bool) -> tuple[str, str]:
    if auto:
        email, password = email or os.environ.get("POLLY_EMAIL"), os.environ.get("POLLY_PASSWORD")
        if not email or not password:
            _missing("POLLY_TOKEN", "or POLLY_EMAIL and POLLY_PASSWORD, in the environment")
        return email, ask.of_environment(password, "POLLY_PASSWORD")
    known = next((each.email for each in profiles.load().by_name.values() if each.server == server), "")
    if not email:
        email = call.need("--email", lambda: ask.text("Enter your email", default=known))
    if password_stdin:
        return email, ask.line_of_stdin("the password")
    if not call.may_ask():
        _missing("--password-stdin", "the password is read from stdin then")
    call.asked = True
    return email, ask.password("Enter your password")


def _missing(option: str, what: str) -> NoReturn:
    msg = f"{option} is missing: {what}."
    raise UsageError(msg)
