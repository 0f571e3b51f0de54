"""Bounded tables: a bound that holds, a life that ends, and offenders that a flood of new keys doesn't push out."""

from hypothesis import given
from hypothesis import strategies as st

from callwarden.limits.table import Entry, Table


class Count(Entry):
    __slots__ = ("count",)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0


def table(capacity: int = 100, ttl_s: float = 60.0) -> Table[Count]:
    return Table(Count, capacity=capacity, ttl_s=ttl_s)


operations = st.lists(
    st.tuples(st.sampled_from(["use", "heat", "remove", "expire", "wait", "back"]), st.integers(0, 30)), max_size=200
)


@given(operations, st.integers(2, 12))
def test_never_more_than_its_capacity_and_every_loss_is_counted(steps: list[tuple[str, int]], capacity: int) -> None:
    some, mono_s, made, removed = table(capacity, ttl_s=20.0), 0.0, 0, 0
    for step, number in steps:
        key = str(number)
        match step:
            case "use":
                made += key not in some
                assert some.use(key, mono_s) is some.peek(key)
            case "heat":
                some.heat(key)
            case "remove":
                removed += some.remove(key) is not None
            case "expire":
                some.expire(mono_s)
            case "wait":
                mono_s += number
            case "back":
                mono_s -= number
        assert len(some) <= capacity
        assert len(some) == made - removed - some.expired - some.evicted == len(list(some))


def test_a_flood_of_new_keys_does_not_push_out_an_offender() -> None:
    some = table(capacity=100)
    some.use("offender", 0.0).count = 40
    some.heat("offender")
    for number in range(10_000):
        some.use(f"spoofed-{number}", 1.0)
    offender = some.peek("offender")
    assert offender is not None
    assert offender.count == 40
    assert (some.evicted, some.evicted_hot) == (10_000 + 1 - 100, 0)


def test_as_many_offenders_as_there_are_inner_places_are_needed_to_push_one_out() -> None:
    some = table(capacity=100)
    some.use("offender", 0.0)
    some.heat("offender")
    for number in range(74):
        some.use(f"other-{number}", 1.0)
        some.heat(f"other-{number}")
    for number in range(1_000):
        some.use(f"spoofed-{number}", 2.0)
    assert "offender" in some
    some.use("the 75th", 3.0)
    some.heat("the 75th")  # The longest unused goes to the outer queue …
    assert "offender" in some
    for number in range(25):
        some.use(f"more-{number}", 4.0)  # … and from there out.
    assert "offender" not in some
    assert some.evicted_hot == 1


def test_an_offender_that_was_pushed_out_of_the_inner_queue_returns_with_its_next_use() -> None:
    some = Table(Count, capacity=4, ttl_s=60.0, hot_share=0.5)
    for key in ("a", "b", "c"):
        some.use(key, 0.0)
        some.heat(key)  # Two places: "a" is out again.
    some.use("a", 1.0)
    for number in range(10):
        some.use(str(number), 2.0)
    assert "a" in some


def test_hot_keys_can_be_told_from_others() -> None:
    some = table()
    for key in ("a", "b", "c"):
        some.use(key, 0.0)
    some.heat("c")
    some.heat("a")
    assert [key for key in "abcd" if some.is_hot(key)] == ["a", "c"]
    assert [key for key, _ in some.hot_items()] == ["c", "a"]


def test_the_longest_unused_goes_first() -> None:
    some = table(capacity=3)
    for key in ("a", "b", "c"):
        some.use(key, 0.0)
    some.use("a", 1.0)
    some.use("d", 2.0)
    assert [key for key, _ in some] == ["c", "a", "d"]


def test_what_is_not_used_for_its_time_to_live_is_gone_hot_or_not() -> None:
    some = table(ttl_s=60.0)
    some.use("hot", 0.0)
    some.heat("hot")
    some.use("cold", 0.0)
    some.use("kept", 30.0)
    assert some.expire(59.9) == 0
    assert some.expire(60.0) == 2
    assert [key for key, _ in some] == ["kept"]
    assert (some.expired, some.evicted) == (2, 0)


def test_expiry_does_a_bounded_amount_of_work_at_a_time() -> None:
    some = table(capacity=100)
    for number in range(50):
        some.use(str(number), 0.0)
    assert [some.expire(100.0, limit=20) for _ in range(4)] == [20, 20, 10, 0]


def test_a_clock_that_steps_back_neither_ages_nor_rejuvenates() -> None:
    some = table(ttl_s=60.0)
    some.use("a", 100.0)
    some.use("b", 10.0)
    assert some.expire(159.0) == 0
    assert some.expire(160.0) == 2
