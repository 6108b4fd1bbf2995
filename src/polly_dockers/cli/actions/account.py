"""``polly login``, ``logout``, ``whoami`` and ``password``."""

from __future__ import annotations

import contextlib
import os
import shlex
import ssl
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from polly_dockers.cli import credentials, profiles, prompts, server_url, session, tables, terminal, times
from polly_dockers.cli.client import Client
from polly_dockers.cli.errors import CommandError, DeclinedError, RequestError, UsageError
from polly_dockers.cli.new_token import new_token, on_this_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from polly_dockers import api_types
    from polly_dockers.cli.call import Call

    Create: TypeAlias = Callable[[str | None], contextlib.AbstractContextManager[api_types.TokenCreated]]

_WHICH_SERVER = "Enter the address of the server, such as https://registry.acme.example"
STDIN = "Give it, and the password on stdin."
"""What --password-stdin does, for the error that it is missing."""
_SAME = "The new password is the same as the current one."
TRIES = 3
"""How often a person may type a password before the command ends."""
_UNAUTHORIZED = 401
_USER = tuple(
    tables.Column(title, itemgetter(title)) for title in ("user", "organisation", "role", "server", "expires")
)


def login(
    call: Call,
    email: str | None,
    expires: str | None = None,
    ca_file: str | None = None,
    *,
    password_stdin: bool,
    auto: bool,
    password: str | None = None,
    replaces: str | None = None,
) -> None:
    """Sign in, and save the access token in a profile; its previous token, if it is of the same server, is revoked.

    With ``password``, the command does not ask for it. ``replaces`` is what ``check_profile`` returned; None if it was
    not called. Raises UsageError if something is missing and nobody can be asked, and CommandError if the server
    refuses.
    """
    lifetime = times.seconds(expires or "90d")
    token = credentials.token_of_environment() if auto else ""
    if auto and password_stdin:
        msg = "--auto and --password-stdin can't be together: --auto reads the password from the environment."
        raise UsageError(msg)
    if token and expires:
        msg = "--expires has no effect with POLLY_TOKEN, whose expiry is already set. Leave it out."
        raise UsageError(msg)
    if email is not None:
        check_email(email)
    if not auto and password is None:
        call.need_all(
            {"--server": (named_server(call), ""), "--email": (email, ""), "--password-stdin": (password_stdin, STDIN)}
        )
    server = address(call, auto=auto)
    if server_url.is_plain(server):
        terminal.say(f"Warning: {server} is not encrypted. Others on the network can read your password and images.")
    ca_file = certificates(server, ca_file)
    profile = _new_profile(server, ca_file)._replace(email=email or "", token=token, borrowed=bool(token))
    if replaces is None:
        replaces = _confirm_profile(call, profile)
    if token:
        me = Client(server, token=token, ca_file=ca_file, variable=True).me()
        if email and email.strip().lower() != me.email:
            msg = f"POLLY_TOKEN is a token of {terminal.clean(me.email)}, not of {email}. Leave --email out."
            raise UsageError(msg)
        profile = _keep(call, profile._replace(email=me.email, expires_at=me.token.expires_at), None, replaces)
    else:
        asked = password is None and not password_stdin and not auto
        if email is None or password is None:
            email, password = _credentials(call, server, email, password_stdin=password_stdin, auto=auto)
        profiles.check_writable()
        profile = profile._replace(email=email.strip().lower())  # as the server normalizes it
        profile = _keep_new(call, profile, password, lifetime, replaces, asked=asked)
    call.remember("polly login", server=server, email=None if token else profile.email)
    terminal.success(f"Logged in to Polly as {terminal.clean(profile.email)}")
    terminal.say("Use the command polly --help to learn how to use the CLI")


def logout(call: Call) -> None:
    """Revoke the access token on the server, and delete the profile, even if the server can't be reached.

    Raises CommandError if the token may still work, and UsageError if the server has several profiles.
    """
    if not profiles.load().by_name and not os.environ.get("POLLY_TOKEN"):
        msg = "You are not signed in, so there is nothing to sign out of."
        raise CommandError(msg)
    current = call.session
    stored = current.stored
    if stored is None:
        msg = "You use POLLY_TOKEN from the environment, so there is nothing to sign out of."
        raise UsageError(msg)
    if call.server and not call.profile:
        session.of_server(profiles.load(), current.server)
    profiles.check_writable()
    failure: CommandError | None = None
    cached = credentials.delete_cached(current.server, current.token)
    try:
        for each in _tokens_to_revoke(stored, cached):
            current.client.revoke_token(each)
    except RequestError as error:
        failure = None if error.status == _UNAUTHORIZED else error
    except CommandError as error:  # also for certificates and proxies that can't be used
        failure = error
    with profiles.edit() as known:
        known.remove(current.profile)
    until = tables.date(stored.expires_at)
    if failure:
        what = "Docker's token" if stored.borrowed else "the token"
        msg = (
            f"You are signed out here, but {what} could not be revoked on the server: {failure.message} "
            f"It expires on {until}."
        )
        raise CommandError(msg)
    terminal.success(f"Logged out of {current.server}")
    if stored.borrowed:
        terminal.say(
            f"The access token came from POLLY_TOKEN and works until {until}. To revoke it: polly tokens revoke"
        )


def whoami(call: Call, output: str) -> None:
    """Print the user, the organisations and roles, the server and the expiry date."""
    session = call.session
    me = session.client.me()
    wanted = session.chosen
    if wanted and all(each.organisation != wanted for each in me.organisations):
        msg = f"{me.email} is not a member of an organisation {wanted!r}. polly org list shows yours."
        raise CommandError(msg)
    if output == "json":
        tables.document(
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
    places = [(each.organisation, str(each.role)) for each in me.organisations if wanted in {"", each.organisation}]
    common = {"user": me.email, "server": session.server, "expires": tables.date(me.token.expires_at)}
    rows = [{"organisation": place, "role": role} | common for place, role in places or [("-", "-")]]
    tables.show(_USER, rows)
    if len(places) > 1:
        default = terminal.clean(session.default)
        terminal.say(f"The commands use the organisation {default}. To choose another: polly org use NAME")


def change_password(call: Call, *, password_stdin: bool) -> None:
    """Set a new password, and sign in again with it, because the server revokes all tokens.

    Raises UsageError if the two new passwords differ, and CommandError if the server refuses.
    """
    session = call.session
    email = session.client.me().email
    if password_stdin:
        old, new = prompts.line_of_stdin("the current password"), prompts.line_of_stdin("the new password")
    elif call.may_ask():
        old = prompts.password("Enter your current password")
        new = prompts.new_password("Enter the new password", lambda new: _SAME if new == old else None)
        if prompts.password("Enter the new password again") != new:
            msg = "The two new passwords are different. Nothing was changed."
            raise UsageError(msg)
    else:
        reason = "It reads the current password and the new one from stdin, a line each."
        call.need_all({"--password-stdin": (None, reason)})
    if old == new:
        msg = f"{_SAME} Nothing was changed."
        raise UsageError(msg)
    if session.stored is not None:
        profiles.check_writable()
    ca_file = session.stored.ca_file if session.stored else ""
    try:
        Client(session.server, email=email, password=old, ca_file=ca_file).change_password(new)
    except RequestError as error:
        if error.status != _UNAUTHORIZED:
            raise
        msg = "The current password is wrong. Nothing was changed."
        raise CommandError(msg) from error
    terminal.success("Password changed")
    stored = session.stored
    if stored is None:
        terminal.say("This also revoked the token in POLLY_TOKEN.")
        return
    client = Client(session.server, email=email, password=new, ca_file=ca_file)
    credentials.delete_cached(session.server, session.token)
    try:
        label = on_this_machine("polly login")
        with new_token(client, "full", times.seconds("90d"), label) as created, profiles.edit() as known:
            known.by_name[session.profile] = stored._replace(
                token=created.token, expires_at=created.expires_at, docker_tokens={}, borrowed=False
            )
    except CommandError as error:
        msg = (
            f"The password was changed, but signing in with it failed: {error.message} "
            f"Run: polly login --server {session.server}"
        )
        raise CommandError(msg) from error
    terminal.say("You are signed out everywhere else.")


def confirm_host(call: Call, server: str, host: str, consequence: str) -> None:
    """Ask before something is done for another host than the server's; only warn if nobody can be asked.

    The server says which host has its images, and it could name somebody else's registry. Raises DeclinedError.
    """
    if profiles.same(server_url.host(server), host):
        return
    text = f"{server} says that its images are at {host}, which is another host. {consequence}."
    if not call.may_ask():
        terminal.say(f"Warning: {text}")
        return
    terminal.say(text)
    call.asked = True
    if not prompts.yes(f"Does {host} belong to this server?"):
        msg = "Nothing was changed."
        raise DeclinedError(msg)


def check_profile(call: Call, server: str, ca_file: str) -> str:
    """Ask before a sign-in to the server replaces the profile of another one; return that one, empty for none.

    Raises DeclinedError, and UsageError if nobody can be asked.
    """
    return _confirm_profile(call, _new_profile(server, ca_file))


def _new_profile(server: str, ca_file: str) -> profiles.Profile:
    info = Client(server, ca_file=ca_file).info()
    return profiles.Profile(server, info.registry, "", "", "", {}, ca_file=ca_file)


def _confirm_profile(call: Call, profile: profiles.Profile) -> str:
    confirm_host(call, profile.server, profile.registry, "polly will give Docker this server's tokens for that host")
    known = profiles.load()
    name = _name(call, known, profile)
    before = known.by_name.get(name)
    if before is None or profiles.same(before.server, profile.server):
        return ""
    belongs = f"The profile {terminal.clean(name)} belongs to {before.server}, not to {profile.server}."
    other = f"polly login --server {profile.server} --profile NAME"
    if not call.may_ask():
        remove = f"polly profiles remove {shlex.quote(terminal.clean(name))}"
        msg = f"{belongs} Nothing was changed. To keep both, choose another name: {other}. Or first run: {remove}"
        raise UsageError(msg)
    terminal.say(f"{belongs} Its access token works until {tables.date(before.expires_at)}, also if you replace it.")
    call.asked = True
    if not prompts.yes("Replace it?"):
        msg = f"Nothing was changed. To keep both, choose another name: {other}"
        raise DeclinedError(msg)
    return before.server


def _keep_new(
    call: Call, profile: profiles.Profile, password: str, lifetime: int, replaces: str, *, asked: bool
) -> profiles.Profile:
    """Save the profile with a new token, and return it. A person who was ``asked`` may correct a wrong password."""
    for left in reversed(range(TRIES if asked else 1)):
        client = Client(profile.server, email=profile.email, password=password, ca_file=profile.ca_file)
        try:
            return _keep(
                call, profile, partial(new_token, client, "full", lifetime, on_this_machine("polly login")), replaces
            )
        except RequestError as error:
            if error.status != _UNAUTHORIZED or not left:
                raise
            terminal.say(error.message)
            password = prompts.password("Enter your password again")
    raise AssertionError


def _keep(call: Call, profile: profiles.Profile, create: Create | None, replaces: str) -> profiles.Profile:
    """Save the profile as the current one, and return it. ``_name`` chooses its name.

    ``create`` creates a token that replaces the profile's previous one; None if the profile already has its token.
    ``replaces`` is another server whose profile may be replaced. If the profile can't be saved, the new token is
    revoked.
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
            if before and before.server != replaces and not profiles.same(before.server, profile.server):
                msg = f"The profile {name} was changed at the same time. Run the command again."
                raise CommandError(msg)
            if before and _is_same(before, profile):
                stays = before.token == profile.token or (create and before.token == replaced)
                docker_tokens = before.docker_tokens if stays else {}
                profile = profile._replace(organisation=before.organisation, docker_tokens=docker_tokens)
            known.by_name[name] = profile._replace(organisation=organisation or profile.organisation)
            known.current = name
    if before and before.token != profile.token:
        cached = credentials.delete_cached(before.server, before.token)
        is_revoked = create and before.token == replaced
        if not is_revoked and profiles.same(before.server, profile.server):
            _revoke_all(before, cached)
    return profile


def _is_same(before: profiles.Profile, profile: profiles.Profile) -> bool:
    """Return whether both are the same user of the same server."""
    return before.email == profile.email and profiles.same(before.server, profile.server)


def _name(call: Call, known: profiles.Profiles, profile: profiles.Profile) -> str:
    """Return the name that was given, or the server's profile (the same user's first), or the host of its images."""
    if call.profile:
        return call.profile
    variable = os.environ.get("POLLY_PROFILE")
    if variable and (variable not in known.by_name or profiles.same(known.by_name[variable].server, profile.server)):
        return variable
    had = [name for name, each in known.by_name.items() if profiles.same(each.server, profile.server)]
    mine = [name for name in had if _is_same(known.by_name[name], profile)]
    for names in (mine, had):
        if names:
            return known.current if known.current in names else names[0]
    return profile.registry


def _check_member(profile: profiles.Profile, organisation: str, create: Create | None) -> None:
    """Raise CommandError if the person is not a member of the organisation. A token created to check it is revoked."""
    with contextlib.ExitStack() as stack:
        probe = stack.enter_context(create(None)).token if create else profile.token
        client = Client(profile.server, token=probe, ca_file=profile.ca_file)
        mine = [each.organisation for each in client.me().organisations]
        if organisation not in mine:
            msg = f"You are not a member of {organisation!r}. You are a member of: {', '.join(mine) or 'none'}."
            raise CommandError(msg)
        if create:
            client.revoke_token("current")


def _tokens_to_revoke(profile: profiles.Profile, cached: str | None) -> list[str]:
    """Return the ids of the tokens to revoke with a profile.

    That is its own token, and with it all that were created with it. If the token came from POLLY_TOKEN, it is only
    those that were created with it. ``cached`` is the id of the token that the credential helper gave to Docker.
    """
    return [*filter(None, [cached]), *profile.docker_tokens] if profile.borrowed else ["current"]


def _revoke_all(profile: profiles.Profile, cached: str | None) -> None:
    """Revoke the tokens of a profile that is replaced. If that fails, they expire."""
    with contextlib.suppress(CommandError):
        client = Client(profile.server, token=profile.token, ca_file=profile.ca_file)
        for each in _tokens_to_revoke(profile, cached):
            client.revoke_token(each)


def certificates(server: str, given: str | None = None) -> str:
    """Return the absolute path of the certificates to trust: from the option, the environment, or a profile."""
    named = given or os.environ.get("POLLY_CA_FILE")
    if named:
        return os.path.abspath(named)
    known = profiles.load().by_name.values()
    inherited = next((each.ca_file for each in known if profiles.same(each.server, server)), "")
    try:
        if inherited:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(inherited)
    except OSError:
        terminal.say(f"Warning: {inherited}, which you trusted before, has no certificates any more. It is not used.")
        return ""
    return inherited


def address(call: Call, *, auto: bool = False) -> str:
    """Return the address of the server to sign in to; ask for it if nothing names it.

    With ``auto``, something must name it, and it must be POLLY_SERVER if that is set, because the secrets in the
    environment belong to that server. Raises UsageError, also if nobody can be asked.
    """
    known = profiles.load()
    url = _named_server(call, known)
    variable = os.environ.get("POLLY_SERVER")
    if auto and url and variable and not profiles.same(url, server_url.normal(variable)):
        msg = (
            f"POLLY_SERVER is {server_url.normal(variable)}, and the options name {url}. With --auto both must be the "
            "same server. Leave one of them out."
        )
        raise UsageError(msg)
    if url:
        return url
    if auto:
        msg = "--auto needs a server. Give --server, or set POLLY_SERVER."
        raise UsageError(msg)
    stored = known.by_name.get(known.current)
    if stored and not call.may_ask():
        return stored.server
    if stored:
        call.asked = True
        given = prompts.text("Enter the address of the server", suggested=stored.server, check=_server_problem)
    else:
        given = call.need("--server", lambda: prompts.text(_WHICH_SERVER, check=_server_problem))
    return server_url.normal(given)


def named_server(call: Call) -> str:
    """Return what names the server of a sign-in without a question: the address, or a profile; empty for nothing."""
    known = profiles.load()
    return _named_server(call, known) or known.current


def _named_server(call: Call, known: profiles.Profiles) -> str:
    """Return the server from the options, or else from the environment; empty if neither names one.

    A name without a profile is the name of a new one. Raises UsageError if the environment contradicts itself.
    """
    if call.server:
        return server_url.normal(call.server)
    if call.profile in known.by_name:
        return known.by_name[call.profile].server
    name, address = ("" if call.profile else os.environ.get("POLLY_PROFILE", "")), os.environ.get("POLLY_SERVER")
    url = server_url.normal(address) if address else ""
    if name in known.by_name:
        return known.by_name[session.agreed(known, session.Meant(name, url, "", options=False))].server
    return url


def _server_problem(text: str) -> str | None:
    try:
        server_url.normal(text)
    except UsageError as error:
        return error.message
    return None


def _credentials(call: Call, server: str, email: str | None, *, password_stdin: bool, auto: bool) -> tuple[str, str]:
    if auto:
        email, password = email or os.environ.get("POLLY_EMAIL"), os.environ.get("POLLY_PASSWORD")
        if not email or not password:
            msg = "--auto needs an account. Set POLLY_TOKEN, or POLLY_EMAIL and POLLY_PASSWORD."
            raise UsageError(msg)
        check_email(email, "POLLY_EMAIL")
        return email, prompts.of_environment(password, "POLLY_PASSWORD")
    if call.may_ask() and not password_stdin:
        terminal.say(f"Sign in to {server}")
    known = next((each.email for each in profiles.load().by_name.values() if profiles.same(each.server, server)), "")
    if not email:
        email = call.need("--email", lambda: prompts.text("Enter your email", suggested=known, check=email_problem))
    if password_stdin:
        return email, prompts.line_of_stdin("the password")
    return email, call.need("--password-stdin", lambda: prompts.password("Enter your password"), STDIN)


def check_email(email: str, option: str = "--email") -> None:
    """Raise UsageError for a text that can't be an email address. The server has the last word."""
    if "@" not in email:
        msg = f"{option} {email!r} is not an email address."
        raise UsageError(msg)


def email_problem(text: str) -> str | None:
    """What is wrong with an answer to a question for an email address; None if nothing is."""
    return None if "@" in text else "That is not an email address."
