"""Starting the server: sockets, certificates and the data folder are checked first, then gunicorn forks workers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gunicorn.app.base import BaseApplication

from polly_dockers.config import Config, split_address
from polly_dockers.db import accounts as rows
from polly_dockers.db import migrate
from polly_dockers.db.blobs import distrust_uploads
from polly_dockers.db.engine import Database
from polly_dockers.errors import Unavailable
from polly_dockers.logs import set_up
from polly_dockers.signer import new_key
from polly_dockers.worker import PollyWorker

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from sqlalchemy import Connection

    T = TypeVar("T")


def prepare(folder: Path) -> None:
    """Make the data folder and its database, or bring them to this version.

    Raises Unavailable for a folder that can't be written, or is of a newer version.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        migrate.upgrade(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    change(folder, _ensure_key)


def _unwritable(folder: Path, error: OSError) -> Unavailable:
    reason = error.strerror or str(error)
    msg = f"The data folder {folder} can't be used: {reason}. Give one that you may write with --data DIR."
    return Unavailable(msg)


def _ensure_key(connection: Connection) -> None:
    if not rows.keys(connection):
        rows.add_key(connection, *new_key())


def require(folder: Path) -> None:
    """Raise Unavailable where the folder holds no registry."""
    if not migrate.exists(folder):
        msg = f"There is no registry in {folder} yet. Make one: polly-server init --data {folder} --org … --email …"
        raise Unavailable(msg)


def change(folder: Path, fn: Callable[[Connection], T]) -> T:
    """Carry out ``fn`` in one transaction on the database of the folder, beside a server that runs."""

    async def write() -> T:
        try:
            database = Database(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            return await database.write(fn)
        finally:
            database.close()

    return asyncio.run(write())


def _listen(address: str) -> socket.socket:
    """A socket that listens; raises Unavailable where the address can't be had."""
    host, port = split_address(address)
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(4096)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"Can't listen on {address}: {reason}. Choose another address with --listen HOST:PORT."
        raise Unavailable(msg) from error
    listener.set_inheritable(True)
    return listener


def check_address(config: Config) -> None:
    """Raise Unavailable where the address can't be had now, before anything is made."""
    _listen(config.listen).close()


def tls_context(config: Config) -> ssl.SSLContext:
    """TLS 1.2 and newer with the certificate of the settings; raises Unavailable where it can't be read."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(str(config.tls_cert), str(config.tls_key))
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        msg = f"The certificate {config.tls_cert} with the key {config.tls_key} can't be used: {reason}."
        raise Unavailable(msg) from error
    return context


def run(config: Config, on_ready: Callable[[], None]) -> NoReturn:
    """Serve until SIGTERM. ``on_ready`` is called once the sockets listen.

    Raises Unavailable for an address, a certificate or a data folder that can't be used.
    """
    require(config.data)
    prepare(config.data)
    change(config.data, distrust_uploads)
    if config.tls:
        tls_context(config)
    listeners = [_listen(config.listen)]
    if config.metrics_listen:
        listeners.append(_listen(config.metrics_listen))
    set_up(config)
    with tempfile.TemporaryDirectory(prefix="polly-metrics-") as shared:
        _arbiter(config, listeners, Path(shared), on_ready)
    raise SystemExit(0)


class _Server(BaseApplication):  # type: ignore[misc]
    """What gunicorn asks for its options, and a worker for its settings."""

    def __init__(self, config: Config, metrics_folder: Path, options: dict[str, Any]) -> None:
        self.settings = config
        self.metrics_folder = metrics_folder
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[[], None]:
        return lambda: None

    def tls_context(self) -> ssl.SSLContext:
        return tls_context(self.settings)


def _arbiter(
    config: Config, listeners: list[socket.socket], metrics_folder: Path, on_ready: Callable[[], None]
) -> None:
    """Gunicorn forks, watches and ends the workers."""
    options = {
        "bind": [f"fd://{listener.detach()}" for listener in listeners],
        "workers": config.workers,
        "worker_class": PollyWorker,
        "graceful_timeout": config.graceful_seconds + 5,
        "timeout": 60,
        "backlog": 4096,
        "loglevel": "warning",
        "control_socket_disable": True,
        "when_ready": lambda _arbiter: on_ready(),
    }
    _Server(config, metrics_folder, options).run()
