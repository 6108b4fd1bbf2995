"""``polly dockers delete``, ``restore`` and ``trash``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.cli import listing, prompts, repository_names, tables, terminal
from polly_dockers.cli.actions.dockers import ask_name
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.tables import Column, Columns
from polly_dockers.formatting import counted, size

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.session import Session

_VERSIONS = ("--tag", "--commit")
_AT_ONCE = "This server keeps nothing in the trash: the next collection of garbage deletes it for good."


def _path(item: api_types.TrashItem) -> str:
    path = item.repository
    return f"{path}:{item.name}" if item.kind == "tag" else f"{path}@{item.name}" if item.kind == "commit" else path


_ITEM: Columns[api_types.TrashItem] = (
    Column("kind", lambda each: each.kind),
    Column("deleted", _path, own_line=True),
    Column("deleted by", lambda each: each.deleted_by or ("a policy" if each.by_policy else "the operator")),
    Column("deleted at", lambda each: tables.date(each.deleted_at)),
    Column("restorable until", lambda each: tables.date(each.restorable_until)),
    Column("tags", lambda each: ", ".join(each.tags) if each.kind == "commit" else "", longest=40),
    Column("commits", lambda each: str(each.commits), right=True),
    Column("size", lambda each: size(each.size), right=True),
)


def delete(call: Call, name: str | None, tag: str | None, commit: str | None, output: str, *, yes: bool) -> None:
    """Move a docker repository, a tag or a commit to the trash, after a confirmation.

    Raises UsageError if nobody can be asked, and DeclinedError if the answer is no.
    """
    what = _what(tag, commit)
    if name is None:
        call.need_consent("--name", name, yes=yes)
    session = call.session
    asking = name is None and not what
    organisation, name = session.repository(name if name is not None else ask_name(call, "admin"), *_VERSIONS)
    if asking:
        tag, commit = _ask_version(session, organisation, name)
        what = _what(tag, commit)
    item = session.client.delete(organisation, name, preview=True, **what)
    if commit is not None:  # the whole digest, so that a later push can't make it ambiguous
        what["commit"] = commit = item.name
    if not yes:
        terminal.say(_consequences(item) + (f" {_AT_ONCE}" if _is_purged(item) else ""))
        call.confirm("Delete it?", "Nothing was deleted.", "delete")
    item = session.client.delete(organisation, name, preview=False, **what)
    call.remember("polly dockers delete", (organisation, name), tag=tag, commit=commit, yes=True)
    terminal.success(f"{_named(item)} is in the trash")
    way_back = _way_back(session.spelled(organisation, name), tag, commit)
    if _is_purged(item):
        terminal.say(_AT_ONCE)
    else:
        terminal.say(f"To restore it until {tables.date(item.restorable_until)}: {way_back}")
    if output == "json":
        tables.document(item)


def restore(
    call: Call, name: str | None, tag: str | None, commit: str | None, new_name: str | None, output: str
) -> None:
    """Restore what was last deleted under that name. Raises UsageError for options that don't fit together."""
    what = _what(tag, commit)
    if new_name is not None and (tag or commit):
        msg = "--as works only for a whole docker repository; a tag or a commit is restored where it was."
        raise UsageError(msg)
    session = call.session
    if name is None and not what and call.may_ask():
        name, tag, commit = _ask_deleted(call, whole=new_name is not None)
        what = _what(tag, commit)
    name = name if name is not None else call.need("--name", lambda: _ask_deleted_name(call))
    organisation, name = session.repository(name, *_VERSIONS, deleted=True)
    if new_name is not None:
        new_name = _new_name(session, organisation, new_name)
    item = session.client.restore(organisation, api_types.Restore(name, tag, what.get("commit"), new_name))
    if commit is not None:
        commit = item.name
    call.remember("polly dockers restore", (organisation, name), tag=tag, commit=commit, **{"as": new_name})
    with_it = f", with its tag {tag}" if tag and item.kind == "commit" else ""
    terminal.success(f"{_named(item)} is restored{f' as {new_name}' if new_name else with_it}")
    others = [terminal.clean(each) for each in item.tags if each != tag]
    if item.kind == "commit" and others:
        terminal.say(f"Its {'other ' if tag else ''}tags are restored too, unless they are in use: {', '.join(others)}")
    if output == "json":
        tables.document(item)


def list_(call: Call, output: str, *, every: bool) -> None:
    """Print the trash of the organisation, newest first."""
    session = call.session
    organisation = session.organisation
    page = session.client.trash(organisation, None if every else listing.SHORT)
    call.remember("polly dockers trash", all=every)
    tables.display(output, page.items, _ITEM, page.items, f"The trash of {organisation} is empty.")
    if len(page.items) < page.total:
        terminal.say(f"{len(page.items)} of {page.total} items; --all lists all of them.")


def _what(tag: str | None, commit: str | None) -> dict[str, str]:
    if tag is not None and commit is not None:
        msg = "--tag and --commit can't be together: choose one."
        raise UsageError(msg)
    if commit is not None:
        commit = repository_names.commit(commit)
    return {key: value for key, value in (("tag", tag), ("commit", commit)) if value is not None}


def _ask_version(session: Session, organisation: str, name: str) -> tuple[str | None, str | None]:
    """Ask for the tag or the commit to delete, and return (tag, commit); both None for the docker repository."""
    tags = [each.tag for each in session.client.tags(organisation, name, 1000).items]
    commits = session.client.commits(organisation, name, 1000).items
    kinds = [*(["a tag"] if tags else []), *(["a commit"] if commits else []), "the whole docker repository"]
    kind = prompts.choose("What do you want to delete?", kinds)
    if kind == "a tag":
        return prompts.choose("Which tag?", tags), None
    if kind == "a commit":
        lines = {f"{each.commit}  {terminal.clean(each.tag)} {tables.date(each.pushed_at)}": None for each in commits}
        return None, prompts.choose("Which commit?", list(lines)).partition(" ")[0]
    return None, None


def _ask_deleted(call: Call, *, whole: bool) -> tuple[str, str | None, str | None]:
    """Ask what to restore, and return (path, tag, commit). ``whole`` offers docker repositories only.

    Raises CommandError if the trash is empty.
    """
    session = call.session
    session.require("admin")
    items = [
        each
        for each in session.client.trash(session.organisation, 1000).items
        if each.kind == "repository" or not whole
    ]
    if not items:
        msg = f"The trash of {session.organisation} has nothing to restore."
        raise CommandError(msg)
    call.asked = True
    by_line: dict[str, api_types.TrashItem] = {}
    for each in items:  # of several with one name, the newest is restored
        by_line.setdefault(_named(each), each)
    item = by_line[prompts.choose("What do you want to restore?", list(by_line))]
    return (item.repository, item.name if item.kind == "tag" else None, item.name if item.kind == "commit" else None)


def _ask_deleted_name(call: Call) -> str:
    session = call.session
    session.require("admin")
    items = session.client.trash(session.organisation, 1000).items
    known = sorted({each.repository.partition("/")[2].partition("/")[2] for each in items})
    prefix = f"{session.registry}/{session.organisation}/"
    answer = prompts.one_of("Enter the name of the docker repository", known, prefix=prefix)
    return f"{prefix}{answer}" if answer in known else answer


def _new_name(session: Session, organisation: str, text: str) -> str:
    """Return the name in ``--as``, without its organisation. Raises UsageError for another organisation."""
    other, name = repository_names.split(text, session.registry, "--as")
    if other not in {None, organisation}:
        msg = f"--as {text!r} is not in {organisation}, the organisation of the docker repository."
        raise UsageError(msg)
    return name if other else name.removeprefix(f"{organisation}/")


def _named(item: api_types.TrashItem) -> str:
    path = terminal.clean(item.repository)
    if item.kind == "tag":
        return f"the tag {path}:{terminal.clean(item.name)}"
    return f"the commit {path}@{terminal.clean(item.name)}" if item.kind == "commit" else f"the repository {path}"


def _consequences(item: api_types.TrashItem) -> str:
    """Return a sentence that says what would be deleted, and its size."""
    commits = counted(item.commits, "commit")
    if item.kind == "tag":
        return f"This deletes {_named(item)}. Its commits stay, as inactive commits, and can be pulled by their digest."
    if item.kind == "repository":
        return f"This deletes {_named(item)}" + (
            f" with its {commits}, {size(item.size)}." if item.commits else ". It is empty."
        )
    tags = f", and its tags: {', '.join(map(terminal.clean, item.tags))}" if item.tags else ""
    pushes = f", with its {commits}" if item.commits > 1 else ""
    return f"This deletes {_named(item)}, {size(item.size)}{pushes}{tags}."


def _is_purged(item: api_types.TrashItem) -> bool:
    """Return whether the server keeps nothing in its trash: its setting ``trash_days`` is 0."""
    return item.restorable_until == item.deleted_at


def _way_back(name: str, tag: str | None, commit: str | None) -> str:
    what = f" --tag {tag}" if tag else f" --commit {commit}" if commit else ""
    return f"polly dockers restore --name {name}{what}"
