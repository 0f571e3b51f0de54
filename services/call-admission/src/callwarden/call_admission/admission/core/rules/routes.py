"""Calls without a proper price, and routes that cost more than they bring or than policy allows."""

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.calls import Quote, Route
from callwarden.call_admission.model.number_plan import country_code_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.money import format_amount
from callwarden.kernel.tariff import Price, cost
from callwarden.kernel.verdict import Mode, Reason, RuleResult

MINUTE_S = 60
"""Costs are compared as those of a first minute, connect fee and minimum included."""


def minute_micros(price: Price, at_s: float) -> int:
    return cost(price, at_s, MINUTE_S)


class BillingRule(AdmissionRule):
    """Levels, each with those before it. 1: the account's price list has a price (without one no call is placed, see
    `rate`). 2: for the very prefix that the call is routed by, not a larger one around it. 3: by the account's own
    list. 4: by a prefix that names at least the country. 5: the reseller's list has a price, too."""

    name = "billing"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        quote, account, level = snapshot.quote, snapshot.account, policy.not_billed
        if quote is None:
            return skipped(self.name, mode, "local call")
        if not isinstance(quote, Quote):
            return skipped(self.name, mode, "no price")
        text = ""
        if not quote.exact:
            text = (
                f"Price list {quote.deck} prices this number by +{quote.prefix}, but it is routed by a longer prefix."
            )
        elif level >= 3 and quote.deck != account.deck:
            text = f"Price list {quote.deck} isn't the account's own."
        elif level >= 4 and len(quote.prefix) < len(country_code_of(question.destination)):
            text = f"Price list {quote.deck} prices this number by +{quote.prefix}, which is no country's."
        elif level >= 5 and account.parent is not None and not quote.parent_priced:
            text = "The price list of the account's reseller has no price for this number."
        if not text:
            return passed(self.name, mode)
        return refused(
            self.name, mode, Reason.NOT_BILLED, text, counter="level", value=level, window=f"+{quote.prefix}"
        )

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.not_billed >= 2 else "off by policy"


class ProfitRule(AdmissionRule):
    """Levels. 1: a route that costs more than the price isn't taken. 2: nor one that costs as much. 3: nor one of which
    the cost is unknown; one in another currency than the price counts as such. `value` is the least cost of a minute,
    `limit` its price."""

    name = "profit"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        quote, level = snapshot.quote, policy.not_profitable
        if quote is None:
            return skipped(self.name, mode, "local call")
        if not isinstance(quote, Quote):
            return skipped(self.name, mode, "no price")
        at_s = question.answers[0]
        price_micros = minute_micros(quote.price, at_s)
        most_micros = price_micros if level < 2 else price_micros - 1
        left, cheapest = _cheaper(quote, most_micros, at_s, quote.price.currency, unknown=level < 3)
        if left is None:
            return _shown(self.name, mode, cheapest, price_micros)
        if left:
            finding = _shown(self.name, mode, cheapest, price_micros)
            finding.routes = left
            return finding
        currency = quote.price.currency
        if cheapest is None:
            text = "The cost of the routes to this number is unknown."
        else:
            text = (
                f"No route brings more than it costs: a minute is sold for {format_amount(price_micros, currency)} "
                f"and costs {format_amount(cheapest, currency)} or more."
            )
        return refused(
            self.name, mode, Reason.NOT_PROFITABLE, text,
            counter="cost", value=cheapest or 0, limit=price_micros, window="call",
        )  # fmt: skip

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.not_profitable else "off by policy"


class CostRule(AdmissionRule):
    """No route whose minute costs more than policy's limit. A cost that is unknown, or in another currency than the
    account's, isn't compared: spec.billing.blockNotProfitable 3 refuses those."""

    name = "cost"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        quote, limit = snapshot.quote, policy.minute_cost_micros_max
        if quote is None:
            return skipped(self.name, mode, "local call")
        if not isinstance(quote, Quote):
            return skipped(self.name, mode, "no price")
        currency = snapshot.account.currency
        left, cheapest = _cheaper(quote, limit, question.answers[0], currency, unknown=True)
        if left is None:
            return _shown(self.name, mode, cheapest, limit)
        if left:
            finding = _shown(self.name, mode, cheapest, limit)
            finding.routes = left
            return finding
        assert cheapest is not None  # one of unknown cost would be left
        text = (
            f"Every route costs {format_amount(cheapest, currency)} a minute or more; "
            f"{format_amount(limit, currency)} are allowed."
        )
        return refused(
            self.name, mode, Reason.ROUTE_COST, text, counter="cost", value=cheapest, limit=limit, window="call"
        )

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.minute_cost_micros_max else "no limit"


def _cheaper(
    quote: Quote, most_micros: int, at_s: float, currency: str, *, unknown: bool
) -> tuple[tuple[Route, ...] | None, int | None]:
    """The routes whose minute costs no more (None: all of them), and the least that any costs (None: all are unknown).
    `unknown`: whether a route of which the cost isn't known is left."""
    left, cheapest = [], None
    for route in quote.routes:
        if route.cost is None or route.cost.currency != currency:
            if unknown:
                left.append(route)
            continue
        micros = minute_micros(route.cost, at_s)
        cheapest = micros if cheapest is None else min(cheapest, micros)
        if micros <= most_micros:
            left.append(route)
    return (None if len(left) == len(quote.routes) else tuple(left)), cheapest


def _shown(rule: str, mode: Mode, cheapest: int | None, limit: int) -> RuleFinding:
    return RuleFinding(RuleResult(rule, mode, None, "cost", cheapest or 0, limit, "call"))
