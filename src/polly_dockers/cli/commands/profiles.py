"""``polly profiles …``: the options and the help of the commands."""

from __future__ import annotations

from polly_dockers.cli.command import Call, Group, Output

group = Group(
    "polly profiles",
    "The servers that you are signed in to, each under a name.",
    "polly profiles list\npolly profiles use registry.acme.example",
    "What would you like to do with the profiles?",
)
group.alone()


@group.command("list", "polly profiles list\npolly profiles list --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List the profiles.

    The current one is meant where --profile, --server and the environment say nothing. No server is asked.
    """
    from polly_dockers.cli.actions import profiles

    profiles.list_(call, output)


@group.command("use", "polly profiles use registry.acme.example", argument="profile")
def use(call: Call) -> None:
    """Choose the profile that the commands use from now on."""
    from polly_dockers.cli.actions import profiles

    profiles.use(call)


@group.command("remove", "polly profiles remove registry.acme.example", argument="profile")
def remove(call: Call) -> None:
    """Sign out, and forget the profile.

    It is what polly logout does to the current one. Where the server can't be reached, the profile is forgotten all the
    same, and the exit code is 1.
    """
    from polly_dockers.cli.actions import profiles

    profiles.remove(call)
