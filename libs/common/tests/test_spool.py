"""The spool: what was appended comes back in order, wherever the process or the disk gave up."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from callwarden.common.bus.spool import RECORD_BYTES_MAX, Spool
from callwarden.kernel.errors import Exhausted


def events_of(spool: Spool, count: int = 10_000) -> list[tuple[str, str, bytes]]:
    return [(record.subject, record.message_id, record.payload) for record in spool.read(count)]


def test_events_come_back_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(100):
        spool.append("calls.ended", f"hold-{number}.ended", bytes([number]) * number)
    assert events_of(spool) == [("calls.ended", f"hold-{n}.ended", bytes([n]) * n) for n in range(100)]
    assert len(spool) == 100


def test_what_is_acknowledged_does_not_come_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(10):
        spool.append("s", str(number), b"x")
    spool.acknowledge(spool.read(4)[-1].end)
    assert [message_id for _, message_id, _ in events_of(spool)] == list("456789")
    spool.acknowledge(spool.read(100)[-1].end)
    assert (events_of(spool), len(spool)) == ([], 0)


def test_another_process_finds_what_the_last_one_left(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    for number in range(10):
        first.append("s", str(number), b"x")
    first.acknowledge(first.read(3)[-1].end)
    second = Spool(tmp_path)  # the first was killed: not closed
    assert [message_id for _, message_id, _ in events_of(second)] == list("3456789")
    assert len(second) == 7
    second.append("s", "10", b"y")
    assert events_of(second)[-1] == ("s", "10", b"y")


def test_an_empty_spool_takes_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(100):
        spool.append("s", str(number), b"x" * 1000)
    spool.acknowledge(spool.read(100)[-1].end)
    assert (tmp_path / "events.spool").stat().st_size == 0


def test_a_full_spool_says_so_and_has_room_again_after(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=10_000)
    for number in range(9):
        spool.append("s", str(number), b"x" * 1000)
    with pytest.raises(Exhausted):
        spool.append("s", "9", b"x" * 1000)
    kept = len(spool)
    assert kept == 9
    spool.acknowledge(spool.read(kept)[-1].end)
    spool.append("s", "again", b"x" * 1000)


def test_a_record_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(Exhausted):
        spool.append("s", "1", b"x" * RECORD_BYTES_MAX)
    assert len(spool) == 0


def test_a_spool_that_is_never_empty_does_not_grow_for_ever(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=20_000)
    for number in range(1_000):
        spool.append("s", str(number), b"x" * 1000)
        if len(spool) > 5:
            spool.acknowledge(spool.read(1)[-1].end)
    assert (tmp_path / "events.spool").stat().st_size <= 2 * 20_000 + 2_000
    assert [message_id for _, message_id, _ in events_of(spool)] == [str(n) for n in range(995, 1000)]
    assert events_of(Spool(tmp_path)) == events_of(spool)


@settings(max_examples=60, deadline=None)
@given(payloads=st.lists(st.binary(max_size=50), min_size=1, max_size=8), data=st.data())
def test_a_torn_tail_costs_only_the_record_that_was_torn(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: Any
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    spool = Spool(folder)
    ends = []
    for payload in payloads:
        spool.append("calls.ended", "id", payload)
        ends.append(spool._end)
    spool.close()
    path = folder / "events.spool"
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    whole = sum(end <= cut for end in ends)
    after = Spool(folder)
    assert [payload for _, _, payload in events_of(after)] == payloads[:whole]
    after.append("s", "next", b"z")  # and it goes on behind the last sound one
    assert [payload for _, _, payload in events_of(Spool(folder))] == [*payloads[:whole], b"z"]
    shutil.rmtree(folder)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_delivered(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    spool = Spool(folder)
    payloads = [bytes([number]) * 40 for number in range(10)]
    for payload in payloads:
        spool.append("calls.ended", "id", payload)
    spool.close()
    path = folder / "events.spool"
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    found = [payload for _, _, payload in events_of(Spool(folder))]
    assert found == payloads[: len(found)]
    assert len(found) < 10
    shutil.rmtree(folder)


class SpoolMachine(RuleBasedStateMachine):
    """Against a list, with restarts in between."""

    @initialize(factory=st.just(None))
    def start(self, factory: None) -> None:
        import tempfile

        self.folder = Path(tempfile.mkdtemp(prefix="spool"))
        self.spool = Spool(self.folder, bytes_max=2_000)
        self.model: list[tuple[str, str, bytes]] = []

    @rule(subject=st.text(max_size=5), message_id=st.text(max_size=5), payload=st.binary(max_size=300))
    def append(self, subject: str, message_id: str, payload: bytes) -> None:
        try:
            self.spool.append(subject, message_id, payload)
        except Exhausted:
            assert sum(len(event[2]) + 40 for event in self.model) + len(payload) > 1_000
        else:
            self.model.append((subject, message_id, payload))

    @rule(count=st.integers(1, 5))
    def acknowledge(self, count: int) -> None:
        if records := self.spool.read(count):
            self.spool.acknowledge(records[-1].end)
            del self.model[: len(records)]

    @rule()
    def restart(self) -> None:
        self.spool = Spool(self.folder, bytes_max=2_000)

    @invariant()
    def same(self) -> None:
        assert events_of(self.spool) == self.model
        assert len(self.spool) == len(self.model)
        assert (self.folder / "events.spool").stat().st_size <= 5_000

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
