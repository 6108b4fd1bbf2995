"""Which server, which token and which organisation a command works with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property

from polly_dockers.cli import ask, credentials, names, profiles, server_url, terminal
from polly_dockers.cli.client import Client
from polly_dockers.cli.failures import CommandError, UsageError


@dataclass
class Session:
    """A server that somebody is signed in to. ``profile`` is the name in the file, empty for POLLY_TOKEN."""

    server: str
    token: str
    profile: str = ""
    stored: profiles.Profile | None = None
    chosen: str = ""
    """The organisation of --org or POLLY_ORG, or the answer to the question."""
    may_ask: bool = False
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        """Open the client."""
        self.client = Client(self.server, token=self.token)

    @cached_property
    def registry(self) -> str:
        """The host that stands before every image path."""
        return self.stored.registry if self.stored else self.client.info().registry

    @cached_property
    def organisation(self) -> str:
        """The organisation that is meant: the chosen one, or the only one, or the answer to a question.

        Raises UsageError where there are several and nobody can be asked.
        """
        chosen = self.chosen or (self.stored.organisation if self.stored else "")
        if chosen:
            return chosen
        mine = [each.organisation for each in self.client.me().organisations]
        if not mine:
            msg = "You are no member of an organisation. Its administrator runs: polly members add --email YOUR_EMAIL"
            raise CommandError(msg)
        if len(mine) == 1:
            return mine[0]
        if self.may_ask:
            self.chosen = ask.choose("Which organisation?", mine)
            return self.chosen
        msg = f"--org is missing: you are in several organisations ({', '.join(mine)})."
        raise UsageError(msg)

    def repository(self, text: str) -> tuple[str, str]:
        """Return (organisation, name) of what was given as ``--name``: a name, or a whole ``HOST/org/name``."""
        organisation, name = names.split(text, self.registry)
        if organisation and self.chosen and organisation != self.chosen:
            msg = f"--name is in the organisation {organisation}, --org says {self.chosen}."
            raise UsageError(msg)
        return organisation or self.organisation, name


def resolve(profile: str | None, server: str | None, org: str | None, *, no_input: bool) -> Session:
    """Return the session: options before the environment, the environment before the current profile.

    Raises UsageError where nothing says a server, CommandError where nobody is signed in to it.
    """
    environment = os.environ
    may_ask = terminal.asks() and not no_input
    organisation = org or environment.get("POLLY_ORG", "")
    named = profile or environment.get("POLLY_PROFILE")
    address = server or environment.get("POLLY_SERVER")
    token = credentials.token_of_environment()
    if token and not profile:
        if not address:
            msg = "POLLY_TOKEN is set and POLLY_SERVER is not: which server is the token for?"
            raise UsageError(msg)
        return Session(server_url.normal(address), token, chosen=organisation, may_ask=may_ask)
    known = profiles.load()
    name = _name(known, named, address)
    stored = known.by_name[name]
    return Session(stored.server, stored.token, name, stored, organisation, may_ask)


def _name(known: profiles.Profiles, named: str | None, address: str | None) -> str:
    if named:
        if named not in known.by_name:
            have = f" There are: {known.names()}." if known.by_name else ""
            msg = f"There is no profile {named!r}.{have} To make it, run: polly login --profile {named}"
            raise CommandError(msg)
        return named
    if address:
        url = server_url.normal(address)
        matching = [name for name, each in known.by_name.items() if each.server == url]
        if not matching:
            msg = f"You are not signed in to {url}. Run: polly login --server {url}"
            raise CommandError(msg)
        return known.current if known.current in matching else matching[0]
    if known.current:
        return known.current
    if known.by_name:
        msg = f"--profile is missing: you are signed in to several servers ({known.names()})."
        raise UsageError(msg)
    msg = "You are not signed in. Run: polly login --server URL"
    raise CommandError(msg)
