"""``polly profiles``: options and help."""

from __future__ import annotations

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Group
from polly_dockers.cli.options import Output

group = Group(
    "polly profiles",
    "List the servers that you are signed in to, and choose which one the commands use.",
    "polly profiles list\npolly profiles use registry.acme.example",
    "What would you like to do with the profiles?",
)
group.ask_if_alone()


@group.command("list", "polly profiles list\npolly profiles list --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List your profiles: the servers that you are signed in to, each under a name.

    The commands use the current one unless --profile, --server or the environment names another.
    This sends no request to any server.
    """
    from polly_dockers.cli.actions import profiles

    profiles.list_(call, output)


@group.command("use", "polly profiles use registry.acme.example", argument="profile")
def use(call: Call) -> None:
    """Choose the current profile, which the commands use by default."""
    from polly_dockers.cli.actions import profiles

    profiles.use(call)


@group.command("remove", "polly profiles remove registry.acme.example", argument="profile")
def remove(call: Call) -> None:
    """Sign out of a profile, and delete it.

    polly logout does the same to the current profile. If the server can't be reached, the profile is deleted all the
    same, and the exit code is 1.
    """
    from polly_dockers.cli.actions import profiles

    profiles.remove(call)
