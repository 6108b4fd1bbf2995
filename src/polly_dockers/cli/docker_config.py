"""Docker's ``config.json``: the one entry that makes Docker ask ``docker-credential-polly``.

Docker uses the helper in ``credHelpers`` before everything else (docker/cli, cli/config/configfile/file.go,
``getConfiguredCredentialStore``). So a login in ``auths`` for the same host stays, and works again after ``--undo``.
podman, skopeo and buildah read the same file when REGISTRY_AUTH_FILE is not set and no ``auth.json`` of their own has
a login for the host (containers/image, pkg/docker/config/config.go, ``getAuthFilePaths``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from polly_dockers.cli import files, profiles
from polly_dockers.cli.errors import CommandError

HELPER = "polly"


def path() -> Path:
    """Return the path of Docker's configuration: ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``.

    Raises CommandError if there is no home folder.
    """
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else files.home("DOCKER_CONFIG") / ".docker") / "config.json"


def change(where: Path, host: str, *, undo: bool) -> bool:
    """Set ``credHelpers[host]``, or remove it if it names polly (for every host if ``host`` is empty).

    Returns whether the file changed. ``auths`` is added if it is missing, because some clients expect it. Everything
    else stays the same: other keys, their order, the file's mode and owner, a symbolic link. Several processes take
    turns. Raises CommandError.
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
    """Change the document in place; return whether it changed."""
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
    """Return the text of the file; empty if it is missing."""
    try:
        return where.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        msg = f"{where}, line {line}: not UTF-8. It was not changed. Correct it and try again."
        raise CommandError(msg) from error


def _parsed(where: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text) if text.strip() else {}
    except json.JSONDecodeError as error:
        msg = (
            f"{where}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}). It was not changed. "
            "Correct it and try again."
        )
        raise CommandError(msg) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of too many digits
        msg = f"{where}: the JSON is nested too deeply, or has a number that is too long. It was not changed."
        raise CommandError(msg) from error
    if not isinstance(document, dict):
        msg = f"{where}, line 1: not a JSON object. It was not changed. Correct it and try again."
        raise CommandError(msg)
    for key in ("credHelpers", "auths"):
        if not isinstance(document.get(key), dict | type(None)):
            line = text[: text.find(f'"{key}"')].count("\n") + 1
            msg = f'{where}, line {line}: "{key}" is not a JSON object. It was not changed. Correct it and try again.'
            raise CommandError(msg)
    return document


def _written(document: dict[str, Any], indent: str) -> str:
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates, which JSON can escape and UTF-8 cannot encode
        return json.dumps(document, indent=indent)
    return text


def has_login(file: Path, host: str) -> bool:
    """Return whether the file has a login for the host. Docker leaves an empty entry if a helper has the login."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("auths", {}).get(host))
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def auth_files() -> list[Path]:
    """Return the files that podman, skopeo and buildah read before Docker's file."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.getuid() if hasattr(os, "getuid") else 0
    folders = [Path(runtime) / "containers" if os.path.isabs(runtime) else Path(f"/run/containers/{uid}")]
    with contextlib.suppress(CommandError):
        folders.append(files.xdg_folder("XDG_CONFIG_HOME", ".config") / "containers")
    return [each / "auth.json" for each in folders]
