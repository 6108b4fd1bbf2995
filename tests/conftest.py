"""Servers for the tests that need one: each has its own data folder, its own port and real processes.

``tests/server/conftest.py`` overrides ``server`` and ``ann``: there, each test has a server of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.server import Server, running_server
from support.wire_client import Person, admin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A machine that is busy with something else is no failure of a test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that tests share: two workers, public repositories allowed. Nothing is collected while tests look."""
    options = ("--public-repositories", "allow", "--collect-seconds", "0")
    with running_server(tmp_path_factory.mktemp("server"), *options) as running:
        yield running


@pytest.fixture(scope="session")
def ann(server: Server) -> Person:
    """The admin of the shared server's organisation."""
    return admin(server)


@pytest.fixture
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server for one test; the mark ``server_options`` holds more options of ``polly-server run``."""
    mark = request.node.get_closest_marker("server_options")
    with running_server(tmp_path, *(mark.args if mark else ())) as running:
        yield running
