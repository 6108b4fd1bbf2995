"""Docker repositories and their commits: what ``polly dockers create, list, commit-list`` and ``update`` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from polly_dockers import api_types
from polly_dockers.cli import names, prompts, tables, terminal
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.tables import Column
from polly_dockers.formatting import size
from polly_dockers.oci import reference

if TYPE_CHECKING:
    from typing import Literal

    from polly_dockers.cli.command import Call

_SHORT = 20
_REPOSITORY = (
    Column("docker repository", own_line=True),
    Column("created by"),
    Column("created at"),
    Column("docker access"),
    Column("description", longest=40),
    Column("tags", right=True),
    Column("commits", optional=True, right=True),
    Column("size", right=True),
    Column("last push"),
)
_COMMIT = (
    Column("tag"),
    Column("pushed by"),
    Column("pushed at"),
    Column("commit_hash", own_line=True),
    Column("tag status", colours=(("active", tables.GREEN), ("inactive", tables.YELLOW))),
    Column("size", right=True),
    Column("platforms", optional=True, longest=32),
)
_TAG = (
    Column("tag"),
    Column("commit_hash", own_line=True),
    Column("size", right=True),
    Column("platforms", optional=True, longest=32),
    Column("pushed at"),
    Column("pushed by"),
)


class Choice:
    """How many are listed, and from which end."""

    def __init__(self, call: Call, latest: int | None, oldest: int | None, *, every: bool) -> None:
        """Take --latest, --oldest and --all. Raises UsageError when more than one is given."""
        given = [name for name, value in (("--all", every), ("--latest", latest), ("--oldest", oldest)) if value]
        if len(given) > 1:
            msg = f"{' and '.join(given)} can't be together: choose one."
            raise UsageError(msg)
        self.every, self.latest, self.oldest = every, latest, oldest
        self.given = bool(given)
        self._call = call

    def ask(self, question: str) -> None:
        """Ask for it, where the command was chosen from a menu."""
        if self.given or not self._call.guided:
            return
        which = prompts.choose(question, ["all", "latest", "oldest"])
        self.given, self.every = True, which == "all"
        if not self.every:
            count = int(prompts.text("How many?", suggested="10", check=_wrong_number))
            self.latest, self.oldest = (count, None) if which == "latest" else (None, count)

    @property
    def count(self) -> int | None:
        """How many: None for all."""
        return None if self.every else self.latest or self.oldest or _SHORT

    @property
    def order(self) -> Literal["newest", "oldest"]:
        """From which end."""
        return "oldest" if self.oldest else "newest"

    def options(self) -> dict[str, str | bool | None]:
        """Return it as options for the command in one line."""
        return {
            "all": self.every,
            "latest": str(self.latest) if self.latest else None,
            "oldest": str(self.oldest) if self.oldest else None,
        }

    def tell(self, shown: int, total: int, what: str, output: str) -> None:
        """Say how many there are, where that is not plain to see; to a program, only what it did not ask for.

        ``what`` is counted in the plural.
        """
        one = what.replace("repositories", "repository").removesuffix("s")
        cut = shown < total
        if (cut and not self.given) if output == "json" else (cut or not self.given):
            more = "; --all lists all of them" if cut else ""
            terminal.say(f"{shown} of {total} {one if total == 1 else what}{more}.")


def create(call: Call, name: str | None, description: str | None, *, public: bool | None, output: str) -> None:
    """Make a docker repository, and print it. Raises UsageError for what is missing or can't be."""
    session = call.session
    asking = name is None or description is None or call.guided
    if asking and call.may_ask():
        session.require("writer")
    if name is None:
        before = f"{session.registry}/{session.organisation}/" if call.may_ask() else ""
        question = "Enter the name of the docker repository?"
        name = call.need("--name", lambda: prompts.text(question, before=before, check=lambda text: _wrong(call, text)))
    given, (organisation, name) = name, session.repository(name)
    if description is None:
        question = "Enter the description of the docker repository?"
        description = call.need("--description", lambda: prompts.text(question))
    _check_description(description)
    if public is None and asking and call.may_ask() and session.may_publish(organisation):
        public = prompts.yes("Should the docker repository be public?")
    body = api_types.RepositoryCreate(name, description, "public" if public else "private")
    item = session.client.create_repository(organisation, body)
    call.remember(
        "polly dockers create", (organisation, name), description=description, public=public, private=public is False
    )
    terminal.success("docker repository generation")
    if "/" in name and given.strip() == name:
        terminal.say(f"It is in the organisation {organisation}.")
    if output == "json":
        tables.document(item)
    else:
        tables.show([Column("docker name", own_line=True), Column("description")], [(item.path, item.description)])


def list_(call: Call, choice: Choice, search: str | None, output: str) -> None:
    """Print docker repositories: by the last push without a choice, else by their creation."""
    session = call.session
    organisation = session.organisation
    choice.ask("How many docker repositories do you want to list?")
    query = {"order": choice.order, "sort": "created" if choice.given else "pushed"}
    page = session.client.repositories(organisation, choice.count, **query, **({"search": search} if search else {}))
    call.remember("polly dockers list", **choice.options(), search=search)
    if output == "json":
        tables.document(page.items)
    elif page.items:
        tables.show(_REPOSITORY, [_repository_row(each) for each in page.items])
    elif not search:
        way = "To make one: polly dockers create --name NAME --description TEXT"
        if not session.may_create(organisation):
            way = "Writers and admins make them."
        terminal.say(f"{organisation} has no docker repository yet. {way}")
        return
    choice.tell(len(page.items), page.total, "docker repositories", output)


def commit_list(call: Call, name: str | None, tag: str | None, choice: Choice, output: str) -> None:
    """Print the commits of a docker repository, and how to pull them."""
    session = call.session
    organisation, name = session.repository(name if name is not None else ask_name(call), "--tag")
    choice.ask("How many commits do you want to list?")
    query = {"order": choice.order} | ({"tag": tag} if tag is not None else {})
    page = session.client.commits(organisation, name, choice.count, **query)
    call.remember("polly dockers commit-list", (organisation, name), tag=tag, **choice.options())
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
        terminal.say(f"{path} has no commit yet. To make one: docker push {path}:TAG")
        return
    choice.tell(len(page.items), page.total, "commits", output)


def tags(call: Call, name: str | None, choice: Choice, output: str) -> None:
    """Print the tags of a docker repository, each with its active commit."""
    session = call.session
    organisation, name = session.repository(name if name is not None else ask_name(call))
    choice.ask("How many tags do you want to list?")
    page = session.client.tags(organisation, name, choice.count, order=choice.order)
    call.remember("polly dockers tags", (organisation, name), **choice.options())
    path = terminal.clean(page.repository)
    if output == "json":
        tables.document([_with_alias(each) for each in page.items])
    elif page.items:
        terminal.say(f"Tags of the docker repository {path}")
        tables.show(_TAG, [_tag_row(each) for each in page.items])
    else:
        terminal.say(f"{path} has no tag. To make one: docker push {path}:TAG")
        return
    choice.tell(len(page.items), page.total, "tags", output)


def update(
    call: Call, name: str | None, description: str | None, sparse: str | None, *, public: bool | None, output: str
) -> None:
    """Change what is given of a docker repository, and print it. Raises UsageError where nothing is given."""
    session = call.session
    if name is None:
        name = ask_name(call, "writer")
    organisation, name = session.repository(name)
    if description is None and public is None and sparse is None:
        if not call.may_ask():
            msg = "What should change? --description, --public, --private or --sparse-indexes is missing."
            raise UsageError(msg)
        session.require("writer", organisation)
        description, public = _ask_changes(call, organisation, session.client.repository(organisation, name))
        if description is None and public is None:
            terminal.say("Nothing is changed.")
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
    if output == "json":
        tables.document(item)
    else:
        tables.show(_REPOSITORY, [_repository_row(item)])


def ask_name(call: Call, least: api_types.Role = "reader") -> str:
    """Return --name, asked for where it is missing and the person's role suffices."""

    def question() -> str:
        session = call.session
        session.require(least)
        known = [each.name for each in session.client.repositories(session.organisation, 1000, sort="pushed").items]
        before = f"{session.registry}/{session.organisation}/"

        def missing(answer: str) -> str | None:
            if answer in known:
                return None
            try:
                organisation, name = session.repository(answer)
                there = session.exists(organisation, name)
            except CommandError as error:
                return error.message
            return None if there else f"There is no docker repository {name} in {organisation}."

        answer = prompts.one_of("Enter the name of the docker repository?", known, before=before, check=missing)
        return f"{before}{answer}" if answer in known else answer

    return call.need("--name", question)


def _ask_changes(call: Call, organisation: str, item: api_types.RepositoryItem) -> tuple[str | None, bool | None]:
    """Ask what should change; None for what stays."""
    call.asked = True
    other = "private" if item.access == "public" else "public"
    path = terminal.clean(item.path)
    session = call.session
    may = session.may_publish(organisation) if other == "public" else session.may_change_access(organisation)
    public = (other == "public") if may and prompts.yes(f"{path} is {item.access}. Make it {other}?") else None
    before = terminal.clean(item.description)
    description = prompts.text("Enter the description of the docker repository?", default=before)
    return (None if description == before else description), public


def _wrong(call: Call, name: str) -> str | None:
    """Return what is wrong with a name, short enough for the line below a question."""
    plain = names.version(name)[0]
    right = plain if names.is_one(plain, call.session.registry) else reference.suggest_name(name) or "team/new_repo"
    try:
        names.split(name, call.session.registry)
    except UsageError:
        return f"No name of a docker repository; right is {right}"
    return None


def _wrong_number(text: str) -> str | None:
    return None if text.isascii() and text.isdigit() and int(text) else "A whole number from 1, please."


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
    """Return the item with its commit under ``commit_hash`` too, the name that older scripts read it by."""
    return {**msgspec.to_builtins(item), "commit_hash": item.commit}


def _commit_row(item: api_types.CommitItem) -> tables.Row:
    return (
        item.tag, item.pushed_by, tables.date(item.pushed_at), item.commit, item.status, size(item.size),
        ", ".join(item.platforms) or "-",
    )  # fmt: skip
