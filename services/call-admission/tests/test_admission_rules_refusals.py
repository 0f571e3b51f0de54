"""What a caller's operator is told of each rule that refuses: what was counted against which limit, in which window,
and in which words."""

from dataclasses import replace

import pytest
from admission_asked import (
    BERLIN,
    DAY_WINDOW,
    MONTH_WINDOW,
    NOWHERE,
    PARIS,
    Asked,
    billed,
    by_carriers,
    by_trunk,
    costing,
    running,
    spent,
    to,
    unpriced,
)
from admission_line import (
    RESELLER_ID,
    Line,
    account,
    counted,
    policy,
    postpaid,
    priced,
    quote,
    refusal,
    reseller,
    result,
)

from callwarden.call_admission.model.calls import Pricing
from callwarden.call_admission.model.scopes import REALM, RESELLER, SYSTEM
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult

NO_PREFIX = "Calls are allowed to listed prefixes only, and this isn't one."
OWN_COUNTRY = "Calls are allowed to the account's own country"
NO_ROUTE = "No route leads to this number."


def destination(text: str, counter: str, window: str) -> Refuse:
    return Refuse(Reason.DESTINATION, "destinations", counter, window=window, text=text)


REFUSED: dict[str, tuple[Asked, Refuse]] = {
    "disabled account": (
        Asked(postpaid(active=False)),
        Refuse(Reason.ACCOUNT_DISABLED, "account", text="The account is disabled."),
    ),
    "disabled reseller": (
        Asked(postpaid(parent=RESELLER_ID), (counted(RESELLER, account=reseller(active=False)),)),
        Refuse(Reason.ACCOUNT_DISABLED, "account", text="The account's reseller shop is disabled."),
    ),
    "blocked prefix": (to(BERLIN, block=["4930"]), destination("Calls to +4930 are blocked.", "prefix", "+4930")),
    "prefix blocked and allowed": (
        to(BERLIN, block=["4930"], allow=["4930"]), destination("Calls to +4930 are blocked.", "prefix", "+4930"),
    ),
    "no allowed prefix": (to(BERLIN, allow=["33"]), destination(NO_PREFIX, "prefix", "")),
    "no allowed prefix beside blocked countries": (
        to(BERLIN, allow=["33"], blockCountries=["CU"]), destination(NO_PREFIX, "prefix", ""),
    ),
    "blocked country": (to(PARIS, blockCountries=["FR"]), destination("Calls to FR are blocked.", "country", "FR")),
    "no allowed country": (
        to(PARIS, allowCountries=["DE"]),
        destination("Calls are allowed to listed countries only, and this goes to FR.", "country", "FR"),
    ),
    "no country at all": (
        to(NOWHERE, allowCountries=["DE"]),
        destination("Calls are allowed to listed countries only, and this goes to no known country.", "country", ""),
    ),
    "not home": (
        to(PARIS, "DE", homeOnly=True), destination(f"{OWN_COUNTRY} DE only, and this goes to FR.", "country", "FR"),
    ),
    "no home": (to(PARIS, homeOnly=True), destination(f"{OWN_COUNTRY} only, and it has none.", "country", "FR")),
    "trunk's blocked prefix": (
        by_trunk(blocked="4930"), destination("Calls by trunk pbx to +4930 are blocked.", "prefix", "pbx +4930"),
    ),
    "prefix that the trunk blocks and allows": (
        by_trunk("4930", "4930"), destination("Calls by trunk pbx to +4930 are blocked.", "prefix", "pbx +4930"),
    ),
    "no prefix of the trunk's": (
        by_trunk("33"),
        destination("Calls by trunk pbx are allowed to its listed prefixes only, and this isn't one.", "prefix", "pbx"),
    ),
    "price unavailable": (
        unpriced(Reason.UNAVAILABLE, "retail"),
        Refuse(Reason.UNAVAILABLE, "rate", window="retail", text="The price can't be found out now.", retry_after_s=5),
    ),
    "no route quoted": (
        unpriced(Reason.NO_ROUTE, "retail"), Refuse(Reason.NO_ROUTE, "rate", window="retail", text=NO_ROUTE),
    ),
    "no route left": (
        Asked(of={"quote": replace(quote(), routes=())}),
        Refuse(Reason.NO_ROUTE, "rate", window="retail", text=NO_ROUTE),
    ),
    "no rate": (
        unpriced(Reason.NO_RATE, "retail"),
        Refuse(Reason.NO_RATE, "rate", window="retail", text="The price list has no rate for this number."),
    ),
    "no price list": (
        unpriced(Reason.NO_RATE, ""),
        Refuse(Reason.NO_RATE, "rate", text="Neither the account nor a reseller of it has a price list."),
    ),
    "another currency": (
        Asked(of={"quote": quote(priced(60_000, "USD"))}),
        Refuse(Reason.NO_RATE, "rate", window="retail", text="The price is in USD, the account in EUR."),
    ),
    "billed by a larger prefix": (
        billed(2, exact=False),
        Refuse(
            Reason.NOT_BILLED, "billing", "level", 2, window="+49",
            text="Price list retail prices this number by +49, but it is routed by a longer prefix.",
        ),
    ),
    "billed by a reseller's list": (
        billed(3, pricing=Pricing("resale")),
        Refuse(
            Reason.NOT_BILLED, "billing", "level", 3, window="+49", text="Price list resale isn't the account's own.",
        ),
    ),
    "billed by less than a country": (
        billed(4, prefix="4"),
        Refuse(
            Reason.NOT_BILLED, "billing", "level", 4, window="+4",
            text="Price list retail prices this number by +4, which is no country's.",
        ),
    ),
    "not billed to the reseller": (
        billed(5, parent=RESELLER_ID),
        Refuse(
            Reason.NOT_BILLED, "billing", "level", 5, window="+49",
            text="The price list of the account's reseller has no price for this number.",
        ),
    ),
    "cost of the routes": (
        costing(70_000, 50_000, maxCostPerMinute="0.04"),
        Refuse(
            Reason.ROUTE_COST, "cost", "cost", 50_000, 40_000, "call",
            "Every route costs 0.05 EUR a minute or more; 0.04 EUR are allowed.",
        ),
    ),
    "no profit": (
        costing(90_000, 70_000, blockNotProfitable=1),
        Refuse(
            Reason.NOT_PROFITABLE, "profit", "cost", 70_000, 60_000, "call",
            "No route brings more than it costs: a minute is sold for 0.06 EUR and costs 0.07 EUR or more.",
        ),
    ),
    "unknown profit": (
        costing(None, blockNotProfitable=3),
        Refuse(
            Reason.NOT_PROFITABLE, "profit", "cost", 0, 60_000, "call",
            "The cost of the routes to this number is unknown.",
        ),
    ),
    "carriers' talk time": (
        by_carriers(3_600, 4_000),
        Refuse(
            Reason.TALK_TIME, "carrier_talk_time", "talk", 3_600, 3_600, DAY_WINDOW,
            f"Carrier a has used the 3600 s of talk that it has in {DAY_WINDOW}.",
        ),
    ),
    "system's ceiling": (
        Asked(owners=(counted(SYSTEM, running(9)),), spec={"system": {"maxCalls": 9}}),
        Refuse(
            Reason.CEILING, "system_calls", "calls", 9, 9, "now",
            "The system's ceiling of 9 calls at the same time is reached.",
        ),
    ),
    "realm's ceiling": (
        Asked(owners=(counted(REALM, running(9)),), spec={"system": {"perRealm": {"maxCalls": 9}}}),
        Refuse(
            Reason.CEILING, "realm_calls", "calls", 9, 9, "now",
            "The realm's ceiling of 9 calls at the same time is reached.",
        ),
    ),
    "reseller's lines": (
        Asked(owners=(counted(RESELLER, running(7), account=reseller(max_lines=7)),)),
        Refuse(
            Reason.RESELLER_QUOTA, "reseller_lines", "calls", 7, 7, "now",
            "All 7 lines of the account's reseller are in use.",
        ),
    ),
    "reseller's lines where policy has peak hours": (
        Asked(
            owners=(counted(RESELLER, running(7), account=reseller(max_lines=7)),),
            spec={"lines": {"peakHours": "Mon-Fri 08:00-10:00"}},
        ),
        Refuse(
            Reason.RESELLER_QUOTA, "reseller_lines", "calls", 7, 7, "now",
            "All 7 lines of the account's reseller are in use.",
        ),
    ),
    "lines": (
        Asked(postpaid(max_lines=2), of={"lines": 2}),
        Refuse(Reason.LINES, "lines", "calls", 2, 2, "now", "All 2 lines of the account are in use."),
    ),
    "no lines": (
        Asked(postpaid(max_lines=0)),
        Refuse(Reason.LINES, "lines", "calls", 0, 0, "now", "The account has no lines."),
    ),
    "lines outside peak hours": (
        Asked(spec={"lines": {"max": 9, "maxOffPeak": 2, "peakHours": "Mon-Fri 08:00-10:00"}}, of={"lines": 2}),
        Refuse(Reason.LINES, "lines", "calls", 2, 2, "now (off-peak)", "All 2 lines of the account are in use."),
    ),
    "lines in peak hours of policy's zone": (  # 13:00 in Berlin is 07:00 in New York
        Asked(
            spec={
                "lines": {"max": 2, "maxOffPeak": 9, "peakHours": "Mon-Fri 06:00-08:00", "timeZone": "America/New_York"}
            },
            of={"lines": 2},
        ),
        Refuse(Reason.LINES, "lines", "calls", 2, 2, "now", "All 2 lines of the account are in use."),
    ),
    "account's talk time of a month": (
        Asked(postpaid(talk_month_s=600), (counted(usage=spent(0, 600)),)),
        Refuse(
            Reason.TALK_TIME, "talk_time", "talk", 600, 600, MONTH_WINDOW,
            f"The account has used the 600 s of talk that it has in {MONTH_WINDOW}.",
        ),
    ),
    "reseller's day": (
        Asked(owners=(counted(RESELLER, spent(60_000), account=reseller(daily_micros=60_000)),)),
        Refuse(
            Reason.RESELLER_QUOTA, "reseller_spend", "spent", 60_000, 60_000, DAY_WINDOW,
            f"The accounts of the reseller have spent 0.06 EUR of the 0.06 EUR allowed ({DAY_WINDOW}).",
        ),
    ),
    "month": (
        Asked(postpaid(monthly_micros=60_000), (counted(usage=spent(60_000)),)),
        Refuse(
            Reason.MONTHLY_SPEND, "monthly_spend", "spent", 60_000, 60_000, MONTH_WINDOW,
            "The account has spent 0.06 EUR of the 0.06 EUR allowed in this month.",
        ),
    ),
    "day": (
        Asked(postpaid(daily_micros=60_000), of={"spent_micros": 60_000}),
        Refuse(
            Reason.DAILY_SPEND, "daily_spend", "spent", 60_000, 60_000, DAY_WINDOW,
            "The account has spent 0.06 EUR of the 0.06 EUR allowed in a day.",
        ),
    ),
    "day, by its largest": (
        Asked(postpaid(), (counted(usage=spent(10_000_000)),), {"spend": {"dynamicDaily": {"mode": 1}}}),
        Refuse(
            Reason.DAILY_SPEND, "dynamic_daily", "spent", 10_000_000, 10_000_000, DAY_WINDOW,
            "The account has spent 10.00 EUR of the 10.00 EUR allowed in a day, by what it has spent before.",
        ),
    ),
    "credit": (
        Asked(account(balance_micros=9_999), spec={"spend": {"slice": {"minimum": "10s"}}}),
        Refuse(
            Reason.CREDIT, "credit", "credit", 9_999, 10_000, "call",
            "10 s of talk cost 0.01 EUR; the account has 0.009999 EUR left.",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_what_was_counted_against_which_limit(case: str) -> None:
    asked, wanted = REFUSED[case]
    decided = asked.decided
    assert refusal(decided) == wanted
    found = result(decided, wanted.rule)
    assert found == RuleResult(
        wanted.rule, Mode.ENFORCE, wanted, wanted.counter, wanted.value, wanted.limit, wanted.window
    )


def test_an_address_that_has_cost_too_much_is_told_so() -> None:
    line = Line(postpaid(), policy(callsPerAddress={"maxCost": "0.06"}))
    line.spend(60_000)
    assert refusal(line.ask()) == Refuse(
        Reason.ADDRESS_QUOTA, "address_cost", "spent", 60_000, 60_000, "24 h",
        "Calls from the source address have spent 0.06 EUR of the 0.06 EUR allowed within 24 h.",
    )  # fmt: skip
