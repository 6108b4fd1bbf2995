"""Starting the server: sockets, certificates and the data folder are checked first, then gunicorn forks workers."""

from __future__ import annotations

import contextlib
import fcntl
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
from polly_dockers.server.supervisor import Supervisor, leave
from polly_dockers.server.worker import PollyWorker, hold_endings
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Callable

log: Final = structlog.get_logger("polly.server")


def _listen(address: str, option: str = "--listen") -> socket.socket:
    """A socket that listens; raises Unavailable, which names the option, where the address can't be had."""
    host, port = split_address(address)
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(4096)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"Can't listen on {address}: {reason}. Choose another address with {option} HOST:PORT."
        raise Unavailable(msg) from error
    listener.set_inheritable(True)
    return listener


def check_address(config: Config) -> None:
    """Raise Unavailable where an address can't be had now, before anything is made."""
    listeners = [_listen(config.listen)]
    if config.metrics_listen:
        listeners.append(_listen(config.metrics_listen, "--metrics-listen"))
    for listener in listeners:
        listener.close()


def run(config: Config, on_ready: Callable[[], None]) -> NoReturn:
    """Serve until SIGTERM. ``on_ready`` is called once the sockets listen.

    Raises Unavailable for an address, a certificate or a data folder that can't be used.
    """
    data_folder.require(config.data, upgrades=True)
    data_folder.prepare(config.data)
    data_folder.hold(config.data)
    certificates = Certificates(config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None
    with ownership.acting(None):  # a port below 1024 may be for root alone
        listeners = [_listen(config.listen)]
        if config.metrics_listen:
            listeners.append(_listen(config.metrics_listen, "--metrics-listen"))
    data_folder.try_writes(config.data)
    set_up(config)
    write_running(config)
    _raise_limit()
    shared, parent, code = _shared_folder(config.data), os.getpid(), 0
    try:
        code = _supervise(config, certificates, listeners, shared, on_ready)
    finally:
        if os.getpid() == parent:  # a worker that ends comes by here too
            shutil.rmtree(shared, ignore_errors=True)
    leave(code)


def _shared_folder(data: Path) -> Path:
    """A folder for what the processes of this server share: in memory, for temporary files, or in the data folder."""
    for place in ("/dev/shm", None):  # noqa: S108 - mkdtemp's is for its owner alone
        with contextlib.suppress(OSError):  # gettempdir raises it where no folder can be written
            return _made(Path(place or tempfile.gettempdir()), "polly-metrics-")
    return _made(data, "metrics-")


def _made(place: Path, prefix: str) -> Path:
    """A new folder that this process has a lock on, and its workers with it; what dead servers left is deleted."""
    for left in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another server that starts may have deleted it
            if _is_left(left, left.name.removeprefix(prefix).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=place))
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_SH | fcntl.LOCK_NB)
    return made


def _is_left(folder: Path, pid: str) -> bool:
    """Whether a folder is this user's, its process is gone, and none holds it: processes of a container have no pid."""
    if folder.lstat().st_uid != os.geteuid() or not pid.isdecimal() or Path(f"/proc/{pid}").exists():
        return False
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _raise_limit() -> None:
    """Take all the descriptors that the system lets this process have: each pull holds three."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(BaseApplication):  # type: ignore[misc]
    """What gunicorn asks for its options, and a worker for its settings."""

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
        """What the socket of the metrics is bound to: its port alone may be that of the other one as well."""
        self.restarts = Restarts(metrics_folder, config.workers)
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
    """Gunicorn forks, watches and ends the workers; the exit code."""
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
    hold_endings()
    server = _Server(config, certificates, metrics_folder, options, listeners)
    for listener in listeners:
        listener.detach()
    server.cfg.set("pre_fork", lambda _arbiter, worker: server.restarts.started(worker.age))
    server.cfg.set("child_exit", lambda arbiter, worker: _after_end(server.restarts, arbiter, worker))
    supervisor, parent, code = Supervisor(server, certificates, metrics_folder), os.getpid(), 0
    log.info("the server starts", **_facts(config))
    try:
        supervisor.run()
    except SystemExit as end:
        if os.getpid() != parent:
            raise
        code = end.code if isinstance(end.code, int) else 1
    reason = supervisor.reason or "its worker processes can't run"
    log.info("the server has ended", reason=reason, seconds=round(supervisor.seconds), code=code)
    return code


def _facts(config: Config) -> dict[str, object]:
    """What the log says of a server that starts: version, place, and every setting that is not its default."""
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


def _after_end(restarts: Restarts, arbiter: Any, worker: Any) -> None:  # noqa: ANN401 - gunicorn is untyped
    """A worker has ended; raises HaltServer where they end again and again, so that whoever watches the server sees."""
    others = [each.age for each in arbiter.WORKERS.values()]
    if not restarts.ended(worker.age, worker.pid, others):
        return
    msg = (
        f"The server ends: {restarts.failures} worker processes ended one after another, each within "
        f"{SETTLED:g} seconds of its start. The log says above why."
    )
    raise HaltServer(msg, 1)
