"""The rule of number lists: whose lists hold for a call, and which routes are left where trunks have lists."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from admission_line import ROUTE, account, admission, policy, priced, quote, refusal, request, result, snapshot

from callwarden.call_admission.admission.core.decide import Evaluation, decide
from callwarden.call_admission.admission.core.snapshot import SourceTrunk
from callwarden.call_admission.model.calls import NoQuote, Pricing
from callwarden.call_admission.model.lists import (
    DYNAMIC,
    ListBuilder,
    Listed,
    ListHead,
    Listing,
    Listings,
    ListKind,
    Lists,
    ListSide,
    NumberList,
)
from callwarden.kernel.verdict import Reason

BERLIN = "493012345678"
OTHER = replace(ROUTE, trunk="other")


def compiled(
    name: str,
    *patterns: str,
    side: ListSide = ListSide.CALLED,
    trunks: tuple[str, ...] = (),
    kind: ListKind = ListKind.BLOCK,
) -> NumberList:
    builder = ListBuilder(ListHead(name, 1, kind, side, trunks=trunks))
    builder.add(patterns)
    return builder.build()


def ask(
    *lists: NumberList,
    under: tuple[str, ...] = (),
    own: tuple[str, ...] = (),
    listed: Listed | None = None,
    smart: bool = True,
    trunk: str = "",
    calling: str = "4930",
    local: bool = False,
) -> Evaluation:
    listings = Listings()
    if listed is not None:
        listings.put(listed)
    of = snapshot(
        account(lists=own),
        listing=Listing(Lists.of(lists, listings), calling),
        trunk=SourceTrunk(trunk) if trunk else None,
        quote=None if local else quote(priced(60_000), ROUTE, OTHER),
    )
    makes_itself = {"dynamicList": {"enabled": smart}, "smartList": {"enabled": smart}}
    return decide(of, request(BERLIN, local=local), policy(fraud={"lists": list(under)} | makes_itself))


@pytest.mark.parametrize(
    ("under", "own", "trunk", "refused"),
    [((), (), "", False), (("irsf",), (), "", True), ((), ("irsf",), "", True), (("more",), ("irsf",), "", True)],
)
def test_lists_of_policy_and_account_hold(
    under: tuple[str, ...], own: tuple[str, ...], trunk: str, refused: bool
) -> None:
    decided = ask(compiled("irsf", "4930*"), under=under, own=own, trunk=trunk)
    if not refused:
        admission(decided)
        return
    refuse = refusal(decided)
    assert (refuse.reason, refuse.counter, refuse.window, refuse.retry_after_s) == (
        Reason.DESTINATION, "called", "irsf +4930*", 0
    )  # fmt: skip


def test_a_trunks_list_holds_for_calls_that_come_in_by_it() -> None:
    blocked = compiled("theirs", "4930*", trunks=("pbx",))
    assert refusal(ask(blocked, trunk="pbx")).window == "theirs +4930*"
    admission(ask(blocked, trunk="branch"))
    admission(ask(blocked))


def test_a_route_whose_trunk_has_a_list_that_blocks_is_not_taken() -> None:
    decided = ask(compiled("theirs", "4930*", trunks=("carrier",)))
    assert [route.trunk for route in decided.routes] == ["other"]
    elsewhere = ask(compiled("theirs", "33*", trunks=("carrier",)))
    assert [route.trunk for route in elsewhere.routes] == ["carrier", "other"]
    by_caller = ask(compiled("theirs", "4940*", side=ListSide.CALLING, trunks=("other",)), calling="+49 40 1")
    assert [route.trunk for route in by_caller.routes] == ["carrier"]


def test_a_trunks_list_that_allows_rules_no_route_out() -> None:
    decided = ask(compiled("theirs", "4930*", trunks=("carrier",), kind=ListKind.ALLOW))
    assert [route.trunk for route in decided.routes] == ["carrier", "other"]


def test_lists_of_trunks_say_nothing_of_a_call_without_a_price() -> None:
    lists = Listing(Lists.of([compiled("theirs", "4930*", trunks=("carrier",))], Listings()), "4930")
    unpriced = snapshot(listing=lists, quote=NoQuote(Pricing("retail"), Reason.NO_RATE))
    found = result(decide(unpriced, request(BERLIN), policy()), "lists")
    assert (found.skipped, found.refused) == ("", None)


def test_a_call_with_no_route_left_is_refused_by_the_first_list() -> None:
    refuse = refusal(ask(compiled("one", "4930*", trunks=("carrier",)), compiled("two", "49*", trunks=("other",))))
    assert (refuse.reason, refuse.window) == (Reason.DESTINATION, "one +4930*")


def test_a_caller_that_is_listed_is_refused_as_such() -> None:
    decided = ask(compiled("spam", "4940*", side=ListSide.CALLING), under=("spam",), calling="004940123")
    assert (refusal(decided).reason, refusal(decided).counter) == (Reason.CALLER_LISTED, "calling")


def test_a_local_users_name_is_no_number_of_a_list() -> None:
    decided = ask(compiled("irsf", "4930*"), under=("irsf",), local=True)
    assert result(decided, "lists").refused is None
    admission(decided)


@pytest.mark.parametrize(("left_s", "retry_after_s"), [(90.5, 90), (0.5, 1)])
def test_a_number_that_is_listed_for_a_time_may_be_called_after_it(left_s: float, retry_after_s: int) -> None:
    unix_s = snapshot().unix_s
    listed = Listed(
        DYNAMIC, "example.org", ListSide.CALLED, BERLIN, None, "failing", "60 failed calls", unix_s, unix_s + left_s
    )
    refuse = refusal(ask(listed=listed))
    assert (refuse.reason, refuse.retry_after_s, refuse.window) == (
        Reason.DESTINATION, retry_after_s, f"dynamic +{BERLIN}"
    )  # fmt: skip
    until = datetime.fromtimestamp(unix_s + left_s, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    assert refuse.text == f"The called number is on list dynamic until {until} UTC: 60 failed calls."


@pytest.mark.parametrize(
    ("is_listed", "smart", "skipped"),
    [(False, True, "no list"), (True, False, "no list"), (True, True, "")],
    ids=["nothing listed", "off by policy", "another number"],
)
def test_without_a_list_that_holds_numbers_are_not_looked_at(is_listed: bool, smart: bool, skipped: str) -> None:
    unix_s = snapshot().unix_s
    other = Listed(DYNAMIC, "example.org", ListSide.CALLED, "5370", None, "failing", "9", unix_s, unix_s + 60)
    found = result(ask(listed=other if is_listed else None, smart=smart), "lists")
    assert (found.skipped, found.refused) == (skipped, None)


def test_a_local_call_goes_by_no_trunk_whose_list_could_rule_it_out() -> None:
    by_trunk = compiled("irsf", BERLIN, trunks=(ROUTE.trunk, OTHER.trunk))
    assert refusal(ask(by_trunk)).window == f"irsf +{BERLIN}"
    local = ask(by_trunk, local=True)
    admission(local)
    assert (result(local, "lists").refused, result(local, "lists").skipped) == (None, "")
