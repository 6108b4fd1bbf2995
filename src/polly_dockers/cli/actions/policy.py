"""``polly dockers policy``: show, preview and set which commits are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.cli import listing, tables, terminal, times
from polly_dockers.cli.errors import UsageError
from polly_dockers.cli.tables import Column, Columns
from polly_dockers.formatting import counted, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polly_dockers.cli.call import Call
    from polly_dockers.cli.session import Session

_STAYS = (
    "These always stay: active tags, what an image of several platforms or a signature still needs, and what was "
    "pushed, pulled or restored within the last day."
)
_POLICY: Columns[tuple[str, str]] = (
    Column("docker repository", lambda each: each[0], own_line=True),
    Column("keeps", lambda each: each[1]),
)
_GOING: Columns[api_types.PolicyPreviewItem] = (
    Column("to be deleted", lambda each: each.path, own_line=True),
    Column("pushed at", lambda each: tables.date(each.pushed_at)),
    Column("tags that it had", lambda each: ", ".join(each.tags) or "-", longest=40),
    Column("size", lambda each: size(each.size), right=True),
)


@dataclass(frozen=True)
class Wanted:
    """The options that set which commits are kept."""

    younger_than: str | None
    newest: int | None
    pulled_within: str | None
    keep_everything: bool
    inherit: bool

    def update(self) -> api_types.PolicyUpdate | None:
        """Return the body of the request; None if no option sets a policy. Raises UsageError if options conflict."""
        rules = [
            name
            for name, value in (
                ("--younger-than", self.younger_than),
                ("--newest", self.newest),
                ("--pulled-within", self.pulled_within),
            )
            if value is not None
        ]
        whole = [name for name, on in (("--keep-everything", self.keep_everything), ("--inherit", self.inherit)) if on]
        if len(whole) > 1 or (whole and rules):
            msg = f"{' and '.join(whole + rules)} can't be together: give rules, or --keep-everything, or --inherit."
            raise UsageError(msg)
        if whole:
            return api_types.PolicyUpdate("everything" if self.keep_everything else "inherit")
        if not rules:
            return None
        return api_types.PolicyUpdate(
            "rules",
            _seconds(self.younger_than, "--younger-than"),
            self.newest,
            _seconds(self.pulled_within, "--pulled-within"),
        )

    def options(self) -> dict[str, str | bool | None]:
        """Return the options for the command in one line."""
        return asdict(self) | {"newest": str(self.newest) if self.newest is not None else None}


def run(
    call: Call,
    name: str | None,
    wanted: Wanted,
    output: str,
    *,
    as_of: str | None,
    every: bool,
    preview: bool,
    yes: bool,
) -> None:
    """Set the policy that is wanted, or show the current one or its preview. Raises UsageError and DeclinedError."""
    body = wanted.update()
    only_preview = preview or as_of is not None
    if yes and (body is None or as_of is not None):
        msg = "--yes needs a policy to set, for instance --newest 10, and can't be used with --as-of."
        raise UsageError(msg)
    if body is not None:
        _change(call, name, wanted, body, output, as_of=as_of, every=every, only_preview=only_preview, yes=yes)
    elif only_preview:
        _preview(call, name, as_of, output, every=every)
    else:
        _show(call, name, output)


def _show(call: Call, name: str | None, output: str) -> None:
    """Print the policy of the organisation and of docker repositories with their own; or of one docker repository."""
    session = call.session
    place = session.repository(name) if name is not None else None
    organisation, name = place or (session.organisation, None)
    path = session.client.repository(organisation, name).path if name is not None else None
    found = session.client.policies(organisation)
    call.remember("polly dockers policy", place)
    if path is not None:
        found.items = [each for each in found.items if each.repository == path]
    every = (f"all others of {organisation}" if found.items else f"all of {organisation}", _words(found.organisation))
    own = [(each.repository, _words(each.policy)) for each in found.items]
    if path is not None:
        rows = own or [(path, f"{_words(found.organisation)}, as all of {organisation}")]
    else:
        rows = [every, *own]
    tables.display(output, found, _POLICY, rows)


def _preview(call: Call, name: str | None, as_of: str | None, output: str, *, every: bool) -> None:
    """Print what the current policy deletes, now or at the time of --as-of. Raises UsageError for an invalid time."""
    session = call.session
    when = _moment(as_of, session)
    place = session.repository(name) if name is not None else None
    organisation, name = place or (session.organisation, None)
    seen = session.client.policy_preview(organisation, name, **when)
    call.remember("polly dockers policy", place, preview=True, as_of=as_of)
    if output == "json":
        tables.document(seen)
        return
    if name is None:
        own = {each.repository: each.policy for each in session.client.policies(organisation).items}
        _tell(seen, _organisation_words(organisation, own=bool(own)), every=every, later=bool(when), own=own)
    else:
        _tell(seen, f"the docker repository {name}", every=every, later=bool(when))
    terminal.say("Nothing was changed.")


def _organisation_words(organisation: str, *, own: bool) -> str:
    """Return what the policy of an organisation applies to; ``own``: some docker repositories have their own."""
    others = "other " if own else ""
    return f"all {others}docker repositories of {organisation}"


def _moment(text: str | None, session: Session) -> dict[str, str]:
    """Return the query for --as-of, empty without it. Raises UsageError for a time before the server's clock."""
    if text is None:
        return {}
    now = session.client.now()
    at = times.moment(text, "--as-of", now, end=True)
    if at < now:
        msg = f"--as-of {text!r} is in the past. Valid examples: tomorrow, +30d and any future day."
        raise UsageError(msg)
    return {"as_of": at.isoformat()}


def _change(
    call: Call,
    name: str | None,
    wanted: Wanted,
    body: api_types.PolicyUpdate,
    output: str,
    *,
    as_of: str | None,
    every: bool,
    only_preview: bool,
    yes: bool,
) -> None:
    """Print what the policy would delete, ask, and set it. Raises UsageError and DeclinedError."""
    session = call.session
    when = _moment(as_of, session)
    if wanted.inherit and name is None:
        msg = "--inherit removes the policy of one docker repository: give its --name."
        raise UsageError(msg)
    place = session.repository(name) if name is not None else None
    organisation, name = place or (session.organisation, None)
    what = f"the docker repository {name}" if name is not None else f"all docker repositories of {organisation}"
    if only_preview or not yes:
        seen = session.client.set_policy(organisation, name, body, preview=True, **when)
        if only_preview and output == "json":
            tables.document(seen)
            return
        _tell(seen, what, every=every, later=bool(when), aside=output == "json")
        if only_preview:
            terminal.say("Nothing was changed.")
            return
        call.confirm("Set this policy?", "Nothing was changed.", "set the policy")
    done = session.client.set_policy(organisation, name, body, preview=False)
    call.remember("polly dockers policy", place, **wanted.options(), yes=True)
    shared = f", as all docker repositories of {organisation}" if wanted.inherit else ""
    terminal.success(f"{what} keep{'s' if name is not None else ''} {_words(done.policy)}{shared}")
    if done.preview.manifests:
        terminal.say(
            f"The server moves these to the trash within the next hours: {_much(done.preview)}. "
            "To get something back: polly dockers restore"
        )
    if output == "json":
        tables.document(done)


def _words(policy: api_types.Policy) -> str:
    """Return what a policy keeps, in words."""
    if policy.keep != "rules":
        return "everything"
    rules = []
    if policy.newest is not None:
        rules.append(f"the newest {policy.newest} of each tag" if policy.newest > 1 else "the newest of each tag")
    if policy.younger is not None:
        rules.append(f"what was pushed in the last {times.text(policy.younger)}")
    if policy.pulled is not None:
        rules.append(f"what was pulled in the last {times.text(policy.pulled)}")
    return " and ".join(filter(None, (", ".join(rules[:-1]), rules[-1])))


def _tell(
    seen: api_types.PolicyChange,
    what: str,
    *,
    every: bool,
    later: bool,
    aside: bool = False,
    own: Mapping[str, api_types.Policy] = MappingProxyType({}),
) -> None:
    """Print what would be deleted. ``later``: at the time of --as-of. ``aside``: on stderr, if stdout is for JSON.

    ``own``: the policies of docker repositories that have their own, to name those of the repositories that are listed.
    """
    when = f"by {tables.date(seen.preview.as_of)}, if nothing is pushed or pulled before" if later else "now"
    items = seen.preview.items if every else seen.preview.items[: listing.SHORT]
    if items:
        tables.show(_GOING, items, aside=aside)
    for path in dict.fromkeys(each.path.partition("@")[0] for each in items):
        if path in own:
            terminal.say(f"Kept in {path}, by its own policy: {_words(own[path])}.")
    named = {path for path in own if any(each.path.partition("@")[0] == path for each in items)}
    if len(named) < len(own):
        terminal.say("Some docker repositories have their own policy. polly dockers policy shows them.")
    terminal.say(f"Kept in {what}: {_words(seen.policy)}.")
    if seen.preview.manifests == 0:
        terminal.say(
            f"Nothing would be deleted {when}." if seen.preview.complete else "Nothing to delete was found so far."
        )
        if seen.policy.keep == "rules":
            terminal.say(_STAYS)
        return
    terminal.say(f"This would be moved to the trash {when}: {_much(seen.preview)}.")
    if len(items) < seen.preview.manifests:
        more = "; --all lists up to 1,000 of them" if not every else ""
        terminal.say(f"{len(items)} of them are listed{more}.")
    terminal.say(_STAYS)


def _much(preview: api_types.PolicyPreview) -> str:
    least = "" if preview.complete else "at least "
    return (
        f"{least}{counted(preview.manifests, 'image')} with {counted(preview.commits, 'commit')}, {size(preview.size)}"
    )


def _seconds(text: str | None, option: str) -> int | None:
    return times.seconds(text, option, least="1d", longest="36500d") if text is not None else None
