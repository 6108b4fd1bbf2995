"""Docker's ``config.json``: the one entry that makes Docker ask ``docker-credential-polly``.

Docker takes the helper of ``credHelpers`` before everything else (docker/cli, cli/config/configfile/file.go,
``getConfiguredCredentialStore``), so a login that lies in ``auths`` for the same host is left as it is: it counts
again after ``--undo``. podman, skopeo and buildah read the same file when REGISTRY_AUTH_FILE is not set and no
``auth.json`` of their own knows the host (containers/image, pkg/docker/config/config.go, ``getAuthFilePaths``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polly_dockers.cli import credentials, files, profiles, prompts, server_url, session, terminal
from polly_dockers.cli.client import Client
from polly_dockers.cli.errors import CommandError, DeclinedError, UnreachableError

if TYPE_CHECKING:
    from polly_dockers.cli.command import Call
    from polly_dockers.cli.session import Session

HELPER = "polly"


def configure(call: Call, *, undo: bool) -> None:
    """Set the entry for the registry of the session, or take it out.

    Raises CommandError where the file is not what Docker writes; it is left as it is then. DeclinedError as
    ``confirm_host``.
    """
    where = path()
    if undo:
        _undo(call, where)
        return
    host = call.session.registry
    confirm_host(call, "Docker will ask polly for the password there, before any other login of yours")
    dropped = _drop_revoked(call.session)
    changed = change(where, host, undo=False)
    call.remember("polly dockers configure")
    terminal.success(f"Docker asks polly for {host} from now on ({where}{'' if changed else ', as before'})")
    if dropped:
        terminal.say("The token that Docker was handed before was revoked; it gets a new one.")
    terminal.say("podman, skopeo and buildah read the same file. `polly dockers configure --undo` takes it out again.")
    _warn(where, host)


def confirm_host(call: Call, what: str) -> None:
    """Ask a person, or warn where nobody can be asked, before Docker's login changes at another host than the server.

    Where its images are is what a server says, and it may name somebody else's registry. Raises DeclinedError.
    """
    server, host = call.session.server, call.session.registry
    if profiles.same(server_url.host(server), host):
        return
    told = f"{server} says that its images are at {host}, which is another host. {what}."
    if not call.may_ask():
        terminal.say(f"Warning: {told}")
        return
    terminal.say(told)
    call.asked = True
    if not prompts.yes(f"Is {host} this server's?"):
        msg = "Nothing was changed."
        raise DeclinedError(msg)


def _drop_revoked(current: Session) -> bool:
    """Drop the token that is kept for Docker where it is not good any more; return whether that was so.

    Raises CommandError where the sign-in itself is not good any more. Where the server does not answer, the token is
    dropped as well: the next one is a new one.
    """
    try:
        good = {each.id for each in current.client.tokens()}
    except UnreachableError:
        credentials.forget(current.server, current.token)
        return False
    return credentials.forget_revoked(current.server, current.token, good)


def _undo(call: Call, where: Path) -> None:
    """Take out the entries of the server that is meant; of every host where none is meant and nobody is signed in."""
    hosts = _hosts(call)
    changed = [change(where, host, undo=True) for host in hosts or [""]]
    call.remember("polly dockers configure", undo=True)
    of_which = f" for {' and '.join(hosts)}" if hosts else ""
    terminal.success(f"{where} {'no longer names' if any(changed) else 'did not name'} polly{of_which}")


def _hosts(call: Call) -> list[str]:
    """Return the hosts of images of the server that is meant, also after signing out; none for all.

    A server that is named by its address need not answer. Raises CommandError where it is not clear which is meant.
    """
    wanted = session.meant(call.profile, call.server)
    known = {} if wanted.token else profiles.load().by_name
    if not (wanted.profile or wanted.server or wanted.token or known):
        return []
    if wanted.profile or not wanted.server:
        return [call.session.registry]
    found = {each.registry for each in known.values() if profiles.same(each.server, wanted.server)}
    if not found:
        with contextlib.suppress(CommandError):
            found = {Client(wanted.server).info().registry}
    return sorted(found | {server_url.host(wanted.server)})


def path() -> Path:
    """Return where Docker's configuration is: ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``.

    Raises CommandError where there is no home folder.
    """
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else files.home("DOCKER_CONFIG") / ".docker") / "config.json"


def change(where: Path, host: str, *, undo: bool) -> bool:
    """Set ``credHelpers[host]``, or remove it where it is ours (of every host for ""); return whether that changed it.

    ``auths`` is there beside it, since some clients expect it. Everything else stays: keys, their order, mode, owner, a
    link. Several processes take turns. Raises CommandError.
    """
    try:
        if not undo:
            files.make_private_folder(Path(os.path.realpath(where)).parent, tighten=False)
        with files.locked(where):
            text = _read(where)
            document = _parsed(where, text)
            if not _changed(document, host, undo=undo):
                return False
            indent = re.search(r"\n([ \t]+)", text)
            files.replace(where, _written(document, indent[1] if indent else "\t"), keep_mode=True)
    except OSError as error:
        msg = (
            f"{where} can't be changed: {error.strerror}. Make it writable, or name another folder: "
            "DOCKER_CONFIG=/path/to/folder"
        )
        raise CommandError(msg) from error
    return True


def _changed(document: dict[str, Any], host: str, *, undo: bool) -> bool:
    """Make the change in the document; return whether there was one to make."""
    helpers = document.get("credHelpers") or {}
    hosts = profiles.aliases(host)
    ours = [each for each, helper in helpers.items() if helper == HELPER and (not host or each in hosts)]
    if undo:
        if not ours:
            return False
        for each in ours:
            del helpers[each]
        if not helpers:
            del document["credHelpers"]
        return True
    if set(ours) == set(hosts) and document.get("auths") is not None:
        return False
    if document.get("auths") is None:
        document["auths"] = {}
    document["credHelpers"] = helpers | dict.fromkeys(hosts, HELPER)
    return True


def _read(where: Path) -> str:
    """Return the text; of a file that is not there, none."""
    try:
        return where.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        msg = f"{where}, line {line}: not UTF-8. It is left as it is; mend it and try again."
        raise CommandError(msg) from error


def _parsed(where: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text) if text.strip() else {}
    except json.JSONDecodeError as error:
        msg = (
            f"{where}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}). It is left as it is; mend it "
            "and try again."
        )
        raise CommandError(msg) from error
    except (RecursionError, ValueError) as error:  # nested too deep, a number of too many digits
        msg = f"{where}: JSON that is nested too deep, or has a number that is too long. It is left as it is."
        raise CommandError(msg) from error
    if not isinstance(document, dict):
        msg = f"{where}, line 1: not a JSON object. It is left as it is; mend it and try again."
        raise CommandError(msg)
    for key in ("credHelpers", "auths"):
        if not isinstance(document.get(key), dict | type(None)):
            line = text[: text.find(f'"{key}"')].count("\n") + 1
            msg = f'{where}, line {line}: "{key}" is not a JSON object. It is left as it is; mend it and try again.'
            raise CommandError(msg)
    return document


def _written(document: dict[str, Any], indent: str) -> str:
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # halves of characters, which JSON may spell and UTF-8 may not
        return json.dumps(document, indent=indent)
    return text


def _warn(where: Path, host: str) -> None:
    """Say what would keep clients from asking the helper."""
    if not shutil.which("docker-credential-polly"):
        folder = os.path.dirname(os.path.abspath(sys.argv[0]))
        terminal.say(
            "Warning: Docker looks for docker-credential-polly on the PATH, and it is not there. Add its folder: "
            f'export PATH="$PATH:{folder}"'
        )
    if any(_login(where, each) for each in profiles.aliases(host)):
        terminal.say(f"An older login for {host} stays in {where}; to remove it: docker logout {host}")
    override = os.environ.get("REGISTRY_AUTH_FILE")
    if override:
        terminal.say(f"Warning: podman, skopeo and buildah read REGISTRY_AUTH_FILE={override} alone.")
    for each in _auth_files():
        if _login(each, host):
            terminal.say(
                f"Warning: podman, skopeo and buildah find an older login in {each} first; "
                f"to remove it: podman logout {host}"
            )


def _login(file: Path, host: str) -> bool:
    """Tell whether the file holds a login for the host; Docker leaves an empty one where a helper has it."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("auths", {}).get(host))
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _auth_files() -> list[Path]:
    """Return what podman, skopeo and buildah read before Docker's file."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.getuid() if hasattr(os, "getuid") else 0
    folders = [Path(runtime) / "containers" if os.path.isabs(runtime) else Path(f"/run/containers/{uid}")]
    with contextlib.suppress(CommandError):
        folders.append(files.xdg_folder("XDG_CONFIG_HOME", ".config") / "containers")
    return [each / "auth.json" for each in folders]
