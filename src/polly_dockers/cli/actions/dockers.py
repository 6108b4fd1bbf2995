"""``polly dockers create``, ``list``, ``commit-list``, ``tags`` and ``update``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from polly_dockers import api_types
from polly_dockers.cli import prompts, repository_names, tables, terminal
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.tables import Column, Columns
from polly_dockers.formatting import size
from polly_dockers.oci import reference

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.listing import Range

T = TypeVar("T")

_REPOSITORY: Columns[api_types.RepositoryItem] = (
    Column("docker repository", lambda each: each.path, own_line=True),
    Column("created by", lambda each: each.created_by),
    Column("created at", lambda each: tables.date(each.created_at)),
    Column("docker access", lambda each: each.access),
    Column("description", lambda each: each.description, longest=40),
    Column("tags", lambda each: str(each.tags), right=True),
    Column("commits", lambda each: str(each.commits), right=True),
    Column("size", lambda each: size(each.size), right=True),
    Column("last push", lambda each: tables.date(each.pushed_at)),
)
_CREATED: Columns[api_types.RepositoryItem] = (
    Column("docker name", lambda each: each.path, own_line=True),
    Column("description", lambda each: each.description),
)
_Commit = api_types.CommitItem | api_types.TagItem
_TAG_NAME = Column[_Commit]("tag", lambda each: each.tag)
_HASH = Column[_Commit]("commit_hash", lambda each: each.commit, own_line=True)
_SIZE = Column[_Commit]("size", lambda each: size(each.size), right=True)
_PLATFORMS = Column[_Commit]("platforms", lambda each: ", ".join(each.platforms) or "-", longest=32)
_PUSHED_AT = Column[_Commit]("pushed at", lambda each: tables.date(each.pushed_at))
_PUSHED_BY = Column[_Commit]("pushed by", lambda each: each.pushed_by)
_STATUS = Column[api_types.CommitItem](
    "tag status", lambda each: each.status, colours=(("active", tables.GREEN), ("inactive", tables.YELLOW))
)
_COMMIT = (_TAG_NAME, _PUSHED_BY, _PUSHED_AT, _HASH, _STATUS, _SIZE, _PLATFORMS)
_TAG = (_TAG_NAME, _HASH, _SIZE, _PLATFORMS, _PUSHED_AT, _PUSHED_BY)


def create(call: Call, name: str | None, description: str | None, *, public: bool | None, output: str) -> None:
    """Create a docker repository, and print it. Raises UsageError if something is missing or invalid."""
    session = call.session
    call.need_all({"--name": (name, ""), "--description": (description, "")})
    asking = name is None or description is None or call.guided
    if asking and call.may_ask():
        session.require("admin" if public else "writer")
    named = name is not None
    if name is None:
        prefix = f"{session.registry}/{session.organisation}/" if call.may_ask() else ""
        question = "Enter the name of the docker repository"
        name = call.need(
            "--name", lambda: prompts.text(question, prefix=prefix, check=lambda text: _name_problem(call, text))
        )
    given, (organisation, name) = name, session.repository(name)
    if description is None:
        question = "Enter the description of the docker repository"
        description = call.need("--description", lambda: prompts.text(question))
    _check_description(description)
    is_unclear = "/" in name and given.strip() == name
    if is_unclear and named and call.may_ask():
        terminal.say(f"This creates {session.registry}/{organisation}/{name}, in the organisation {organisation}.")
        call.confirm("Create it?", "Nothing was created.", "create it")
    if public is None and asking and call.may_ask() and session.may_publish(organisation):
        public = prompts.yes("Should the docker repository be public?")
    body = api_types.RepositoryCreate(name, description, "public" if public else "private")
    item = session.client.create_repository(organisation, body)
    call.remember(
        "polly dockers create", (organisation, name), description=description, public=public, private=public is False
    )
    terminal.say(f"Created {terminal.clean(item.path)}")
    terminal.success("docker repository generation")
    if is_unclear:
        terminal.say(f"It is in the organisation {organisation}.")
    tables.display(output, item, _CREATED, [item])


def list_(call: Call, wanted: Range, search: str | None, output: str) -> None:
    """Print docker repositories: sorted by creation if a range was given, else by the last push."""
    session = call.session
    organisation = session.organisation
    wanted.ask("How many docker repositories do you want to list?")
    query = {"order": wanted.order, "sort": "created" if wanted.given else "pushed"}
    page = session.client.repositories(organisation, wanted.count, **query, **({"search": search} if search else {}))
    call.remember("polly dockers list", **wanted.options(), search=search)
    if page.items or output == "json":
        total = len(page.items) if page.total is None and page.next is None else page.total
        _print(wanted, output, _REPOSITORY, page.items, total, "docker repository")
    elif search:
        terminal.say(f"No docker repository of {organisation} has {search!r} in its name or description.")
    else:
        way = "To create one: polly dockers create --name NAME --description TEXT"
        if not session.may_create(organisation):
            way = "Writers and admins can create one."
        terminal.say(f"{organisation} has no docker repository yet. {way}")


def commit_list(call: Call, name: str | None, tag: str | None, wanted: Range, output: str) -> None:
    """Print the commits of a docker repository, and the commands that pull them."""
    session = call.session
    organisation, name = session.repository(name if name is not None else ask_name(call), "--tag")
    wanted.ask("How many commits do you want to list?")
    query = {"order": wanted.order} | ({"tag": tag} if tag is not None else {})
    page = session.client.commits(organisation, name, wanted.count, **query)
    call.remember("polly dockers commit-list", (organisation, name), tag=tag, **wanted.options())
    path = terminal.clean(page.repository)
    if page.items or output == "json":
        _print(
            wanted,
            output,
            _COMMIT,
            page.items,
            page.total,
            "commit",
            f"Commits for the docker repository {path}",
            "To pull the docker for:",
            f"active tag: docker pull {path}:tag",
            f"inactive tag: docker pull {path}@commit_hash",
        )
    else:
        terminal.say(f"{path} has no commit yet. To create one: docker push {path}:TAG")


def tags(call: Call, name: str | None, wanted: Range, output: str) -> None:
    """Print the tags of a docker repository, each with its active commit."""
    session = call.session
    organisation, name = session.repository(name if name is not None else ask_name(call))
    wanted.ask("How many tags do you want to list?")
    page = session.client.tags(organisation, name, wanted.count, order=wanted.order)
    call.remember("polly dockers tags", (organisation, name), **wanted.options())
    path = terminal.clean(page.repository)
    if page.items or output == "json":
        _print(wanted, output, _TAG, page.items, page.total, "tag", f"Tags of the docker repository {path}")
    else:
        terminal.say(f"{path} has no tag. To create one: docker push {path}:TAG")
        terminal.say("Tags that were deleted are in the trash: polly dockers trash")


def update(
    call: Call, name: str | None, description: str | None, sparse: str | None, *, public: bool | None, output: str
) -> None:
    """Change the given fields of a docker repository, and print it. Raises UsageError if none is given."""
    session = call.session
    if name is None:
        name = ask_name(call, "writer" if public is None else "admin")
    organisation, name = session.repository(name)
    if description is None and public is None and sparse is None:
        if not call.may_ask():
            msg = "Nothing to change: give --description, --public, --private or --sparse-indexes."
            raise UsageError(msg)
        session.require("writer", organisation)
        description, public = _ask_changes(call, organisation, session.client.repository(organisation, name))
        if description is None and public is None:
            terminal.say("Nothing was changed.")
            return
    if description is not None:
        _check_description(description)
    access: api_types.Access | None = None if public is None else "public" if public else "private"
    body = api_types.RepositoryUpdate(description, access, sparse)  # type: ignore[arg-type]
    item = session.client.update_repository(organisation, name, body)
    call.remember(
        "polly dockers update", (organisation, name), description=description, public=public, private=public is False,
        sparse_indexes=sparse,
    )  # fmt: skip
    terminal.success("Docker information updated")
    tables.display(output, item, _REPOSITORY, [item])


def ask_name(call: Call, least: api_types.Role = "reader") -> str:
    """Ask for --name, and return it. Raises CommandError if the person's role is lower than ``least``."""

    def question() -> str:
        session = call.session
        session.require(least)
        known = [each.name for each in session.client.repositories(session.organisation, 1000, sort="pushed").items]
        prefix = f"{session.registry}/{session.organisation}/"

        def missing(answer: str) -> str | None:
            if answer in known:
                return None
            try:
                organisation, name = session.repository(answer)
                there = session.exists(organisation, name)
            except CommandError as error:
                return error.message
            return None if there else f"There is no docker repository {name} in {organisation}."

        answer = prompts.one_of("Enter the name of the docker repository", known, prefix=prefix, check=missing)
        return f"{prefix}{answer}" if answer in known else answer

    return call.need("--name", question)


def _ask_changes(call: Call, organisation: str, item: api_types.RepositoryItem) -> tuple[str | None, bool | None]:
    """Ask for a new description and access; None for what stays the same."""
    call.asked = True
    other = "private" if item.access == "public" else "public"
    path = terminal.clean(item.path)
    session = call.session
    may = session.may_publish(organisation) if other == "public" else session.may_change_access(organisation)
    public = (other == "public") if may and prompts.yes(f"{path} is {item.access}. Make it {other}?") else None
    old = terminal.clean(item.description)
    description = prompts.text("Enter the description of the docker repository", default=old)
    return (None if description == old else description), public


def _name_problem(call: Call, name: str) -> str | None:
    """Return what is wrong with a name, short enough for the line below a question; None for a valid name."""
    registry = call.session.registry
    try:
        repository_names.split(name, registry)
    except UsageError:
        plain = repository_names.version(name)[0]
        valid = repository_names.is_one(plain, registry)
        right = plain if valid else reference.suggest_name(name) or "team/new_repo"
        return f"Not a valid name of a docker repository. Try {right}"
    return None


def _check_description(text: str) -> None:
    if not text.strip():
        msg = "--description is empty. Say in a few words what the docker repository is for."
        raise UsageError(msg)


def _print(
    wanted: Range,
    output: str,
    columns: Columns[T],
    items: list[T],
    total: int | None,
    noun: str,
    heading: str = "",
    *hints: str,
) -> None:
    """Print a part of a list as JSON, or as a table with a heading before it and hints after it; then the total."""
    if output == "json":
        tables.document([_with_alias(each) for each in items])
    else:
        if heading:
            terminal.say(heading)
        tables.show(columns, items)
        for hint in hints:
            terminal.say(hint)
    wanted.print_total(len(items), total, noun, output)


def _with_alias(item: object) -> dict[str, object]:
    """Return an item for JSON; its commit also as ``commit_hash``, the name that older scripts use."""
    fields: dict[str, object] = msgspec.to_builtins(item)
    return fields | {"commit_hash": fields["commit"]} if "commit" in fields else fields
