"""The settings of a server. Each one is declared once, as a field of Config.

From that entry follow the option of ``polly-server run``, the variable ``POLLY_…``, the key of the TOML file, the check
of its value, and its row in docs/configuration.md (``scripts/settings-table`` writes it). An option wins over the
environment variable, that over the TOML file, that over the default.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from polly_dockers.errors import BadRequest
from polly_dockers.system import addresses, ownership, regular
from polly_dockers.system.durations import SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from polly_dockers.system.addresses import Network


# --- what a value may be ---------------------------------------------------------------------------------------
# Each parser takes the text and where it was read, and returns the value or raises BadRequest.


def _path(text: str, where: str) -> Path:
    if not text:
        msg = f"{where} is empty: give a path."
        raise BadRequest(msg)
    return Path(text)


def split_address(text: str, where: str = "the address") -> tuple[str, int]:
    """HOST and PORT of ``HOST:PORT``, without the brackets of an IPv6 address; raises BadRequest."""
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
        msg = f"{where} is {text!r}: give https://HOST or https://HOST:PORT, with nothing after it."
        raise BadRequest(msg)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _networks(text: str, where: str) -> tuple[Network, ...]:
    try:
        return tuple(addresses.network(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        msg = f"{where} is {text!r}: {error}. Give addresses or networks, such as 127.0.0.1,10.0.0.0/8."
        raise BadRequest(msg) from error


@dataclass(frozen=True, slots=True)
class Setting:
    """What a setting takes, and what its help and docs/configuration.md say."""

    doc: str
    """What it does. The first sentence is the help of the option."""
    metavar: str
    """What stands for the value in help and documents."""
    default: object
    parser: Callable[[str, str], object] | None = None
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int] | None = None
    """Lowest and highest number."""
    promised: bool = False
    """Whether the server promised it to people. Then a command beside the server uses the server's value, not
    its own."""

    @property
    def default_text(self) -> str:
        """The default as it is written; empty where there is none."""
        return "" if self.default in {None, ()} else str(self.default)

    @property
    def help(self) -> str:
        """The help of its option: the first sentence, and the default."""
        first = self.doc.partition(". ")[0].removesuffix(".").replace("`", "")
        return f"{first}. Default: {self.default_text}." if self.default_text else f"{first}."

    def parse(self, value: object, where: str) -> object:
        """The value of an option, a variable or a line of TOML; raises BadRequest that names ``where`` it was read."""
        text = str(value).strip()
        if self.choices and text not in self.choices:
            msg = f"{where} is {text!r}: choose {' or '.join(self.choices)}."
            raise BadRequest(msg)
        if self.bounds is not None:
            low, high = self.bounds
            try:
                number = int(text)
            except ValueError:
                number = low - 1
            if not low <= number <= high:
                msg = f"{where} is {text!r}: give a whole number from {low} to {high}."
                raise BadRequest(msg)
            return number
        return text if self.parser is None else self.parser(text, where)


def _setting(default: object, metavar: str, parser: Callable[[str, str], object], doc: str) -> Any:  # noqa: ANN401 - as field
    return field(default=default, metadata={"setting": Setting(doc, metavar, default, parser)})


def _choice(default: str, choices: str, doc: str, metavar: str = "") -> Any:  # noqa: ANN401
    setting = Setting(doc, metavar or choices, default, choices=tuple(choices.split("|")))
    return field(default=default, metadata={"setting": setting})


def _number(default: int, low: int, high: int, doc: str, *, promised: bool = False) -> Any:  # noqa: ANN401
    setting = Setting(doc, "N", default, bounds=(low, high), promised=promised)
    return field(default=default, metadata={"setting": setting})


# --- the settings ----------------------------------------------------------------------------------------------

MAX_TOKEN_SECONDS: Final = 3600
"""Seconds that a registry token may be valid."""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one server, checked."""

    data: Path = _setting(
        Path("data"),
        "DIR",
        _path,
        "Folder of the database and the blobs. Every `polly-server` command takes it from `--data`, or else "
        "from `POLLY_DATA`, or else from the settings file.",
    )
    listen: str = _setting(
        "127.0.0.1:5000",
        "HOST:PORT",
        _address,
        "Address to listen on. `0.0.0.0:5000` is every IPv4 address of the machine; `[::]:5000` is every IPv6 and IPv4 "
        "address.",
    )
    public_url: str = _setting(
        "",
        "URL",
        _url,
        "How people reach the server, such as https://registry.acme.example. It is the host in every path and command "
        "that is printed, and the address where clients fetch tokens. Set it if people use another name than `listen`, "
        "above all behind a proxy. Without it, the address of `listen` is used, with `127.0.0.1` if that is every "
        "address.",
    )
    tls_cert: Path | None = _setting(
        None,
        "FILE",
        _path,
        "PEM file of the certificate and its chain. Give `tls_cert` and `tls_key`, or neither. The server speaks TLS "
        "1.2 and 1.3.",
    )
    tls_key: Path | None = _setting(None, "FILE", _path, "PEM file of the private key. It must have no passphrase.")
    workers: int = _number(2, 1, 256, "Worker processes. One for each core is a good choice.")
    metrics_listen: str = _setting(
        "",
        "HOST:PORT",
        _address,
        "Separate address for `/metrics`, without TLS. Without it, `/metrics` is on the main address, only for clients "
        "on this machine. If `public_url` or `trusted_proxies` is set, it is not on the main address.",
    )
    public_repositories: str = _choice(
        "deny",
        "allow|deny",
        "Whether admins may make repositories public. With `allow`, anyone who reaches the server can pull from a "
        "public repository. With `deny`, every pull needs a sign-in, even if the repository was made public earlier.",
    )
    blob_delete: str = _choice(
        "allow",
        "allow|deny",
        "DELETE of blobs over the registry protocol. With `deny`, the server answers 405.",
    )
    manifest_delete: str = _choice(
        "allow",
        "allow|deny",
        "DELETE of tags and manifests over the registry protocol. With `deny`, the server answers 405. Admins can "
        "still use `polly dockers delete`.",
    )
    max_manifest_bytes: int = _number(8 << 20, 4 << 20, 64 << 20, "Larger manifests are refused. The answer is 413.")
    token_seconds: int = _number(
        600, 60, MAX_TOKEN_SECONDS, "How long a registry token is valid. Permissions are read on every request anyway."
    )
    lease_seconds: int = _number(
        SECONDS_PER_DAY,
        10,
        30 * SECONDS_PER_DAY,
        "How long an unused blob stays known to the registry. A push has that long from its first blob to its "
        "manifest.",
        promised=True,
    )
    trash_days: int = _number(
        30,
        0,
        3650,
        "How long deleted things can be restored. A new value also applies to what is already in the trash.",
        promised=True,
    )
    audit_days: int = _number(
        0,
        0,
        36_500,
        "How long entries of the audit log are kept; 0: for ever. An entry takes about 300 bytes. Older ones are "
        "dropped once a day, and the chain of hashes continues after them.",
        promised=True,
    )
    upload_seconds: int = _number(
        7 * SECONDS_PER_DAY,
        60,
        365 * SECONDS_PER_DAY,
        "How long an upload is kept that nobody continues. If a user has over about 1,000, the oldest end earlier.",
        promised=True,
    )
    grace_seconds: int = _number(
        900,
        0,
        30 * SECONDS_PER_DAY,
        "How much longer the file of an unused blob stays on the disk, after `lease_seconds`. It must be longer than a "
        "pull takes from finding a blob to opening it.",
        promised=True,
    )
    collect_seconds: int = _number(
        300,
        0,
        30 * SECONDS_PER_DAY,
        "Time between two collections of garbage; 0: none. With 0, only `polly-server gc` collects.",
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        (),
        "LIST",
        _networks,
        "Addresses or networks whose X-Forwarded-For names the client, separated by commas. The client's address is "
        "used for throttling, the log and the audit log. The header is read from the right, and the first address that "
        "is not a trusted proxy is the client. Entries may have ports and brackets. Write IPv4 addresses as "
        "IPv4 (`10.0.0.1`), even if the server listens on `[::]`.",
    )
    stalled_seconds: int = _number(
        60,
        1,
        3600,
        "How long a client may stop reading before its connection is closed. A connection that reads less than 64 KiB "
        "of a large answer in that time is closed too.",
    )
    graceful_seconds: int = _number(60, 0, 3600, "How long requests may take to finish after SIGTERM.")
    log_level: str = _choice(
        "info",
        "debug|info|warning|error",
        "Least severe level that is logged: debug, info, warning or error. With `info`, each request is logged.",
        "LEVEL",
    )
    log_format: str = _choice("json", "json|text", "Form of the log. `json` is for programs, `text` for people.")

    @property
    def tls(self) -> bool:
        """Whether the server itself speaks TLS."""
        return self.tls_cert is not None

    @property
    def url(self) -> str:
        """The public URL, or the one that follows from ``listen``.

        ``0.0.0.0`` and ``[::]`` mean every address of the machine, and Docker can't connect to them. Then the URL has
        127.0.0.1, which works on this machine only.
        """
        host = f"127.0.0.1:{split_address(self.listen)[1]}" if self.everywhere else self.listen
        return self.public_url or f"{'https' if self.tls else 'http'}://{host}"

    @property
    def everywhere(self) -> bool:
        """Whether the server listens on every address of the machine."""
        address = addresses.parse(split_address(self.listen)[0])
        return address is not None and address.is_unspecified

    @property
    def registry(self) -> str:
        """The host that stands before every image path."""
        return urlsplit(self.url).netloc


SETTINGS: Final[dict[str, Setting]] = {each.name: each.metadata["setting"] for each in fields(Config)}
"""Every setting by its name."""


# --- where settings are read from ------------------------------------------------------------------------------

RUNNING: Final = "running.toml"
"""File in the data folder: how long the server that ran last keeps things, for commands that use the folder."""
_PROMISED: Final = [name for name, setting in SETTINGS.items() if setting.promised]


def write_running(config: Config) -> None:
    """Write RUNNING, so that no command with other settings deletes what the server promised to keep."""
    file = config.data / RUNNING
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # it may be a FIFO, or a link to another file
    fresh.write_text("".join(f"{name} = {getattr(config, name)}\n" for name in _PROMISED), encoding="utf-8")
    fresh.replace(file)


def read_running(data: Path) -> dict[str, object]:
    """The settings that ``write_running`` wrote to the data folder; empty where no server has run.

    Raises BadRequest as ``load``. Root reads it as the owner of the folder, who could link it to another file.
    """
    file = data / RUNNING
    return _parsed(file, _PROMISED, regular.read) if file.exists() else {}


def load(
    options: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
    running: Mapping[str, object] | None = None,
) -> Config:
    """The settings from options, environment and file; raises BadRequest that names the setting and where it was read.

    ``options`` are those of the command line by setting; None is an option that was not given. ``file`` is the TOML
    file; without it, ``POLLY_CONFIG`` names one. ``running`` is what ``read_running`` returned, for settings that none
    of the three has.
    """
    given: dict[str, Any] = dict(running or {})
    if file := _settings_file(environment, file):
        given |= _parsed(file, list(SETTINGS))
    for name, setting in SETTINGS.items():
        variable = f"POLLY_{name.upper()}"
        if environment.get(variable):
            given[name] = setting.parse(environment[variable], variable)
        if options.get(name) is not None:
            given[name] = setting.parse(options[name], "--" + name.replace("_", "-"))
    config = Config(**given)
    if (config.tls_cert is None) != (config.tls_key is None):
        msg = "TLS takes both: give --tls-cert with the certificate and --tls-key with its private key."
        raise BadRequest(msg)
    return config


def find_data_folder(environment: Mapping[str, str], file: Path | None = None) -> Path:
    """The data folder of a command that was given none: that of the settings file, else the default.

    ``POLLY_CONFIG`` names the file where ``file`` does not. Raises BadRequest as ``load``.
    """
    file = _settings_file(environment, file)
    values = _toml(file, list(SETTINGS)) if file else {}
    return _path(str(values["data"]).strip(), f"{file}: data") if "data" in values else Config().data


_OF_COMMANDS: Final = ("CA_FILE", "CONFIG", "DEBUG", "DOCKER", "EMAIL", "ORG", "PASSWORD", "PROFILE", "SERVER", "TOKEN")
"""Variables of the commands, without ``POLLY_``; docs/commands.md describes them."""
_OF_KUBERNETES: Final = re.compile(r"POLLY_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)")
"""Variables that Kubernetes sets in a pod for a Service called polly or polly-…"""


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that begin with ``POLLY_`` and that nothing reads, each with the one that may be meant."""
    known = [*map(str.upper, SETTINGS), *_OF_COMMANDS]
    unknown = [
        name.removeprefix("POLLY_")
        for name, value in sorted(environment.items())
        if name.startswith("POLLY_")
        and name.removeprefix("POLLY_") not in known
        and not _OF_KUBERNETES.fullmatch(name)
        and not (name.endswith("_PORT") and "://" in value)
    ]
    nearest = {name: _nearest(name, known) for name in unknown}
    return [f"POLLY_{name}{near and f' (did you mean POLLY_{near}?)'}" for name, near in nearest.items()]


def _nearest(name: str, known: Sequence[str]) -> str:
    return "".join(difflib.get_close_matches(name, known, n=1, cutoff=0.75))


def _settings_file(environment: Mapping[str, str], file: Path | None) -> Path | None:
    named = environment.get("POLLY_CONFIG")
    return file or (Path(named) if named else None)


def _parsed(file: Path, known: Sequence[str], read: Callable[[Path], bytes] = Path.read_bytes) -> dict[str, object]:
    return {name: SETTINGS[name].parse(value, f"{file}: {name}") for name, value in _toml(file, known, read).items()}


def _toml(file: Path, known: Sequence[str], read: Callable[[Path], bytes] = Path.read_bytes) -> dict[str, Any]:
    """The lines of a TOML file; raises BadRequest for one that can't be read, and for a name that is not known."""
    try:
        values = tomllib.loads(read(file).decode())
    except OSError as error:
        reason = ownership.explain(file, reading=True) if ownership.denied(error) else f"{error.strerror}."
        msg = f"The settings file {file} can't be read: {reason}"
        raise BadRequest(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"The settings file {file} is not valid TOML: {error}."
        raise BadRequest(msg) from error
    for name in values:
        if name not in known:
            near = _nearest(name, known)
            meant = f"did you mean {near}?" if near else f"the settings are {', '.join(sorted(known))}."
            msg = f"{file} sets {name!r}, which is not a setting; {meant}"
            raise BadRequest(msg)
    return values
