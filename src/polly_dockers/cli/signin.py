"""Signing in and out, and who is signed in."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from polly_dockers.cli import ask, credentials, durations, profiles, render, server_url, terminal
from polly_dockers.cli.client import Client
from polly_dockers.cli.failures import CommandError, RequestError, UnreachableError, UsageError
from polly_dockers.cli.new_token import new_token, on_this_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from polly_dockers import wire
    from polly_dockers.cli.command import Call

    Create: TypeAlias = Callable[[str | None], contextlib.AbstractContextManager[wire.TokenCreated]]

STDIN = "the password is read from stdin then"
"""Why --password-stdin is missing where nobody can be asked."""
_UNAUTHORIZED = 401


def login(
    call: Call,
    email: str | None,
    expires: str,
    ca_file: str | None = None,
    *,
    password_stdin: bool,
    auto: bool,
    password: str | None = None,
) -> None:
    """Sign in, and keep the access token as a profile; the token that the profile had before ends.

    A ``password`` that is known is not asked for. Raises UsageError for what is missing and can't be asked,
    CommandError for what the server refuses.
    """
    lifetime = durations.seconds(expires)
    server = address(call, auto=auto)
    if server_url.is_plain(server):
        terminal.say(f"Warning: {server} is not encrypted; whoever is on the way can read your password and images.")
    ca_file = certificates(server, ca_file)
    info = Client(server, ca_file=ca_file).info()
    token = credentials.token_of_environment() if auto else ""
    profile = profiles.Profile(server, info.registry, email or "", token, "", {}, ca_file=ca_file, borrowed=bool(token))
    if token:
        me = Client(server, token=token, ca_file=ca_file, variable=True).me()
        profile = _keep(call, profile._replace(email=me.email, expires_at=me.token.expires_at), None)
    else:
        if email is None or password is None:
            email, password = _credentials(call, server, email, password_stdin=password_stdin, auto=auto)
        client = Client(server, email=email, password=password, ca_file=ca_file)
        label = on_this_machine("polly login")
        create = partial(new_token, client, "full", lifetime, label)
        profiles.check_writable()
        profile = _keep(call, profile._replace(email=email), create)
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
    docker = credentials.forget(session.server, session.token)
    try:
        if not session.stored.borrowed:
            session.client.revoke_token("current")
        elif docker:  # made with a token that stays good
            session.client.revoke_token(docker)
    except RequestError as error:
        failure = None if error.status == _UNAUTHORIZED else error
    except UnreachableError as error:
        failure = error
    with profiles.edit() as known:
        known.remove(session.profile)
    if failure:
        msg = (
            f"You are signed out here, but the token could not be ended on the server: {failure.message} "
            f"It ends by itself on {render.date(session.stored.expires_at)}."
        )
        raise CommandError(msg)
    terminal.success(f"Logged out of {session.server}")
    if session.stored.borrowed:
        until = render.date(session.stored.expires_at)
        terminal.say(f"The access token came from POLLY_TOKEN and is good until {until}; polly tokens revoke ends one.")


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
    ca_file = session.stored.ca_file if session.stored else ""
    try:
        Client(session.server, email=email, password=old, ca_file=ca_file).change_password(new)
    except RequestError as error:
        if error.status != _UNAUTHORIZED:
            raise
        msg = "The current password is wrong; nothing is changed."
        raise CommandError(msg) from error
    terminal.success("Password changed")
    stored = session.stored
    if stored is None:
        terminal.say("POLLY_TOKEN has ended with it.")
        return
    client = Client(session.server, email=email, password=new, ca_file=ca_file)
    credentials.forget(session.server, session.token)
    try:
        label = on_this_machine("polly login")
        with new_token(client, "full", durations.seconds("90d"), label) as created, profiles.edit() as known:
            known.by_name[session.profile] = stored._replace(
                token=created.token, expires_at=created.expires_at, docker_tokens={}, borrowed=False
            )
    except CommandError as error:
        msg = (
            f"The password is changed, but signing in with it failed: {error.message} "
            f"Run: polly login --server {session.server}"
        )
        raise CommandError(msg) from error
    terminal.say("You are signed out everywhere else.")


def _keep(call: Call, profile: profiles.Profile, create: Create | None) -> profiles.Profile:
    """Save the profile as the current one, under the name asked for, the one it has, or the host of its images.

    ``create`` makes its token, in the place of the one that the profile had; None where the token is there already.
    Returns the profile. Where it can't be saved, the token that was made is ended.
    """
    organisation = call.org or os.environ.get("POLLY_ORG") or ""
    if organisation:
        _check_member(profile, organisation, create)
    known = profiles.load()
    before = known.by_name.get(_name(call, known, profile))
    replaced = before.token if before and not before.borrowed and _is_same(before, profile) else None
    with contextlib.ExitStack() as stack:
        if create:
            created = stack.enter_context(create(replaced))
            profile = profile._replace(token=created.token, expires_at=created.expires_at, email=created.email)
        with profiles.edit() as known:
            name = _name(call, known, profile)
            before = known.by_name.get(name)
            if before and _is_same(before, profile):
                docker_tokens = before.docker_tokens if create and before.token == replaced else {}
                profile = profile._replace(organisation=before.organisation, docker_tokens=docker_tokens)
            known.by_name[name] = profile._replace(organisation=organisation or profile.organisation)
            known.current = name
    if before and before.token != profile.token:
        if not before.borrowed and not (create and before.token == replaced):
            _end(before)
        credentials.forget(before.server, before.token)
    return profile


def _is_same(before: profiles.Profile, profile: profiles.Profile) -> bool:
    """Tell whether both are the same user of the same server."""
    return before.email.lower() == profile.email.lower() and profiles.same(before.server, profile.server)


def _name(call: Call, known: profiles.Profiles, profile: profiles.Profile) -> str:
    """Return the name asked for, that of the server's profile, of the same user first, or the host of its images."""
    given = call.profile or os.environ.get("POLLY_PROFILE")
    if given:
        return given
    had = [name for name, each in known.by_name.items() if profiles.same(each.server, profile.server)]
    mine = [name for name in had if _is_same(known.by_name[name], profile)]
    for names in (mine, had):
        if names:
            return known.current if known.current in names else names[0]
    return profile.registry


def _check_member(profile: profiles.Profile, organisation: str, create: Create | None) -> None:
    """Raise CommandError where the person is not a member of the organisation. A token that is made for it is ended."""
    with contextlib.ExitStack() as stack:
        probe = stack.enter_context(create(None)).token if create else profile.token
        client = Client(profile.server, token=probe, ca_file=profile.ca_file)
        mine = [each.organisation for each in client.me().organisations]
        if organisation not in mine:
            msg = f"You are not a member of {organisation!r}. You are a member of: {', '.join(mine) or 'none'}."
            raise CommandError(msg)
        if create:
            client.revoke_token("current")


def _end(profile: profiles.Profile) -> None:
    """End a token that is not kept; if that fails, it ends by itself."""
    with contextlib.suppress(CommandError):
        Client(profile.server, token=profile.token, ca_file=profile.ca_file).revoke_token("current")


def certificates(server: str, given: str | None = None) -> str:
    """Return the whole path of the certificates to trust: those given, of the environment, or of the profile."""
    named = given or os.environ.get("POLLY_CA_FILE")
    if named:
        return os.path.abspath(named)
    known = profiles.load().by_name.values()
    return next((each.ca_file for each in known if profiles.same(each.server, server)), "")


def address(call: Call, *, auto: bool = False) -> str:
    """Return the server that is meant, or that a person answers with. Raises UsageError where nobody can be asked."""
    given = call.server or os.environ.get("POLLY_SERVER")
    if not given:
        known = profiles.load()
        name = call.profile or os.environ.get("POLLY_PROFILE") or known.current
        stored = known.by_name.get(name)
        if stored and (call.profile or os.environ.get("POLLY_PROFILE") or not call.may_ask()):
            return stored.server
        if stored:
            call.asked = True
            given = ask.text("Enter the address of the server", suggested=stored.server, check=_wrong_server)
            return server_url.normal(given)
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
    if call.may_ask() and not password_stdin:
        terminal.say(f"Sign in to {server}")
    known = next((each.email for each in profiles.load().by_name.values() if profiles.same(each.server, server)), "")
    if not email:
        email = call.need("--email", lambda: ask.text("Enter your email", suggested=known))
    if password_stdin:
        return email, ask.line_of_stdin("the password")
    if not call.may_ask():
        _missing("--password-stdin", STDIN)
    call.asked = True
    return email, ask.password("Enter your password")


def _missing(option: str, what: str) -> NoReturn:
    msg = f"{option} is missing: {what}."
    raise UsageError(msg)
