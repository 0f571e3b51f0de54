"""Entries of number lists at their bounds, which of several lists decides, and what is listed for a time."""

from dataclasses import replace
from uuid import UUID

import pytest

from callwarden.call_admission.model.lists import (
    DYNAMIC,
    SHAPES_MAX,
    SMART,
    BadPattern,
    ListBuilder,
    Listed,
    ListHead,
    Listings,
    ListKind,
    Lists,
    ListSide,
    Match,
    NumberList,
    TooManyShapes,
    digits_of,
    is_name,
    parse_pattern,
    shape_of,
)
from callwarden.kernel.clock import UnixS

ALICE, BOB, REALM = UUID(int=1), UUID(int=2), "example.org"
OWN = frozenset({DYNAMIC, SMART})


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("A.b_c-9", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ("", False),
        ("dynamic", False),
        ("smart", False),
    ],
)  # fmt: skip
def test_a_list_may_be_called(name: str, is_one: bool) -> None:
    assert is_name(name) is is_one


def test_entries_at_their_bounds() -> None:
    assert [parse_pattern(text) for text in ("49", "4?", "1*", "4" * 15, "4" * 15 + "*")] == [
        "49", "4?", "1*", "4" * 15, "4" * 15 + "*"
    ]  # fmt: skip
    assert parse_pattern("4990*", prefixes=True) == "4990*"
    for text, why in (("493**", "stands at the end"), ("4" * 16 + "*", "longer than 15"), ("4", "too short")):
        with pytest.raises(BadPattern, match=why):
            parse_pattern(text)
    assert [digits_of(number) for number in ("0049301234", "+49 30", "4" * 15, "4" * 16, "4")] == [
        "49301234", "4930", "4" * 15, "", ""
    ]  # fmt: skip


def compiled(
    *patterns: str, name: str = "one", kind: ListKind = ListKind.BLOCK, side: ListSide = ListSide.CALLED
) -> NumberList:
    builder = ListBuilder(ListHead(name, kind=kind, side=side))
    builder.add(patterns)
    return builder.build()


def test_the_longest_number_is_found_and_longer_ones_by_prefix_only() -> None:
    numbers = compiled("4" * 15, "49*")
    assert numbers.match("4" * 15) == Match(16, "4" * 15)
    assert numbers.match("4" * 16) is None
    assert numbers.match("49" + "1" * 14) == Match(2, "49*")


def test_what_names_more_digits_goes_before_what_names_fewer() -> None:
    numbers = compiled("49*", "4990?5*", "4990?55")
    assert numbers.match("4990155") == Match(6, "4990?55")
    assert numbers.match("49901555") == Match(5, "4990?5*")
    assert numbers.match("49901655") == Match(2, "49*")


def test_a_list_takes_eight_bytes_an_entry() -> None:
    assert compiled("4930123", "4930124", "493012", "49*", "49?1").size_bytes == 4 * 8


def test_one_kind_of_wildcards_more_is_too_many() -> None:
    shapes = [f"49{'1' * at}{end}" for end in ("?", "?*", "??") for at in range(11)]
    compiled(*shapes[:SHAPES_MAX])
    compiled(*shapes[:SHAPES_MAX], shapes[0].replace("49", "44"))
    with pytest.raises(TooManyShapes):
        compiled(*shapes[: SHAPES_MAX + 1])
    assert shape_of("4990?555*") == "0000?000*"


# ------------------------------------------------------------------ several lists


def found(*lists: NumberList, number: str = "49301234", side: ListSide = ListSide.CALLED) -> tuple[str, ListKind]:
    """The list that decides, and what it says; they are looked at in this order."""
    hit = Lists.of(lists, Listings()).find([one.head.name for one in lists], number, side)
    assert hit is not None
    return hit.list, hit.kind


def test_the_entry_that_names_most_decides_whatever_the_order() -> None:
    block, allow = compiled("4930*"), compiled("49*", name="friends", kind=ListKind.ALLOW)
    assert found(block, allow) == found(allow, block) == ("one", ListKind.BLOCK)
    precise = compiled("49301234", name="friends", kind=ListKind.ALLOW)
    assert found(block, precise) == found(precise, block) == ("friends", ListKind.ALLOW)


def test_of_entries_that_name_as_much_one_that_allows_decides_and_else_the_first() -> None:
    block, allow = compiled("4930*"), compiled("4930*", name="friends", kind=ListKind.ALLOW)
    assert found(block, allow) == found(allow, block) == ("friends", ListKind.ALLOW)
    assert found(block, compiled("4930*", name="two")) == ("one", ListKind.BLOCK)
    assert found(allow, compiled("4930*", name="family", kind=ListKind.ALLOW)) == ("friends", ListKind.ALLOW)


def test_names_may_come_one_by_one() -> None:
    lists = Lists.of([compiled("4930*", side=ListSide.CALLING)], Listings())
    hit = lists.verdict(iter(["one"]), OWN, REALM, ALICE, "331", "49301234", UnixS(0.0))
    assert hit is not None
    assert (hit.list, hit.side) == ("one", ListSide.CALLING)


# ------------------------------------------------------------------ listed for a time


def listed(
    number: str = "4930", name: str = DYNAMIC, account: UUID | None = None, since_s: float = 0.0, until_s: float = 100.0
) -> Listed:
    side = ListSide.CALLED if account is None else ListSide.CALLING
    return Listed(name, REALM, side, number, account, "failing", "often", since_s, until_s)


def test_there_is_one_listing_of_a_number_for_each_list_and_owner() -> None:
    assert listed().key == (DYNAMIC, "called", REALM, "4930")
    assert listed(account=ALICE).key == (DYNAMIC, "calling", str(ALICE), "4930")


def test_all_that_hold_are_shown_the_oldest_first() -> None:
    listings = Listings()
    late, early = listed("4931", since_s=5.0), listed("4930", since_s=1.0, account=ALICE)
    for one in (late, early, listed("4932", until_s=50.0), listed("4930", SMART, since_s=2.0, account=ALICE)):
        assert listings.put(one)
    assert [(one.number, one.since_s) for one in listings.all(UnixS(50.0))] == [
        ("4930", 1.0), ("4930", 2.0), ("4931", 5.0)
    ]  # fmt: skip
    assert listings.all(UnixS(100.0)) == []


@pytest.mark.parametrize(
    ("known", "asked", "holds"),
    [
        (listed(), listed(), True),
        (listed(), listed("4931"), False),
        (listed(), listed(name=SMART), True),
        (listed(name=SMART), listed(), True),
        (listed(name="other"), listed(), False),
        (listed(until_s=50.0), listed(), False),
        (listed(), replace(listed(), account_id=ALICE), True),
        (replace(listed(), account_id=ALICE), listed(), False),
        (replace(listed(), account_id=ALICE), replace(listed(), account_id=ALICE), True),
        (listed(), listed(account=ALICE), False),
        (listed(account=ALICE), listed(account=ALICE), True),
        (listed(account=ALICE), replace(listed(), account_id=ALICE), False),
    ],
    ids=[
        "itself", "another number", "on one list", "on the other", "on one that does not hold", "no longer",
        "for all of the realm", "for one account", "for that account", "called, not calling", "calling",
        "calling, not called",
    ],
)  # fmt: skip
def test_a_number_is_not_listed_again_for_calls_that_are_refused_already(
    known: Listed, asked: Listed, holds: bool
) -> None:
    listings = Listings()
    listings.put(known)
    assert listings.holds(asked, {DYNAMIC, SMART}, UnixS(50.0)) is holds


@pytest.mark.parametrize("account", [None, ALICE])
def test_a_number_on_two_lists_stays_on_one_when_the_other_is_lifted(account: UUID | None) -> None:
    listings = Listings()
    for name in (DYNAMIC, SMART):
        listings.put(listed(name=name, account=account))

    def holds() -> list[bool]:
        return [
            (
                listings.called(REALM, "4930", {name}, UnixS(0.0))
                if account is None
                else listings.calling(account, "4930", {name}, UnixS(0.0))
            )
            is not None
            for name in (DYNAMIC, SMART)
        ]

    assert (holds(), len(listings)) == ([True, True], 2)
    listings.remove(listed(account=account))
    assert (holds(), len(listings)) == ([False, True], 1)
    listings.remove(listed(account=account))
    assert len(listings) == 1, "lifted once"
    listings.remove(listed(name=SMART, account=account))
    assert (holds(), len(listings)) == ([False, False], 0)
    assert listings.calling(BOB, "4930", OWN, UnixS(0.0)) is None
