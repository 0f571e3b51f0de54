"""A call without a price or a route isn't placed."""

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.calls import NoQuote
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.verdict import Mode, Reason

# A rating process that died is back, or another asked, in about that time.
RETRY_AFTER_S = 5


class RateRule(AdmissionRule):
    """Always enforced: without a price no limit on money could be kept."""

    name = "rate"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        quote, account = snapshot.quote, snapshot.account
        if quote is None:
            return skipped(self.name, mode, "local call")
        if isinstance(quote, NoQuote):
            if quote.reason is Reason.UNAVAILABLE:
                text = "The price can't be found out now."
                return refused(self.name, mode, quote.reason, text, window=quote.deck, retry_after_s=RETRY_AFTER_S)
            if quote.reason is Reason.NO_ROUTE:
                return refused(self.name, mode, quote.reason, "No route leads to this number.", window=quote.deck)
            text = "The price list has no rate for this number."
            if not quote.deck:
                text = "Neither the account nor a reseller of it has a price list."
            return refused(self.name, mode, quote.reason, text, window=quote.deck)
        if quote.price.currency != account.currency:
            text = f"The price is in {quote.price.currency}, the account in {account.currency}."
            return refused(self.name, mode, Reason.NO_RATE, text, window=quote.deck)
        if not quote.routes:
            return refused(self.name, mode, Reason.NO_ROUTE, "No route leads to this number.", window=quote.deck)
        return passed(self.name, mode)
