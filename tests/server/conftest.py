"""Tests of the operator's commands change a server's files, so each test has a server of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.wire_client import Person, admin

if TYPE_CHECKING:
    from support.server import Server


@pytest.fixture
def server(own_server: Server) -> Server:
    """The test's own server."""
    return own_server


@pytest.fixture
def ann(server: Server) -> Person:
    """The admin of its organisation."""
    return admin(server)
