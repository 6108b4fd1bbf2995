"""The settings of a server: one frozen Config, read once by an entry point.

An option of the command line wins over the environment (``POLLY_…``), that over the TOML file, that over the
default. docs/configuration.md lists them all, and a test compares it with this file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from polly_dockers.errors import BadRequest
from polly_dockers.system import addresses, ownership

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from polly_dockers.system.addresses import Network


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting; the comment behind each is its documentation."""

    data: Path = Path("data")
    """Folder of the database and the blobs."""
    listen: str = "127.0.0.1:5000"
    """HOST:PORT to listen on; [::]:PORT for IPv6."""
    public_url: str = ""
    """How people reach the server, https://HOST[:PORT]; decides the host in every path that is printed."""
    tls_cert: Path | None = None
    """PEM file of the certificate and its chain."""
    tls_key: Path | None = None
    """PEM file of the private key."""
    workers: int = 2
    """Worker processes."""
    metrics_listen: str = ""
    """HOST:PORT of /metrics; empty: /metrics on the main address, for loopback clients only."""
    public_repositories: str = "deny"
    """allow: admins may make repositories public; deny: nothing is reached without signing in."""
    blob_delete: str = "allow"
    """allow or deny DELETE of a blob over the registry protocol."""
    manifest_delete: str = "allow"
    """allow or deny DELETE of a tag or manifest over the registry protocol."""
    max_manifest_bytes: int = 8 << 20
    """A larger manifest is refused with 413; at least 4194304."""
    token_seconds: int = 600
    """How long a registry token is good, 60 to 3600."""
    lease_seconds: int = 86_400
    """How long a blob that no manifest names is kept for its push."""
    trash_days: int = 30
    """How long what was deleted can be restored."""
    audit_days: int = 0
    """How long entries of the audit log are kept; 0: for ever."""
    upload_seconds: int = 604_800
    """How long an upload that no request continues is kept."""
    grace_seconds: int = 900
    """How long the bytes of a blob stay after the last row that named it."""
    collect_seconds: int = 300
    """How long the server waits between two collections of garbage; 0: only polly-server gc collects."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks, apart by commas, whose X-Forwarded-For names the client; empty: none."""
    stalled_seconds: int = 60
    """How long a client may take nothing of its answer; then its connection is closed."""
    graceful_seconds: int = 60
    """How long requests in flight may take to end after SIGTERM."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_format: str = "json"
    """json, or text for people."""

    @property
    def tls(self) -> bool:
        """Whether the server itself speaks TLS."""
        return self.tls_cert is not None

    @property
    def url(self) -> str:
        """The public URL, or what follows from ``listen``.

        ``0.0.0.0`` and ``[::]`` are every address of the machine and none that Docker can use, so 127.0.0.1 stands for
        them: right on this machine, and only there.
        """
        place = f"127.0.0.1:{split_address(self.listen)[1]}" if self.everywhere else self.listen
        return self.public_url or f"{'https' if self.tls else 'http'}://{place}"

    @property
    def everywhere(self) -> bool:
        """Whether the server listens on every address of the machine."""
        address = addresses.parse(split_address(self.listen)[0])
        return address is not None and address.is_unspecified

    @property
    def registry(self) -> str:
        """The host that stands before every image path."""
        return urlsplit(self.url).netloc


_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "public_repositories": ("allow", "deny"),
    "blob_delete": ("allow", "deny"),
    "manifest_delete": ("allow", "deny"),
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("json", "text"),
}
LONGEST_TOKEN: Final = 3600
"""Seconds that a registry token may live."""
_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "workers": (1, 256),
    "max_manifest_bytes": (4 << 20, 64 << 20),
    "token_seconds": (60, LONGEST_TOKEN),
    "lease_seconds": (10, 30 * 86_400),
    "trash_days": (0, 3650),
    "audit_days": (0, 36_500),
    "upload_seconds": (60, 365 * 86_400),
    "grace_seconds": (0, 30 * 86_400),
    "collect_seconds": (0, 30 * 86_400),
    "stalled_seconds": (1, 3600),
    "graceful_seconds": (0, 3600),
}


RUNNING: Final = "running.toml"
"""In the data folder: how long the server that ran last keeps things, for the commands beside it."""
LASTING: Final = ("lease_seconds", "trash_days", "audit_days", "upload_seconds", "grace_seconds")


def note(config: Config) -> None:
    """Write RUNNING: what a person was told to have time for is not purged by a command that has other settings."""
    file = config.data / RUNNING
    fresh = file.with_suffix(".new")
    fresh.write_text("".join(f"{name} = {getattr(config, name)}\n" for name in LASTING), encoding="utf-8")
    fresh.replace(file)


def running(data: Path) -> dict[str, object]:
    """What the server that ran last on the data folder wrote with ``note``; nothing where none did.

    Raises BadRequest as ``load``. Root reads it as the owner of the folder, who could link it to another file.
    """
    file = data / RUNNING
    values = _toml(file, LASTING) if file.exists() else {}
    return {name: _checked(name, value, f"{file}: {name}") for name, value in values.items()}


def load(
    options: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
    beside: Mapping[str, object] | None = None,
) -> Config:
    """The settings from the three sources; raises BadRequest that names the setting and where it was read.

    ``options`` holds what the command line gave, by field name, None for what it did not give. ``file`` is the
    TOML file; without it, ``POLLY_CONFIG`` names one. ``beside`` is what ``running`` gave: what none of the three sets
    is as there.
    """
    if file is None and environment.get("POLLY_CONFIG"):
        file = Path(environment["POLLY_CONFIG"])
    given: dict[str, Any] = dict(beside or {})
    for name, value in (_toml(file, [setting.name for setting in fields(Config)]) if file else {}).items():
        given[name] = _checked(name, value, f"{file}: {name}")
    for setting in fields(Config):
        variable = f"POLLY_{setting.name.upper()}"
        if environment.get(variable):
            given[setting.name] = _checked(setting.name, environment[variable], variable)
        option = options.get(setting.name)
        if option is not None:
            given[setting.name] = _checked(setting.name, option, "--" + setting.name.replace("_", "-"))
    config = Config(**given)
    if (config.tls_cert is None) != (config.tls_key is None):
        msg = "TLS takes both: give --tls-cert with the certificate and --tls-key with its private key."
        raise BadRequest(msg)
    return config


def data_of(environment: Mapping[str, str], file: Path | None = None) -> Path:
    """The data folder of the settings file, which ``POLLY_CONFIG`` names where ``file`` does not; else the default.

    For a command that was given no folder. Raises BadRequest as ``load``.
    """
    if file is None and environment.get("POLLY_CONFIG"):
        file = Path(environment["POLLY_CONFIG"])
    values = _toml(file, [setting.name for setting in fields(Config)]) if file else {}
    return _path(str(values["data"]).strip(), f"{file}: data") if "data" in values else Config().data


def _toml(file: Path, known: Sequence[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = ownership.explain(file, reading=True) if ownership.denied(error) else f"{error.strerror}."
        msg = f"The settings file {file} can't be read: {reason}"
        raise BadRequest(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"The settings file {file} is not valid TOML: {error}."
        raise BadRequest(msg) from error
    for name in values:
        if name not in known:
            msg = f"{file} sets {name!r}, which is not a setting; the settings are {', '.join(sorted(known))}."
            raise BadRequest(msg)
    return values


def _checked(name: str, value: object, where: str) -> object:
    """The value as the field's type; raises BadRequest."""
    text = str(value).strip()
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            msg = f"{where} is {text!r}: choose {' or '.join(_CHOICES[name])}."
            raise BadRequest(msg)
        return text
    if name in _BOUNDS:
        low, high = _BOUNDS[name]
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            msg = f"{where} is {text!r}: give a whole number from {low} to {high}."
            raise BadRequest(msg)
        return number
    parser = _PARSERS.get(name)
    return parser(text, where) if parser is not None else text


def _path(text: str, where: str) -> Path:
    if not text:
        msg = f"{where} is empty: give a path."
        raise BadRequest(msg)
    return Path(text)


def split_address(text: str, where: str = "the address") -> tuple[str, int]:
    """HOST and PORT of ``HOST:PORT``; raises BadRequest."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:  # noqa: PLR2004
        msg = f"{where} is {text!r}: give HOST:PORT, such as 127.0.0.1:5000 or 0.0.0.0:443."
        raise BadRequest(msg)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address(text: str, where: str) -> str:
    if text:
        split_address(text, where)
    return text


def _url(text: str, where: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        msg = f"{where} is {text!r}: give https://HOST or https://HOST:PORT, with nothing behind it."
        raise BadRequest(msg)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _networks(text: str, where: str) -> tuple[Network, ...]:
    try:
        return tuple(addresses.network(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        msg = f"{where} is {text!r}: {error}. Give addresses or networks, such as 127.0.0.1,10.0.0.0/8."
        raise BadRequest(msg) from error


_PARSERS: Final[dict[str, Callable[[str, str], object]]] = {
    "data": _path,
    "tls_cert": _path,
    "tls_key": _path,
    "listen": _address,
    "metrics_listen": _address,
    "public_url": _url,
    "trusted_proxies": _networks,
}
