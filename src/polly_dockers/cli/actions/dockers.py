"""``polly dockers create``, ``list``, ``commit-list``, ``tags`` and ``update``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from polly_dockers import api_types
from polly_dockers.cli import prompts, repository_names, tables, terminal
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.tables import Column
from polly_dockers.formatting import size
from polly_dockers.oci import reference

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.listing import Range

_REPOSITORY = (
    Column("docker repository", own_line=True),
    Column("created by"),
    Column("created at"),
    Column("docker access"),
    Column("description", longest=40),
    Column("tags", right=True),
    Column("commits", right=True),
    Column("size", right=True),
    Column("last push"),
)
_CREATED = (Column("docker name", own_line=True), Column("description"))
_COMMIT = (
    Column("tag"),
    Column("pushed by"),
    Column("pushed at"),
    Column("commit_hash", own_line=True),
    Column("tag status", colours=(("active", tables.GREEN), ("inactive", tables.YELLOW))),
    Column("size", right=True),
    Column("platforms", longest=32),
)
_TAG = (
    Column("tag"),
    Column("commit_hash", own_line=True),
    Column("size", right=True),
    Column("platforms", longest=32),
    Column("pushed at"),
    Column("pushed by"),
)


def create(call: Call, name: str | None, description: str | None, *, public: bool | None, output: str) -> None:
    """Create a docker repository, and print it. Raises UsageError if something is missing or invalid."""
    session = call.session
    call.need_all({"--name": (name, ""), "--description": (description, "")})
    asking = name is None or description is None or call.guided
    if asking and call.may_ask():
        session.require("writer")
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
    if public is None and asking and call.may_ask() and session.may_publish(organisation):
        public = prompts.yes("Should the docker repository be public?")
    body = api_types.RepositoryCreate(name, description, "public" if public else "private")
    item = session.client.create_repository(organisation, body)
    call.remember(
        "polly dockers create", (organisation, name), description=description, public=public, private=public is False
    )
    terminal.say(f"Created {terminal.clean(item.path)}")
    terminal.success("docker repository generation")
    if "/" in name and given.strip() == name:
        terminal.say(f"It is in the organisation {organisation}.")
    tables.display(output, item, _CREATED, [(item.path, item.description)])


def list_(call: Call, wanted: Range, search: str | None, output: str) -> None:
    """Print docker repositories: sorted by creation if a range was given, else by the last push."""
    session = call.session
    organisation = session.organisation
    wanted.ask("How many docker repositories do you want to list?")
    query = {"order": wanted.order, "sort": "created" if wanted.given else "pushed"}
    page = session.client.repositories(organisation, wanted.count, **query, **({"search": search} if search else {}))
    call.remember("polly dockers list", **wanted.options(), search=search)
    if output == "json":
        tables.document(page.items)
    elif page.items:
        tables.show(_REPOSITORY, [_repository_row(each) for each in page.items])
    elif search:
        terminal.say(f"No docker repository of {organisation} has {search!r} in its name or description.")
        return
    else:
        way = "To create one: polly dockers create --name NAME --description TEXT"
        if not session.may_create(organisation):
            way = "Writers and admins can create one."
        terminal.say(f"{organisation} has no docker repository yet. {way}")
        return
    wanted.print_total(len(page.items), page.total, "docker repository", output)


def commit_list(call: Call, name: str | None, tag: str | None, wanted: Range, output: str) -> None:
    """Print the commits of a docker repository, and the commands that pull them."""
    session = call.session
    organisation, name = session.repository(name if name is not None else ask_name(call), "--tag")
    wanted.ask("How many commits do you want to list?")
    query = {"order": wanted.order} | ({"tag": tag} if tag is not None else {})
    page = session.client.commits(organisation, name, wanted.count, **query)
    call.remember("polly dockers commit-list", (organisation, name), tag=tag, **wanted.options())
    path = terminal.clean(page.repository)
    if output == "json":
        tables.document([_with_alias(each) for each in page.items])
    elif page.items:
        terminal.say(f"Commits for the docker repository {path}")
        tables.show(_COMMIT, [_commit_row(each) for each in page.items])
        terminal.say("To pull the docker for:")
        terminal.say(f"active tag: docker pull {path}:tag")
        terminal.say(f"inactive tag: docker pull {path}@commit_hash")
    else:
        terminal.say(f"{path} has no commit yet. To create one: docker push {path}:TAG")
        return
    wanted.print_total(len(page.items), page.total, "commit", output)


def tags(call: Call, name: str | None, wanted: Range, output: str) -> None:
    """Print the tags of a docker repository, each with its active commit."""
    session = call.session
    organisation, name = session.repository(name if name is not None else ask_name(call))
    wanted.ask("How many tags do you want to list?")
    page = session.client.tags(organisation, name, wanted.count, order=wanted.order)
    call.remember("polly dockers tags", (organisation, name), **wanted.options())
    path = terminal.clean(page.repository)
    if output == "json":
        tables.document([_with_alias(each) for each in page.items])
    elif page.items:
        terminal.say(f"Tags of the docker repository {path}")
        tables.show(_TAG, [_tag_row(each) for each in page.items])
    else:
        terminal.say(f"{path} has no tag. To create one: docker push {path}:TAG")
        return
    wanted.print_total(len(page.items), page.total, "tag", output)


def update(
    call: Call, name: str | None, description: str | None, sparse: str | None, *, public: bool | None, output: str
) -> None:
    """Change the given fields of a docker repository, and print it. Raises UsageError if none is given."""
    session = call.session
    if name is None:
        name = ask_name(call, "writer")
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
    tables.display(output, item, _REPOSITORY, [_repository_row(item)])


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


def _repository_row(item: api_types.RepositoryItem) -> tables.Row:
    return (
        item.path, item.created_by, tables.date(item.created_at), item.access, item.description, str(item.tags),
        str(item.commits), size(item.size), tables.date(item.pushed_at),
    )  # fmt: skip


def _tag_row(item: api_types.TagItem) -> tables.Row:
    return (
        item.tag, item.commit, size(item.size), ", ".join(item.platforms) or "-", tables.date(item.pushed_at),
        item.pushed_by,
    )  # fmt: skip


def _with_alias(item: api_types.CommitItem | api_types.TagItem) -> dict[str, object]:
    """Return the item with its commit also under ``commit_hash``, the name that older scripts use."""
    return {**msgspec.to_builtins(item), "commit_hash": item.commit}


def _commit_row(item: api_types.CommitItem) -> tables.Row:
    return (
        item.tag, item.pushed_by, tables.date(item.pushed_at), item.commit, item.status, size(item.size),
        ", ".join(item.platforms) or "-",
    )  # fmt: skip
