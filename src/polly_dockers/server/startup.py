"""Starting the server: check sockets, certificate and data folder, then let gunicorn fork the workers."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer

from polly_dockers import __version__
from polly_dockers.config import Config, split_address, write_running
from polly_dockers.errors import Unavailable
from polly_dockers.server import data_folder
from polly_dockers.server.certificates import Certificates
from polly_dockers.server.logs import set_up
from polly_dockers.server.restarts import SETTLED, Restarts
from polly_dockers.server.supervisor import Supervisor
from polly_dockers.server.worker import PollyWorker, block_stop_signals
from polly_dockers.system import durable, locks, ownership, process
from polly_dockers.system.balance import Balance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNPRIVILEGED: Final = 1024
"""The first port that every user may use."""

log: Final = structlog.get_logger("polly.server")


def _listen(address: str, option: str) -> socket.socket:
    """A listening socket. Raises Unavailable that names the option if the address can't be used."""
    host, port = split_address(address)
    listener = None
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(4096)
    except OSError as error:
        if listener is not None:
            listener.close()
        msg = f"Can't listen on {address}: {error.strerror or error}. Choose another address with {option} HOST:PORT."
        if isinstance(error, PermissionError) and port < _UNPRIVILEGED:
            msg += f" Or run it as root, or with CAP_NET_BIND_SERVICE: ports below {_UNPRIVILEGED} need one of these."
        raise Unavailable(msg) from error
    listener.set_inheritable(True)
    return listener


def _listen_all(config: Config) -> list[socket.socket]:
    """The main socket and, if it has an address, that of the metrics. Raises Unavailable as ``_listen``."""
    listeners = [_listen(config.listen, "--listen")]
    if config.metrics_listen:
        listeners.append(_listen(config.metrics_listen, "--metrics-listen"))
    return listeners


def check_address(config: Config) -> None:
    """Raise Unavailable if an address can't be used, before anything is made."""
    for listener in _listen_all(config):
        listener.close()


def run(config: Config, on_ready: Callable[[], None], unknown: Sequence[str] = ()) -> NoReturn:
    """Serve until SIGTERM, then exit the process. ``on_ready`` is called once the workers are started.

    ``unknown`` are variables of the environment that look like settings and are none; the log names them.

    Raises Unavailable for an address, a certificate or a data folder that can't be used.
    """
    data_folder.require(config.data, upgrades=True)
    data_folder.prepare(config.data)
    data_folder.hold_version(config.data)
    set_up(config)  # before the certificate is read, which may log a warning
    certificates = Certificates(config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None
    with ownership.acting(None):  # only root may be allowed to use a port below 1024
        listeners = _listen_all(config)
    data_folder.try_writes(config.data)
    if not data_folder.is_alone(config.data):
        log.warning(
            "another server runs on the same data folder; start one server for each data folder",
            data=str(config.data.absolute()),
        )
    if unknown:
        log.warning("variables that are not settings are ignored", variables=", ".join(unknown))
    write_running(config)
    _raise_limit()
    shared, parent, code = _shared_folder(config.data), os.getpid(), 0
    try:
        code = _supervise(config, certificates, listeners, shared, on_ready)
    finally:
        if os.getpid() == parent:  # a worker that exits comes here too
            shutil.rmtree(shared, ignore_errors=True)
    process.exit_now(code)


def _shared_folder(data: Path) -> Path:
    """A new folder that the processes of this server share: in memory if possible, else on disk."""
    for place in ("/dev/shm", None):  # noqa: S108 - mkdtemp's is for its owner alone
        with contextlib.suppress(OSError):  # gettempdir raises it where no folder can be written
            return _make_folder(Path(place or tempfile.gettempdir()), "polly-metrics-")
    return _make_folder(data, "metrics-")


def _make_folder(place: Path, prefix: str) -> Path:
    """A new folder, locked by this process and its workers. Folders of servers that are gone are deleted."""
    for left in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another server that starts may have deleted it
            if _is_abandoned(left, left.name.removeprefix(prefix).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=place))
    with contextlib.suppress(OSError):  # a file system without locks
        locks.try_acquire(durable.open_folder(made), shared=True)
    return made


def _is_abandoned(folder: Path, pid: str) -> bool:
    """Whether the folder is this user's, its process is gone, and nobody has its lock.

    The lock is for servers in other containers, whose pids are not visible here.
    """
    if folder.lstat().st_uid != os.geteuid() or not pid.isdecimal() or Path(f"/proc/{pid}").exists():
        return False
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return locks.try_acquire(fd)
    finally:
        os.close(fd)


def _raise_limit() -> None:
    """Raise the limit of open files to the highest that is allowed: each pull needs three."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn's application: its options, and what the workers need from the supervisor."""

    def __init__(
        self,
        config: Config,
        certificates: Certificates | None,
        metrics_folder: Path,
        options: dict[str, Any],
        listeners: list[socket.socket],
    ) -> None:
        self.settings = config
        self.certificates = certificates
        self.metrics_folder = metrics_folder
        self.metrics_name = listeners[1].getsockname() if config.metrics_listen else None
        """Address of the metrics socket. The port alone is not enough: both sockets may use the same one."""
        self.restarts = Restarts(metrics_folder, config.workers)
        self.balance = Balance()
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[[], None]:
        return lambda: None


def _supervise(
    config: Config,
    certificates: Certificates | None,
    listeners: list[socket.socket],
    metrics_folder: Path,
    on_ready: Callable[[], None],
) -> int:
    """Let gunicorn fork and watch the workers until the server shuts down; the exit code."""
    options = {
        "bind": [f"fd://{listener.fileno()}" for listener in listeners],
        "workers": config.workers,
        "worker_class": PollyWorker,
        "graceful_timeout": config.graceful_seconds + 5,
        "timeout": 60,
        "backlog": 4096,
        "loglevel": "warning",
        "control_socket_disable": True,
        "umask": ownership.UMASK,
        "user": os.geteuid(),
        "group": os.getegid(),
        "post_fork": lambda _arbiter, _worker: ownership.for_good(),
        "when_ready": lambda _arbiter: on_ready(),
    }
    block_stop_signals()
    server = _Server(config, certificates, metrics_folder, options, listeners)
    for listener in listeners:
        listener.detach()
    server.cfg.set("pre_fork", lambda _arbiter, worker: _before_fork(server, worker))
    server.cfg.set("child_exit", lambda arbiter, worker: _after_exit(server, arbiter, worker))
    supervisor, parent, code = Supervisor(server, certificates, metrics_folder), os.getpid(), 0
    log.info("server starting", **_facts(config))
    try:
        supervisor.run()
    except SystemExit as end:
        if os.getpid() != parent:
            raise
        code = end.code if isinstance(end.code, int) else 1
    reason = supervisor.reason or "its worker processes crash"
    log.info("server stopped", reason=reason, seconds=round(supervisor.seconds), code=code)
    return code


def _facts(config: Config) -> dict[str, object]:
    """What the log says at the start: version, URL, data folder, and every setting that differs from its default."""
    default = Config()
    settings = {each.name: getattr(config, each.name) for each in fields(config)}
    changed = {name: str(value) for name, value in settings.items() if value != getattr(default, name)}
    return changed | {
        "version": __version__,
        "url": config.url,
        "data": str(config.data.absolute()),
        "workers": config.workers,
        "user": ownership.user(os.geteuid()),
        "pid": os.getpid(),
    }


def _before_fork(server: _Server, worker: Any) -> None:  # noqa: ANN401 - gunicorn is untyped
    """Record that a worker is about to start."""
    server.restarts.started(worker.age)
    server.balance.add(worker.age)


def _after_exit(server: _Server, arbiter: Any, worker: Any) -> None:  # noqa: ANN401 - gunicorn is untyped
    """Record that a worker has exited. Raises HaltServer after several crashes in a row, which ends the server."""
    server.balance.remove(worker.age)
    restarts, others = server.restarts, [each.age for each in arbiter.WORKERS.values()]
    if not restarts.exited(worker.age, worker.pid, others):
        return
    msg = (
        f"Shutting down: {restarts.failures} worker processes in a row crashed, each within {SETTLED:g} seconds of its "
        "start. The log lines above say why."
    )
    raise HaltServer(msg, 1)
