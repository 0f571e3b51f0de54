"""Requests and events of a call, and the hold that represents it while it runs.

Out: deciding (decide), slicing (slices), settling (settle), and how these values travel (adapters).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from callwarden.kernel import ids
from callwarden.kernel.tariff import Price
from callwarden.kernel.verdict import Reason, Refuse, RuleResult

# Beyond what set-up or a slice takes: messages under way, clocks apart.
EXPIRY_MARGIN_S: Final = 10


@dataclass(frozen=True, slots=True)
class Route:
    """One way out: the trunk, its address and what it does to the number."""

    trunk: str
    address: str
    add_prefix: str = ""
    strip_digits: int = 0
    carrier_account_id: str = ""
    cost: Price | None = None


class Pricing(NamedTuple):
    """By what an account's calls are priced: all of the account that rating looks at. A tuple, since what rating says
    is kept by it and every call compares it."""

    deck: str
    """Its own, or where it has none its reseller's; empty: none."""
    parent_deck: str = ""
    """Its reseller's; empty: there is none."""
    realm: str = ""
    is_resellers: bool = False
    """It belongs to a reseller."""


@lru_cache(16_384)  # Accounts share them by the thousand: one for each deck, reseller's deck and realm; 0.2 KB each.
def pricing_of(deck: str, parent_deck: str | None, realm: str) -> Pricing:
    """Of an account with this deck, maybe empty. `parent_deck` None: it belongs to no reseller."""
    if parent_deck is None:
        return Pricing(deck, "", realm)
    return Pricing(deck or parent_deck, parent_deck, realm, True)


@dataclass(frozen=True, slots=True)
class Quote:
    """What rating says of a destination: the price by the account's deck or its reseller's, and ways to it."""

    pricing: Pricing
    prefix: str
    price: Price
    routes: tuple[Route, ...]
    valid_until_s: float
    exact: bool = True
    """The price is for the very destination that is routed, not for a larger one around it."""
    parent_priced: bool = False
    """The price list of the account's reseller has a price, too."""
    is_free: bool = field(init=False)
    """Known once for all calls that the quote serves, as what follows."""
    costs: "tuple[RouteCost, ...]" = field(init=False)
    """Of each route; none, if no carrier and no cost is known."""
    carriers: tuple[UUID, ...] = field(init=False)

    @property
    def deck(self) -> str:
        """That priced it."""
        return self.pricing.deck

    def costs_of(self, routes: "tuple[Route, ...]") -> "tuple[RouteCost, ...]":
        """Of the routes that rules have left; those of all of them are known already."""
        return self.costs if routes == self.routes else costs_of(routes)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_free", is_free(self.price))
        known = any(route.carrier_account_id or route.cost is not None for route in self.routes)
        costs = costs_of(self.routes) if known else ()
        carriers = {cost.carrier_account_id for cost in costs if cost.carrier_account_id is not None}
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "carriers", tuple(sorted(carriers)))


def is_free(price: Price) -> bool:
    """Whether no call at this price can cost anything."""
    if price.maximum_micros == 0:
        return True
    weekly = price.weekly
    windows = price.windows if weekly is None else price.windows + weekly.kinds
    return not price.minimum_micros and all(
        not window.connect_fee_micros and all(not group.rate_micros for group in window.groups) for window in windows
    )


@dataclass(frozen=True, slots=True)
class NoQuote:
    """Rating's no: no-rate, no-route, or unavailable where it could not be asked."""

    pricing: Pricing
    reason: Reason

    @property
    def deck(self) -> str:
        """That was asked; empty: neither the account nor its reseller has one."""
        return self.pricing.deck


@dataclass(slots=True)
class CallRequest:
    """May this call be placed? As the edge asks. Not frozen: one is made for each call (0.4 instead of 1.3 µs).

    `start_s` is the start of the call, seconds since 1970 UTC; a hold has no more than one request.
    """

    hold_id: UUID
    call_id: str
    account_id: UUID
    destination: str
    dialled: str
    caller_number: str
    source_address: str
    edge: str
    local: bool
    start_s: float
    trace_id: str = ""
    trunk: str = ""
    """By which it came in; empty: a registered user's call."""


@dataclass(slots=True)
class ExtendRequest:
    """May this running call go on? `granted_s` is what the edge knows to be granted already."""

    hold_id: UUID
    call_id: str
    account_id: UUID
    answered_at_s: float
    granted_s: int
    trace_id: str = ""


@dataclass(slots=True)
class Started:
    """The callee has answered."""

    hold_id: UUID
    account_id: UUID
    answered_at_s: float
    trunk: str


@dataclass(slots=True)
class Ended:
    """The call is over. `answered_at_s` None: not answered, or not known to the edge that tells."""

    hold_id: UUID
    account_id: UUID
    answered_at_s: float | None
    ended_at_s: float
    reason: str
    sip_status: int
    """Of a call that wasn't answered; below 300: it was."""
    trunk: str
    edge: str = ""
    """The edge that tells; empty: not known."""


@dataclass(slots=True)
class Expired:
    """The reaper found a hold past its time: it lapses."""

    hold_id: UUID
    account_id: UUID


@dataclass(slots=True)
class Unclaimed:
    """Whatever was told of a lapsed hold's call has been heard, and its end was not among it."""

    hold_id: UUID
    account_id: UUID


class LimitScope(NamedTuple):
    """A counter that a call is counted in, in addition to its account's own row."""

    kind: str
    """See usage.OWNERS; "account": the account is sharded."""
    scope: UUID
    shard: int


class RouteCost(NamedTuple):
    """Who would be paid for the call if it goes out by this trunk, and how much."""

    trunk: str
    carrier_account_id: UUID | None
    cost: Price | None


def costs_of(routes: tuple[Route, ...]) -> tuple[RouteCost, ...]:
    return tuple(RouteCost(route.trunk, ids.parse(route.carrier_account_id), route.cost) for route in routes)


class HoldStage(IntEnum):
    """What has become of a hold, as it is stored."""

    RUNNING = 0
    LAPSED = 1
    """It has expired: no line and no money is counted for it any more. Its end may be under way."""
    RECORDED = 2
    """Its call record says "expired". An end that comes all the same corrects it."""
    CLOSED = 3
    """Its end was told before it was placed: its admission was under way for longer than its edge waited. It counts
    nothing and has no record; it keeps that admission from placing a hold that nothing would end."""


@dataclass(slots=True)
class Hold:
    """One line and the money for `granted_s` seconds of talk, until `expires_at_s`.

    A value: it isn't changed, another one is made. Not frozen, because that costs 2 µs each time.
    """

    id: UUID
    account_id: UUID
    created_at_s: float
    answered_at_s: float | None
    expires_at_s: float
    granted_s: int
    max_duration_s: int
    final: bool
    held_micros: int
    spend_day: date
    price: Price
    trunk: str
    marks: tuple[str, ...] = ()
    """Velocity rules that the call was counted under (rules.velocity.marks): its end is counted under the same."""
    scopes: tuple[LimitScope, ...] = ()
    """Where else it is counted: it ends where it began, whatever policy says then."""
    costs: tuple[RouteCost, ...] = ()
    """By trunk; none of routes whose carrier and cost are unknown."""
    limits_hit: tuple[str, ...] = ()
    """Rules that have left less than a whole slice, refused it more time, or would have if they were enforced."""
    stage: HoldStage = HoldStage.RUNNING
    edge: str = ""
    """The one that asked for it."""

    def of_trunk(self, trunk: str) -> RouteCost | None:
        """Who is paid for the call, which went out by this trunk."""
        trunk = trunk or self.trunk
        for cost in self.costs:
            if cost.trunk == trunk:
                return cost
        return None

    def left_of(self, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        """The routes that the call was admitted to, as far as they are among these, which are quoted now."""
        if not self.costs:
            return routes
        trunks = {cost.trunk for cost in self.costs}
        return tuple(route for route in routes if route.trunk in trunks)

    def granted(
        self, at_s: float, granted_s: int, held_micros: int, trunk: str, grace_s: int, *, final: bool
    ) -> "Hold":
        """The hold of an answered call: it lasts to the end of what is granted. The first known answer stays.

        Written out: dataclasses.replace() costs 5 µs.
        """
        answered_at_s = at_s if self.answered_at_s is None else self.answered_at_s
        return Hold(
            self.id, self.account_id, self.created_at_s, answered_at_s,
            answered_at_s + granted_s + grace_s + EXPIRY_MARGIN_S, granted_s, self.max_duration_s, final, held_micros,
            self.spend_day, self.price, trunk, self.marks, self.scopes, self.costs, self.limits_hit, self.stage,
            self.edge,
        )  # fmt: skip

    def hit(self, rules: Sequence[str]) -> "Hold":
        """The hold with these rules added to its `limits_hit`."""
        return replace(self, limits_hit=tuple(dict.fromkeys((*self.limits_hit, *rules))))

    def without(self) -> "Hold":
        """The same call with nothing granted or held: what it leaves to be asked for while it is decided again."""
        return Hold(
            self.id, self.account_id, self.created_at_s, self.answered_at_s, self.expires_at_s, 0, self.max_duration_s,
            self.final, 0, self.spend_day, self.price, self.trunk, self.marks, self.scopes, self.costs, self.limits_hit,
            self.stage, self.edge,
        )  # fmt: skip


@dataclass(slots=True)
class Decision:
    """What was decided about a call, with every rule: what `explain` shows. A value, as Hold is."""

    at_s: float
    outcome: str
    """"admit", "refuse", "extend" or "cut"."""
    refused: Refuse | None
    rules: tuple[RuleResult, ...]
    policy_revision: int
    account: str = ""
    source_address: str = ""
    trace_id: str = ""
    sip_status: int = 0
    """What policy wants a refusal for money to be answered with; 0: the edge's table decides."""
    cut_by: str = ""
    """The rule that has left less talk time than a whole slice."""
