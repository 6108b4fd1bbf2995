"""The settings: their sources, which of them wins, and the message for a wrong value."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from polly_dockers.config import SETTINGS, Config, load, split_address, unknown_variables
from polly_dockers.errors import BadRequest

OTHER = {
    "data": "/srv/x",
    "listen": "0.0.0.0:1",
    "public_url": "https://x.example",
    "tls_cert": "/c",
    "tls_key": "/k",
    "metrics_listen": "127.0.0.1:2",
    "trusted_proxies": "10.0.0.1",
}


def values_of(name: str) -> list[str]:
    """Three values of a setting that differ from its default and from one another."""
    setting = SETTINGS[name]
    if setting.choices:
        return ([choice for choice in setting.choices if choice != setting.default] * 3)[:3]
    if setting.bounds is not None:
        return [str(setting.bounds[0] + number) for number in (3, 4, 5)]
    return [OTHER[name], OTHER[name].replace("1", "3") + ("" if "1" in OTHER[name] else "2"), OTHER[name]]


@pytest.mark.parametrize("name", SETTINGS)
def test_which_source_wins(tmp_path: Path, name: str) -> None:
    """The option wins over the environment, that over the TOML file, and that over the default, for every setting."""
    option, variable, line = values_of(name)
    file = tmp_path / "polly.toml"
    rest = {"tls_cert": "tls_key = '/k'\n", "tls_key": "tls_cert = '/c'\n"}.get(name, "")
    file.write_text(f"{name} = {line if SETTINGS[name].bounds else repr(line)}\n{rest}")
    environment = {f"POLLY_{name.upper()}": variable}
    kind: Any = type(getattr(Config(), name)) if name not in {"tls_cert", "tls_key", "data"} else Path
    if name == "trusted_proxies":
        kind = lambda text: (ip_network(text),)  # noqa: E731 - beside the other kinds
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert getattr(load({}, {}, empty), name) == getattr(Config(), name)
    assert getattr(load({}, {}, file), name) == kind(line)
    assert getattr(load({}, environment, file), name) == kind(variable)
    assert getattr(load({name: option}, environment, file), name) == kind(option)
    assert getattr(load({}, {"POLLY_CONFIG": str(file)}), name) == kind(line)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("workers", "0"),
        ("workers", "many"),
        ("workers", "1.5"),
        ("workers", "257"),
        ("max_manifest_bytes", "4194303"),
        ("token_seconds", "59"),
        ("token_seconds", "3601"),
        ("lease_seconds", "1"),
        ("graceful_seconds", "-1"),
        ("public_repositories", "yes"),
        ("blob_delete", "Allow"),
        ("manifest_delete", "no"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("listen", "localhost"),
        ("listen", ":5000"),
        ("listen", "127.0.0.1:65536"),
        ("listen", "127.0.0.1:http"),
        ("metrics_listen", "x:-1"),
        ("trusted_proxies", "proxy.example"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("trusted_proxies", "10.0.0.1, ::1/129"),
        ("public_url", "registry.example"),
        ("public_url", "ftp://registry.example"),
        ("public_url", "https://"),
        ("public_url", "https://registry.example/path"),
        ("public_url", "https://registry.example?x=1"),
        ("public_url", "https://user:secret@registry.example"),
        ("public_url", "https://registry.example:99999"),
    ],
)
def test_a_wrong_value_names_where(tmp_path: Path, name: str, bad: str) -> None:
    """The message names the option, the variable, or the file and its key."""
    file = tmp_path / "polly.toml"
    file.write_text(f"{name} = {bad!r}\n")
    for options, environment, path, where in (
        ({name: bad}, {}, None, "--" + name.replace("_", "-")),
        ({}, {f"POLLY_{name.upper()}": bad}, None, f"POLLY_{name.upper()}"),
        ({}, {}, file, f"{file}: {name}"),
    ):
        with pytest.raises(BadRequest) as caught:
            load(options, environment, path)
        assert caught.value.message.startswith(f"{where} is ")


def test_a_wrong_file(tmp_path: Path) -> None:
    """The message names a file that is missing, is not TOML, or has an unknown setting."""
    file = tmp_path / "polly.toml"
    with pytest.raises(BadRequest, match="can't be read: No such file"):
        load({}, {}, file)
    for content, words in (
        (b"workers", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"worker = 2", r"sets 'worker', which is not a setting; did you mean workers\?"),
        (b"colour = 2", "sets 'colour', which is not a setting; the settings are .*workers"),
        (b"[server]\nworkers = 2", "sets 'server', which is not a setting"),
        (b"workers = true", "workers is 'True'"),
        (b"workers = [2]", "give a whole number"),
    ):
        file.write_bytes(content)
        with pytest.raises(BadRequest, match=words) as caught:
            load({}, {}, file)
        assert str(file) in caught.value.message


@pytest.mark.parametrize("given", ["tls_cert", "tls_key"])
def test_tls_takes_both(given: str) -> None:
    """A certificate without its key, or a key without its certificate, is refused."""
    with pytest.raises(BadRequest, match=r"--tls-cert .* --tls-key"):
        load({given: "/x.pem"}, {})


def test_what_is_empty_is_not_given() -> None:
    """An empty variable does not change a setting, and other variables are ignored."""
    assert load({}, {"POLLY_WORKERS": "", "POLLY_CONFIG": "", "POLLY_SERVER": "x", "WORKERS": "9"}) == Config()


@pytest.mark.parametrize(
    ("config", "url", "registry"),
    [
        (Config(), "http://127.0.0.1:5000", "127.0.0.1:5000"),
        (Config(tls_cert=Path("/c"), tls_key=Path("/k")), "https://127.0.0.1:5000", "127.0.0.1:5000"),
        (Config(public_url="https://r.example"), "https://r.example", "r.example"),
        (Config(listen="0.0.0.0:443", tls_cert=Path("/c")), "https://127.0.0.1:443", "127.0.0.1:443"),
        (Config(listen="[::]:5000"), "http://127.0.0.1:5000", "127.0.0.1:5000"),
        (Config(listen="[::1]:5000"), "http://[::1]:5000", "[::1]:5000"),
        (Config(listen="[::]:5000", public_url="https://r.example"), "https://r.example", "r.example"),
        (Config(public_url="http://r.example:99"), "http://r.example:99", "r.example:99"),
    ],
)
def test_where_the_server_is_reached(config: Config, url: str, registry: str) -> None:
    """The public URL gives the host in every path; without one, the listening address, if clients can use it."""
    assert (config.url, config.registry) == (url, registry)


def test_a_public_url_is_written_one_way() -> None:
    """It is changed to lower case, and a slash at its end is removed."""
    assert load({"public_url": "HTTPS://R.Example:443/"}, {}).public_url == "https://r.example:443"


@pytest.mark.parametrize(("text", "parts"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:5000", ("::1", 5000))])
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    """HOST:PORT, with brackets around IPv6."""
    assert split_address(text) == parts


def test_a_misspelt_variable_is_named() -> None:
    """The warning suggests the right name; variables of the commands and of Kubernetes cause none."""
    environment = {
        "POLLY_WORKRES": "1",
        "POLLY_COLOUR": "red",
        "POLLY_PORT": "5000",
        "POLLY_WORKERS": "2",
        "POLLY_TOKEN": "polly_x",
        "POLLY_CONFIG": "polly.toml",
        "POLLY_SERVICE_HOST": "10.0.0.1",
        "POLLY_PORT_5000_TCP_ADDR": "10.0.0.1",
        "POLLY_WEB_PORT": "tcp://10.0.0.1:5000",
        "HOME": "/",
    }
    assert unknown_variables(environment) == [
        "POLLY_COLOUR",
        "POLLY_PORT",
        "POLLY_WORKRES (did you mean POLLY_WORKERS?)",
    ]
