"""Shards never use more than the limit in sum, and refuse nothing while any of them has room."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from callwarden.limits.shards import KEYS_MAX, Shard, shared


class SharedLimits:
    """Rows of shards, and processes that read and write them in transactions which may never happen."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.rows: list[dict[str, tuple[int, int, int]]] = [{} for _ in range(64)]
        self.used = [0] * 64

    def shards(self) -> list[Shard]:
        return [Shard(self.count, index, dict(self.rows[index])) for index in range(self.count)]

    def take(self, at: int, needed: int, limit: int, *, dies: bool = False) -> bool:
        """As the book does it: within the grant; else with all in sight."""
        at %= self.count
        shards = self.shards()
        used = self.used[: self.count]
        writes: list[Shard] = []
        for _ in range(3):
            left = shards[at].allowance("calls", limit) - used[at]
            if left >= needed:
                break
            after = shared(shards, "calls", limit, used, at, needed - left)
            writes += [new for new, old in zip(after, shards, strict=True) if new != old]
            shards = after
        admitted = shards[at].allowance("calls", limit) - used[at] >= needed
        if dies:
            return False
        for shard in writes:
            self.rows[shard.index] = dict(shards[shard.index].grants)
        if admitted:
            self.used[at] += needed
        return admitted


class Interleaved(RuleBasedStateMachine):
    """Takers in any order, crashes, and limits and numbers of shards that change."""

    @initialize(count=st.integers(2, 8), limit=st.integers(0, 40))
    def begin(self, count: int, limit: int) -> None:
        self.limits = SharedLimits(count)
        self.limit = limit

    @rule(at=st.integers(0, 63), needed=st.integers(1, 4), dies=st.sampled_from([False, False, False, True]))
    def take(self, at: int, needed: int, dies: bool) -> None:
        room = self.limit - sum(self.limits.used)
        admitted = self.limits.take(at, needed, self.limit, dies=dies)
        if not dies:
            assert admitted == (room >= needed), "neither over the limit nor refused while there is room"

    @rule(at=st.integers(0, 63), share=st.integers(1, 4))
    def give_back(self, at: int, share: int) -> None:
        at %= self.limits.count
        self.limits.used[at] -= min(share, self.limits.used[at])

    @rule(limit=st.integers(0, 40))
    def change_limit(self, limit: int) -> None:
        self.limit = limit

    @rule(more=st.integers(0, 8))
    def grow(self, more: int) -> None:
        self.limits.count = min(self.limits.count + more, 64)

    @invariant()
    def parts_sum_to_the_limit(self) -> None:
        if not hasattr(self, "owner"):
            return
        shards = self.limits.shards()
        if all(shard.is_granted("calls", self.limit) for shard in shards):
            assert sum(shard.allowance("calls", self.limit) for shard in shards) == self.limit
        else:
            assert not any(shard.is_granted("calls", self.limit) for shard in shards)


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


@given(st.integers(2, 64), st.integers(0, 10**12), st.data())
def test_all_of_a_new_limit_is_shared_out_to_the_last_micro(count: int, limit: int, data: st.DataObject) -> None:
    used = [data.draw(st.integers(0, limit // count)) for _ in range(count)]
    at = data.draw(st.integers(0, count - 1))
    after = shared([Shard(count, index, {}) for index in range(count)], "credit", limit, used, at, 1)
    parts = [shard.allowance("credit", limit) for shard in after]
    assert sum(parts) == limit
    assert all(part >= some for part, some in zip(parts, used, strict=True))
    room = [part - some for part, some in zip(parts, used, strict=True)]
    assert max(room) - min(room) <= 1
    assert room[at] == max(room)


def test_a_loan_leaves_the_lender_half_unless_more_is_needed() -> None:
    shards = shared([Shard(2, index, {}) for index in range(2)], "credit", 200, [0, 0], 0, 1)
    lent = shared(shards, "credit", 200, [100, 0], 0, 10)
    assert [shard.allowance("credit", 200) for shard in lent] == [150, 50]
    all_of_it = shared(lent, "credit", 200, [150, 0], 0, 80)
    assert [shard.allowance("credit", 200) for shard in all_of_it] == [200, 0]


def test_a_lowered_limit_leaves_nobody_a_part_until_there_is_room_again() -> None:
    shards = shared([Shard(2, index, {}) for index in range(2)], "calls", 10, [5, 1], 0, 1)
    lowered = shared(shards, "calls", 4, [5, 1], 1, 1)
    assert [shard.allowance("calls", 4) for shard in lowered] == [0, 0]
    freed = shared(lowered, "calls", 4, [2, 1], 1, 1)
    assert [shard.allowance("calls", 4) for shard in freed] == [2, 2]


def test_grants_of_past_days_are_dropped() -> None:
    shards = [Shard(2, index, {}) for index in range(2)]
    for day in range(739_000, 739_100):
        shards = shared(shards, f"day_spend.{day}", 10, [0, 0], 0, 1)
    assert [len(shard.grants) for shard in shards] == [KEYS_MAX, KEYS_MAX]
