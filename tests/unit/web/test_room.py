"""Memory for clients: bounded whatever they do, and clients that do not read make room for those that do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.errors import ClientGone, Unavailable
from polly_dockers.web.memory import ROOM, STALLED, Held, Room, limit_for

LIMIT = 100


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count every byte, even of small requests."""
    monkeypatch.setattr("polly_dockers.web.memory.SMALL", 0)


class Clients:
    """Clients that share a limited memory, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.room = Room(LIMIT, lambda: self.now)
        self.gone: list[str] = []

    def ask(self, address: str, size: int) -> Held:
        """Reserve memory for a response of so many bytes to a client."""
        held = self.room.hold(address, lambda: self._end(address))
        try:
            held.add(bytes(size))
        except Unavailable:
            held.release()
            raise
        return held

    def _end(self, address: str) -> None:
        self.gone.append(address)
        assert len(self.gone) < 1000, "those that are ended make no room"


def test_the_stalled_make_room() -> None:
    """42: a client that has read nothing for a while loses its connection to the next that needs room."""
    clients = Clients()
    still, moving = clients.ask("a", 60), clients.ask("b", 40)
    clients.now += 2 * STALLED
    assert moving.part(0, 10) == bytes(10)
    clients.ask("c", 60)
    assert (clients.gone, clients.room.total, clients.room.evicted) == (["a"], 100, 1)
    with pytest.raises(ClientGone):
        still.part(0, 1)
    last = moving.part(30, 20)
    assert (type(last), last) == (bytes, bytes(10))  # no memoryview, which would keep all of it


def test_whoever_holds_most_makes_room_for_others() -> None:
    """42: the address with the most memory loses the response that moved least, and gets no more meanwhile."""
    clients = Clients()
    few = clients.ask("few", 10)
    clients.now += STALLED / 4
    answers = [clients.ask("many", 25) for _ in range(3)]
    with pytest.raises(Unavailable):
        clients.ask("many", 25)
    assert clients.gone == []
    clients.now += STALLED / 4
    for moving in (answers[0], answers[2]):
        moving.part(0, 1)
    clients.ask("one", 30)
    assert clients.gone == ["many"]
    with pytest.raises(ClientGone):
        answers[1].part(0, 1)
    answers[0].part(0, 1)
    few.part(0, 1)


def test_a_client_of_many_addresses_is_one() -> None:
    """42: a client that changes its address within its IPv6 network counts as one."""
    clients = Clients()
    for number in range(7):
        clients.ask(f"2001:db8::{number + 1:x}", 10)
    clients.now += STALLED / 4
    clients.ask("192.0.2.1", 40)
    assert {address.rpartition(":")[0] for address in clients.gone} == {"2001:db8:"}
    with pytest.raises(Unavailable):
        clients.ask("2001:db8::ffff", 10)


def test_what_the_server_works_on_stays() -> None:
    """42: a complete body stays until the server has finished with it, however long that takes."""
    clients = Clients()
    body = clients.ask("a", 60)
    assert body.whole() == bytes(60)
    clients.now += 2 * STALLED
    with pytest.raises(Unavailable):
        clients.ask("b", 60)
    body.release()
    clients.ask("b", 60)
    assert clients.gone == []


def test_one_address_leaves_room_for_others() -> None:
    """42: however many bodies of one address the server works on, a quarter of the memory is left for others."""
    clients = Clients()
    for number in range(3):
        clients.ask(f"2001:db8::{number + 1:x}", 25).whole()
    clients.now += 2 * STALLED
    with pytest.raises(Unavailable):
        clients.ask("2001:db8::ffff", 1)
    clients.ask("192.0.2.1", 25)
    assert (clients.gone, clients.room.total) == ([], LIMIT)


def test_the_stalled_of_one_address_make_room_for_it() -> None:
    """42: if an address has used its share, its stalled responses make room before it is refused."""
    clients = Clients()
    clients.ask("a", 25)
    clients.now += 2 * STALLED
    taken = clients.ask("a", 50)
    clients.ask("a", 25)
    assert (clients.gone, clients.room.total, taken.part(0, 1)) == (["a"], 75, bytes(1))


def test_a_body_that_grows() -> None:
    """42: each piece of a body is counted when it arrives, and all of them are released together."""
    clients = Clients()
    held = clients.room.hold("a", lambda: None)
    for _ in range(10):
        held.add(b"x" * 10)
    assert clients.room.total == LIMIT
    with pytest.raises(Unavailable):
        held.add(b"x")
    assert held.whole() == b"x" * LIMIT
    held.release()
    held.release()
    assert clients.room.total == 0


def test_what_is_small_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """42: while the memory is full, small requests are handled as before."""
    monkeypatch.setattr("polly_dockers.web.memory.SMALL", 20)
    clients = Clients()
    clients.ask("a", LIMIT)
    body = clients.ask("a", 10)
    body.add(bytes(10))
    with pytest.raises(Unavailable):
        body.add(b"x")
    assert clients.room.total == LIMIT


def test_the_largest_answer_has_room() -> None:
    """42: the limit is at least the size of the largest response, whatever a manifest contains."""
    assert limit_for(8 << 20) == ROOM
    assert limit_for(64 << 20) > 4 * (64 << 20)


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, LIMIT), st.sampled_from(["ask", "move", "work", "end", "wait"])),
    max_size=40,
)


@given(STEPS)
def test_never_more_than_the_limit(steps: list[tuple[str, int, str]]) -> None:
    """42: in any order of steps, memory stays within the limit, and the total is the sum of its parts."""
    clients = Clients()
    held: list[Held] = []
    for address, number, step in steps:
        some = held[number % len(held)] if held else None
        try:
            if step == "ask":
                held.append(clients.ask(address, number))
            elif step == "wait":
                clients.now += number / 50
            elif some is not None and step == "move":
                some.part(0, 1)
            elif some is not None and step == "work":
                some.whole()
            elif some is not None:
                some.release()
        except (Unavailable, ClientGone):
            pass
        assert clients.room.total == sum(each.counted for each in held) <= LIMIT
        assert len(clients.gone) == clients.room.evicted
    for each in held:
        each.release()
    assert clients.room.total == 0
