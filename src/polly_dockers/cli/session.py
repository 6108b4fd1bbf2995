"""The server, the token and the organisation that a command uses."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from polly_dockers.cli import credentials, profiles, repository_names, server_url, terminal
from polly_dockers.cli.client import Client
from polly_dockers.cli.errors import CommandError, RequestError, UsageError

if TYPE_CHECKING:
    from polly_dockers import api_types


_ROLES = ("reader", "writer", "admin")


@dataclass
class Session:
    """A server with the token of a user. ``profile`` is the name in the file, empty for POLLY_TOKEN."""

    server: str
    token: str
    profile: str = ""
    stored: profiles.Profile | None = None
    chosen: str = ""
    """The organisation of --org or POLLY_ORG."""

    @cached_property
    def client(self) -> Client:
        """The client of the server. Raises CommandError for certificates or a proxy that can't be used."""
        ca_file = self.stored.ca_file if self.stored else ""
        return Client(self.server, token=self.token, ca_file=ca_file, variable=self.stored is None)

    @cached_property
    def registry(self) -> str:
        """The host at the start of every image path."""
        return self.stored.registry if self.stored else self.client.info().registry

    @cached_property
    def memberships(self) -> list[api_types.MembershipItem]:
        """The person's organisations, in the order in which they joined them."""
        return sorted(self.client.me().organisations, key=lambda each: each.joined_at)

    @cached_property
    def default(self) -> str:
        """The organisation without --org: the profile's, or else the first one that the person joined; may be empty."""
        if self.stored and self.stored.organisation:
            return self.stored.organisation
        return self.memberships[0].organisation if self.memberships else ""

    @cached_property
    def organisation(self) -> str:
        """The organisation that the command uses: the chosen one, or the default.

        Joining another organisation does not change it. Raises CommandError if there is none.
        """
        if self.chosen:
            return self.chosen
        if not self.default:
            msg = (
                "You are not a member of any organisation. Ask an admin of one to run polly members add YOUR_EMAIL, "
                "and to give you the code that it prints."
            )
            raise CommandError(msg)
        if not (self.stored and self.stored.organisation) and len(self.memberships) > 1 and terminal.asks():
            way = "polly org use NAME" if self.stored else "POLLY_ORG=NAME"
            first = f"Organisation: {self.default}, which you joined first."
            terminal.say(f"{first} For another one: --org NAME, or {way}")
        return self.default

    def require(self, least: api_types.Role, organisation: str = "") -> None:
        """Raise CommandError if the person's role is lower than ``least``."""
        organisation = organisation or self.organisation
        role = self._role(organisation)
        if role and _ROLES.index(role) < _ROLES.index(least):
            able = [each for each in self.memberships if _ROLES.index(each.role) >= _ROLES.index(least)]
            way = "An admin can change it: polly members set-role."
            if able:
                other = able[0]
                way = (
                    f"You are {other.role} of {other.organisation}: use --org {other.organisation}, or make it "
                    f"the default: polly org use {other.organisation}."
                )
            msg = f"You need the role {least} in {organisation}, and yours is {role}. {way}"
            raise CommandError(msg)

    def may_publish(self, organisation: str) -> bool:
        """Return whether the person may make a docker repository of the organisation public."""
        return self._role(organisation) == "admin" and self.client.info().public_repositories == "allow"

    def may_create(self, organisation: str) -> bool:
        """Return whether the person may create docker repositories."""
        return self._role(organisation) in {"writer", "admin"}

    def may_change_access(self, organisation: str) -> bool:
        """Return whether the person may change who may pull."""
        return self._role(organisation) == "admin"

    def _role(self, organisation: str) -> api_types.Role | None:
        return next((each.role for each in self.memberships if each.organisation == organisation), None)

    def repository(self, text: str, *versions: str, deleted: bool = False) -> tuple[str, str]:
        """Return (organisation, name) of the docker repository that ``--name`` names.

        ``HOST/organisation/name`` is taken as it is. A name may begin with the current organisation: ``demo/hello`` in
        demo is the docker repository hello. Without --org it may also begin with another organisation of the person,
        unless the current one has a docker repository of the whole name (with ``deleted``, in its trash).

        ``versions`` are the options of the command for a version, ``--tag`` or ``--commit``. Raises UsageError for a
        pasted image with a version; the message names the option that selects it.
        """
        plain, option, version = repository_names.version(text)
        if version and repository_names.is_one(plain, self.registry):
            raise UsageError(
                self._without_version(text, option, version, self.repository(plain, deleted=deleted), versions)
            )
        organisation, name = repository_names.split(text, self.registry)
        if organisation:
            if self.chosen and organisation != self.chosen:
                msg = f"--name is in the organisation {organisation}, but --org is {self.chosen}."
                raise UsageError(msg)
            return organisation, name
        first, slash, rest = name.partition("/")
        if slash and first == self.organisation:
            return first, rest
        if slash and not self.chosen and self._is_mine(first) and not self._has(name, deleted=deleted):
            return first, rest
        return self.organisation, name

    def spelled(self, organisation: str, name: str) -> str:
        """Return the shortest ``--name`` for this docker repository."""
        first, slash, _ = name.partition("/")
        if organisation != self.organisation or (slash and (first == organisation or self._is_mine(first))):
            return f"{self.registry}/{organisation}/{name}"
        return name

    def _without_version(
        self, text: str, option: str, version: str, place: tuple[str, str], versions: tuple[str, ...]
    ) -> str:
        """Return the error for a pasted image with a version, and how to write it for this command."""
        named = f"--name {self.spelled(*place)}"
        msg = f"--name {text!r} ends with the {'tag' if option == '--tag' else 'digest'} {version!r}."
        if option in versions:
            return f"{msg} Use {named} {option} {shlex.quote(version)}."
        if versions:
            return f"{msg} This command takes {' and '.join(versions)} with {named}."
        return f"{msg} This command is for a whole docker repository: {named}."

    def _is_mine(self, organisation: str) -> bool:
        return any(each.organisation == organisation for each in self.memberships)

    def _has(self, name: str, *, deleted: bool) -> bool:
        """Return whether the current organisation has the docker repository, or something of it in its trash."""
        if deleted:
            path = f"{self.registry}/{self.organisation}/{name}"
            return any(each.repository == path for each in self.client.trash(self.organisation, None).items)
        return self.exists(self.organisation, name)

    def exists(self, organisation: str, name: str) -> bool:
        """Return whether the organisation has the docker repository."""
        try:
            self.client.repository(organisation, name)
        except RequestError as error:
            if "NAME_UNKNOWN" in error.codes:
                return False
            raise
        return True


class Meant(NamedTuple):
    """The profile, server and token that the options or the environment name; each may be empty."""

    profile: str
    server: str
    """In the form of ``server_url.normal``."""
    token: str
    """POLLY_TOKEN, if it belongs to this server."""
    options: bool
    """Whether they come from options, not from the environment."""


def meant(profile: str | None, server: str | None) -> Meant:
    """Return --profile and --server, or if both are missing, POLLY_TOKEN, POLLY_PROFILE and POLLY_SERVER.

    POLLY_TOKEN belongs to POLLY_SERVER, or if that is not set, to --server. It is never sent to another server. Raises
    UsageError for an invalid address.
    """
    token, variable = credentials.token_of_environment(), os.environ.get("POLLY_SERVER", "")
    if not profile and not server:
        named = "" if token else os.environ.get("POLLY_PROFILE", "")
        return Meant(named, variable and server_url.normal(variable), token, options=False)
    url = server_url.normal(server) if server else ""
    if profile or (token and variable and not profiles.same(server_url.normal(variable), url)):
        token = ""
    return Meant(profile or "", url, token, options=True)


def resolve(profile: str | None, server: str | None, org: str | None) -> Session:
    """Return the session. Options override the environment, which overrides the current profile.

    Raises UsageError if nothing names a server or two things name different ones, and CommandError if nobody is signed
    in to it.
    """
    organisation = org or os.environ.get("POLLY_ORG", "")
    wanted = meant(profile, server)
    if wanted.token:
        if not wanted.server:
            msg = "POLLY_TOKEN is set, but POLLY_SERVER is not. Set POLLY_SERVER to the server of the token."
            raise UsageError(msg)
        return Session(wanted.server, wanted.token, chosen=organisation)
    known = profiles.load()
    name = _name(known, wanted)
    stored = known.by_name[name]
    return Session(stored.server, stored.token, name, stored, organisation)


def known_name(known: profiles.Profiles, name: str) -> str:
    """Return the name if there is such a profile. Raises CommandError, which lists the existing ones."""
    if name not in known.by_name:
        have = f" There are: {known.names()}." if known.by_name else ""
        make = "" if "@" in name else f" To create it, run: polly login --profile {shlex.quote(name)}"
        msg = f"There is no profile {server_url.masked(name)!r}.{have}{make}"
        raise CommandError(msg)
    return name


def agreed(known: profiles.Profiles, wanted: Meant) -> str:
    """Return the name of the selected profile. Raises UsageError if it belongs to another server."""
    name = known_name(known, wanted.profile)
    stored = known.by_name[name].server
    if wanted.server and not profiles.same(stored, wanted.server):
        first, second = ("--profile", "--server") if wanted.options else ("POLLY_PROFILE", "POLLY_SERVER")
        msg = f"{first} {name} belongs to {stored}, but {second} is {wanted.server}. Leave one of them out."
        raise UsageError(msg)
    return name


def of_server(known: profiles.Profiles, url: str, *preferred: str) -> str:
    """Return the name of the profile of a server, or of several the first preferred one; empty if there is none.

    Raises UsageError if there are several and none is preferred.
    """
    found = sorted(name for name, each in known.by_name.items() if profiles.same(each.server, url))
    if len(found) < 2:  # noqa: PLR2004
        return "".join(found)
    for name in preferred:
        if name in found:
            return name
    msg = f"Several profiles belong to {url}: {', '.join(found)}. Choose one: --profile NAME"
    raise UsageError(msg)


def _name(known: profiles.Profiles, wanted: Meant) -> str:
    if wanted.profile:
        return agreed(known, wanted)
    if wanted.server:
        name = of_server(known, wanted.server, os.environ.get("POLLY_PROFILE", ""), known.current)
        if not name:
            host = server_url.host(wanted.server)
            way = f"Run: polly login --server {wanted.server}"
            if host in known.by_name:
                way = f"For the profile of that name: --profile {host}"
            same = [each.server for each in known.by_name.values() if server_url.host(each.server) == host]
            if same:
                way = f"You are signed in to {same[0]}: use --server {same[0]}"
            msg = f"You are not signed in to {wanted.server}. {way}"
            raise CommandError(msg)
        return name
    if known.current:
        return known.current
    if known.by_name:
        msg = f"--profile is missing: you are signed in to several servers ({known.names()})."
        raise UsageError(msg)
    msg = "You are not signed in. Run: polly login --server URL"
    raise CommandError(msg)
