"""The limits that are raced for: what sets each, how many calls fit, what refuses the others. `racing` runs them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from callwarden.kernel.money import format_amount

SECOND_MICROS: Final = 1_000  # the deck's 0.06 a minute
SLICE_S: Final = 10
SLICE_MICROS: Final = SLICE_S * SECOND_MICROS


@dataclass(frozen=True, slots=True)
class Race:
    """One limit."""

    name: str
    """Of the row, its realm and its policy."""
    settings: tuple[str, ...]
    """Rows of the settings catalogue."""
    fits: int
    after_unanswered: int
    after_talk: int
    reason: str
    rule: str
    counter: str
    value: int
    limit: int
    window: str = "now"
    """How it begins."""
    value_after_talk: int | None = None
    """Where it isn't the same."""
    seconds: int | None = None
    """Talk time that fits in all, where shards' parts of it may be shorter than a slice: `fits` calls then at least."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    reseller: Mapping[str, Any] | None = None
    """Limits of a reseller, whose accounts (SIBLINGS of them) the calls are spread over."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    credit_micros: int = 10**12
    reseller_credit_micros: int | None = None
    """Of a prepaid reseller."""
    last_month: bool = False
    """The account has called last month."""
    carrier: Mapping[str, Any] | None = None
    """Limits of a carrier that no other row's calls go by."""
    in_a_moment: bool = False
    """What fits is there again a second later (run_for_seconds): it can't be raced for while processes die."""
    general: Mapping[str, Any] | None = None
    """Policy for all realms. It limits other rows' calls, too: nothing else may call meanwhile."""


RACES: Final = [
    Race(
        "lines-of-the-account",
        ("maxlines",),
        fits=5,
        after_unanswered=5,
        after_talk=5,
        reason="lines",
        rule="lines",
        counter="calls",
        value=5,
        limit=5,
        limits={"max_lines": 5},
    ),
    Race(
        "lines-of-the-policy",
        ("maxlines",),
        fits=3,
        after_unanswered=3,
        after_talk=3,
        reason="lines",
        rule="lines",
        counter="calls",
        value=3,
        limit=3,
        spec={"lines": {"max": 3}},
    ),
    Race(
        "credit",
        ("credit",),
        fits=7,
        after_unanswered=7,
        after_talk=0,
        reason="credit",
        rule="credit",
        counter="credit",
        value=0,
        limit=SECOND_MICROS,
        window="call",
        credit_micros=7 * SLICE_MICROS,
    ),
    Race(
        # The last slice is cut to what is left, to the second.
        "credit-for-a-part-of-a-slice",
        ("credit",),
        fits=8,
        after_unanswered=8,
        after_talk=0,
        reason="credit",
        rule="credit",
        counter="credit",
        value=999,
        limit=SECOND_MICROS,
        window="call",
        credit_micros=7 * SLICE_MICROS + 3 * SECOND_MICROS + 999,
    ),
    Race(
        "daily-spend-of-the-account",
        ("maxdailycreditperuser",),
        fits=4,
        after_unanswered=4,
        after_talk=0,
        reason="daily-spend",
        rule="daily_spend",
        counter="spent",
        value=4 * SLICE_MICROS,
        limit=4 * SLICE_MICROS,
        window="day ",
        limits={"daily_micros": 4 * SLICE_MICROS},
    ),
    Race(
        "daily-spend-of-endusers",
        ("maxdailycreditforenduser",),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="daily-spend",
        rule="daily_spend",
        counter="spent",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="day ",
        spec={"spend": {"daily": {"endUser": format_amount(6 * SLICE_MICROS)}}},
    ),
    Race(
        "daily-spend-of-traffic-senders",
        ("maxdailycreditforts",),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="daily-spend",
        rule="daily_spend",
        counter="spent",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="day ",
        spec={"spend": {"daily": {"trafficSender": format_amount(6 * SLICE_MICROS)}}},
        account={"type": "traffic-sender", "prepaid": False},
    ),
    Race(
        "lines-off-peak",
        ("maxlinesoffpeak",),
        fits=4,
        after_unanswered=4,
        after_talk=4,
        reason="lines",
        rule="lines",
        counter="calls",
        value=4,
        limit=4,
        window="now (off-peak)",
        spec={"lines": {"max": 1_000, "maxOffPeak": 4, "peakHours": "Mon-Sun 00:00-01:00"}},
    ),
    Race(
        "monthly-spend",
        ("maxmonthlycredit", "creditcheckforpostp"),
        fits=5,
        after_unanswered=5,
        after_talk=0,
        reason="monthly-spend",
        rule="monthly_spend",
        counter="spent",
        value=5 * SLICE_MICROS,
        limit=5 * SLICE_MICROS,
        window="month ",
        account={"prepaid": False},
        limits={"monthly_micros": 5 * SLICE_MICROS},
    ),
    Race(
        "dynamic-daily-spend",
        ("checkmaxdyndailycredit", "maxdyndailycreditforenduser_min"),
        fits=5,
        after_unanswered=5,
        after_talk=0,
        reason="daily-spend",
        rule="dynamic_daily",
        counter="spent",
        value=5 * SLICE_MICROS,
        limit=5 * SLICE_MICROS,
        window="day ",
        spec={"spend": {"dynamicDaily": {"mode": 1, "floorEndUser": format_amount(5 * SLICE_MICROS)}}},
    ),
    Race(
        "talk-time-of-a-day",
        ("calcmaxsl",),
        fits=5,
        after_unanswered=5,
        after_talk=0,
        reason="talk-time",
        rule="talk_time",
        counter="talk",
        value=5 * SLICE_S,
        limit=5 * SLICE_S,
        window="day ",
        limits={"talk_day_s": 5 * SLICE_S},
    ),
    Race(
        "talk-time-of-a-month",
        ("calcmaxsl",),
        fits=5,
        after_unanswered=5,
        after_talk=0,
        reason="talk-time",
        rule="talk_time",
        counter="talk",
        value=5 * SLICE_S,
        limit=5 * SLICE_S,
        window="month ",
        limits={"talk_month_s": 5 * SLICE_S},
    ),
    Race(
        "calls-of-an-address",
        ("maxcallperip",),
        fits=6,
        after_unanswered=0,
        after_talk=0,
        reason="address-quota",
        rule="address_calls",
        counter="calls",
        value=6,
        limit=6,
        window="24 h",
        spec={"callsPerAddress": {"maxCalls": 6}},
    ),
    Race(
        "talk-time-of-an-address",
        ("maxdurationperip",),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="address-quota",
        rule="address_duration",
        counter="talk",
        value=6 * SLICE_S,
        limit=6 * SLICE_S,
        window="24 h",
        spec={"callsPerAddress": {"maxDuration": f"{6 * SLICE_S}s"}},
    ),
    Race(
        "cost-of-an-address",
        ("maxcostperip",),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="address-quota",
        rule="address_cost",
        counter="spent",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="24 h",
        spec={"callsPerAddress": {"maxCost": format_amount(6 * SLICE_MICROS)}},
    ),
    Race(
        "lines-of-a-reseller",
        (),
        fits=5,
        after_unanswered=5,
        after_talk=5,
        reason="reseller-quota",
        rule="reseller_lines",
        counter="calls",
        value=5,
        limit=5,
        reseller={"max_lines": 5},
    ),
    Race(
        "daily-spend-of-a-reseller",
        (),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="reseller-quota",
        rule="reseller_spend",
        counter="spent",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="day ",
        reseller={"daily_micros": 6 * SLICE_MICROS},
    ),
    Race(
        "monthly-spend-of-a-reseller",
        (),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="reseller-quota",
        rule="reseller_spend",
        counter="spent",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="month ",
        reseller={"monthly_micros": 6 * SLICE_MICROS},
    ),
    Race(
        "credit-of-a-reseller",
        (),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="reseller-quota",
        rule="reseller_spend",
        counter="credit",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="credit",
        reseller={},
        reseller_credit_micros=6 * SLICE_MICROS,
    ),
    Race(
        "monthly-growth",
        ("maxmonthlycreditinc",),
        fits=5,
        after_unanswered=5,
        after_talk=0,
        reason="monthly-spend",
        rule="monthly_spend",
        counter="spent",
        value=5 * SLICE_MICROS,
        limit=5 * SLICE_MICROS,
        window="month ",
        account={"prepaid": False},
        limits={"monthly_micros": 3 * SLICE_MICROS, "monthly_increment_micros": 2 * SLICE_MICROS},
        last_month=True,
    ),
    Race(
        "talk-time-of-a-carrier",
        ("maxslperday",),
        fits=5,
        after_unanswered=5,
        after_talk=0,
        reason="talk-time",
        rule="carrier_talk_time",
        counter="talk",
        value=5 * SLICE_S,
        limit=5 * SLICE_S,
        window="day ",
        carrier={"talk_day_s": 5 * SLICE_S},
    ),
    *(
        Race(
            f"calls-per-second-of-{name}",
            settings,
            fits=5,
            after_unanswered=0,
            after_talk=0,
            reason="rate",
            rule=rule,
            counter="calls",
            value=5,
            limit=5,
            window="1 s",
            in_a_moment=True,
            **more,
        )
        for name, settings, rule, more in (
            ("an-account", (), "calls_per_second", {"limits": {"max_per_second": 5}}),
            ("four-shards", (), "calls_per_second", {"limits": {"max_per_second": 5}, "account": {"shards": 4}}),
            ("a-realm", ("licensecfg",), "realm_rate", {"spec": {"system": {"perRealm": {"maxCallsPerSecond": 5}}}}),
        )
    ),
    Race(
        "ceiling-of-the-system",
        ("licensecfg",),
        fits=5,
        after_unanswered=5,
        after_talk=5,
        reason="ceiling",
        rule="system_calls",
        counter="calls",
        value=5,
        limit=5,
        general={"system": {"maxCalls": 5}},
    ),
    Race(
        "ceiling-of-a-realm",
        ("licensecfg",),
        fits=5,
        after_unanswered=5,
        after_talk=5,
        reason="ceiling",
        rule="realm_calls",
        counter="calls",
        value=5,
        limit=5,
        spec={"system": {"perRealm": {"maxCalls": 5}}},
    ),
    Race(
        "velocity-at-once",
        (),
        fits=4,
        after_unanswered=4,
        after_talk=4,
        reason="velocity",
        rule="velocity",
        counter="at_once",
        value=4,
        limit=4,
        window="",
        spec={"fraud": {"velocity": [{"name": "germany", "prefixes": ["49"], "critical": {"atOnce": 4}}]}},
    ),
    Race(
        "velocity-total",
        (),
        fits=7,
        after_unanswered=0,
        after_talk=0,
        reason="velocity",
        rule="velocity",
        counter="total",
        value=7,
        limit=7,
        window="",
        spec={"fraud": {"velocity": [{"name": "germany", "prefixes": ["49"], "critical": {"total": 7}}]}},
    ),
    Race(
        "velocity-of-spend",
        (),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="velocity",
        rule="velocity",
        counter="spend",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="germany ",
        spec={
            "fraud": {
                "velocity": [
                    {"name": "germany", "prefixes": ["49"], "critical": {"spend": format_amount(6 * SLICE_MICROS)}}
                ]
            }
        },
    ),
    *(
        race
        for shards in (4, 16)  # Of sixteen, most have no part of the limit of their own.
        for race in (
            Race(
                f"lines-over-{shards}-shards",
                ("maxlines",),
                fits=5,
                after_unanswered=5,
                after_talk=5,
                reason="lines",
                rule="lines",
                counter="calls",
                value=5,
                limit=5,
                limits={"max_lines": 5},
                account={"shards": shards},
            ),
            Race(
                f"credit-over-{shards}-shards",
                ("credit",),
                fits=8,
                after_unanswered=8,
                after_talk=0,
                reason="credit",
                rule="credit",
                counter="credit",
                value=999,
                limit=SECOND_MICROS,
                window="call",
                credit_micros=7 * SLICE_MICROS + 3 * SECOND_MICROS + 999,
                account={"shards": shards},
                seconds=73,
            ),
            Race(
                f"daily-spend-over-{shards}-shards",
                ("maxdailycreditperuser",),
                fits=6,
                after_unanswered=6,
                after_talk=0,
                reason="daily-spend",
                rule="daily_spend",
                counter="spent",
                value=6 * SLICE_MICROS,
                limit=6 * SLICE_MICROS,
                window="day ",
                limits={"daily_micros": 6 * SLICE_MICROS},
                account={"shards": shards},
                seconds=60,
            ),
        )
    ),
]
