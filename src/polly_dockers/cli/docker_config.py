"""Docker's ``config.json``: the one entry that makes Docker ask ``docker-credential-polly``.

Docker takes the helper of ``credHelpers`` before everything else (docker/cli, cli/config/configfile/file.go,
``getConfiguredCredentialStore``), so a login that lies in ``auths`` for the same host is left as it is: it counts
again after ``--undo``. podman, skopeo and buildah read the same file when REGISTRY_AUTH_FILE is not set and no
``auth.json`` of their own knows the host (containers/image, pkg/docker/config/config.go, ``getAuthFilePaths``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polly_dockers.cli import files, terminal
from polly_dockers.cli.failures import CommandError, UsageError

if TYPE_CHECKING:
    from polly_dockers.cli.command import Call

HELPER = "polly"


def configure(call: Call, *, undo: bool) -> None:
    """Set the entry for the registry of the session, or take it out.

    Raises CommandError where the file is not what Docker writes; it is left as it is then.
    """
    where = path()
    host = _host(call, undo=undo)
    changed = change(where, host, undo=undo)
    call.remember("polly dockers configure", undo=undo)
    if undo:
        terminal.success(
            f"{where} no longer names polly{host and f' for {host}'}" if changed else f"{where} did not name polly"
        )
        return
    terminal.success(f"Docker asks polly for {host} from now on ({where}{'' if changed else ', as before'})")
    terminal.say("podman, skopeo and buildah read the same file. `polly dockers configure --undo` takes it out again.")
    _warn(host)


def _host(call: Call, *, undo: bool) -> str:
    """Return the registry of the session; to undo for somebody who has signed out, "" for all."""
    try:
        return call.session.registry
    except CommandError as error:
        if undo and not isinstance(error, UsageError):
            return ""
        raise


def path() -> Path:
    """Return where Docker's configuration is: ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def change(where: Path, host: str, *, undo: bool) -> bool:
    """Set ``credHelpers[host]``, or remove it where it is ours (of every host for ""); return whether that changed it.

    Everything else stays: keys, their order, mode, owner, a symbolic link. Raises CommandError.
    """
    target = where.resolve()
    try:
        text, mode, owner = _read(target)
        document = _parsed(where, text)
        helpers = document.get("credHelpers")
        helpers = {} if helpers is None else helpers
        ours = [each for each, helper in helpers.items() if helper == HELPER and host in {"", each}]
        if bool(ours) is not undo:
            return False
        for each in ours:
            del helpers[each]
        if not undo:
            helpers[host] = HELPER
        document["credHelpers"] = helpers
        if not helpers:
            del document["credHelpers"]
        indent = re.search(r"\n([ \t]+)", text)
        if owner is None:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(target, _written(document, indent[1] if indent else "\t"), mode)
        if owner and hasattr(os, "chown") and owner != (os.geteuid(), os.getegid()):
            os.chown(target, *owner)
    except OSError as error:
        msg = f"{where} can't be changed: {error.strerror}. DOCKER_CONFIG names another folder."
        raise CommandError(msg) from error
    return True


def _read(target: Path) -> tuple[str, int, tuple[int, int] | None]:
    """Return text, mode and owner; of a file that is not there, what Docker would make."""
    try:
        with target.open(encoding="utf-8", newline="") as file:
            status = os.fstat(file.fileno())
            return file.read(), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    except FileNotFoundError:
        return "", files.PRIVATE, None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        msg = f"{target}, line {line}: not UTF-8. It is left as it is; mend it and try again."
        raise CommandError(msg) from error


def _parsed(where: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text) if text.strip() else {}
    except json.JSONDecodeError as error:
        msg = (
            f"{where}, line {error.lineno}, column {error.colno}: no JSON ({error.msg}). It is left as it is; mend it "
            "and try again."
        )
        raise CommandError(msg) from error
    except (RecursionError, ValueError) as error:  # nested too deep, a number of too many digits
        msg = (
            f"{where}: no JSON that can be read here ({str(error)[:100]}). It is left as it is; mend it and try again."
        )
        raise CommandError(msg) from error
    if not isinstance(document, dict):
        msg = f"{where}, line 1: no JSON object. It is left as it is; mend it and try again."
        raise CommandError(msg)
    if not isinstance(document.get("credHelpers"), dict | type(None)):
        line = text[: text.find('"credHelpers"')].count("\n") + 1
        msg = f'{where}, line {line}: "credHelpers" is no JSON object. It is left as it is; mend it and try again.'
        raise CommandError(msg)
    return document


def _written(document: dict[str, Any], indent: str) -> str:
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # halves of characters, which JSON may spell and UTF-8 may not
        return json.dumps(document, indent=indent)
    return text


def _warn(host: str) -> None:
    """Say what would keep clients from asking the helper."""
    if not shutil.which("docker-credential-polly"):
        terminal.say("Warning: docker-credential-polly is not on the PATH, and Docker looks for it there.")
    override = os.environ.get("REGISTRY_AUTH_FILE")
    if override:
        terminal.say(f"Warning: podman, skopeo and buildah read REGISTRY_AUTH_FILE={override} alone.")
    for each in _auth_files():
        try:
            older = host in json.loads(each.read_text(encoding="utf-8")).get("auths", {})
        except (OSError, ValueError, AttributeError, TypeError):
            continue
        if older:
            terminal.say(
                f"Warning: podman, skopeo and buildah find an older login in {each} first; "
                f"to remove it: podman logout {host}"
            )


def _auth_files() -> list[Path]:
    """Return what podman, skopeo and buildah read before Docker's file."""
    runtime, config = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("XDG_CONFIG_HOME")
    uid = os.getuid() if hasattr(os, "getuid") else 0
    first = Path(runtime) / "containers" if runtime else Path(f"/run/containers/{uid}")
    second = (Path(config) if config else Path.home() / ".config") / "containers"
    return [first / "auth.json", second / "auth.json"]
