"""Numbers that are on a list: the policy's and the account's fixed lists, those of the trunk that a call comes in by or
would go out by, and those that make themselves."""

from datetime import UTC, datetime

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.calls import Quote
from callwarden.call_admission.model.lists import Hit, ListKind, Lists, ListSide, digits_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Mode, Reason, RuleResult


class NumberListsRule(AdmissionRule):
    """Of all entries that fit a number the one that names most of it decides; an allow list spares its numbers from the
    lists that make themselves, too. `counter` is the side, `window` the list and its entry. A route whose trunk has a
    list that blocks isn't taken; the call is refused where none is left."""

    name = "lists"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        listing = snapshot.listing
        if listing is None:
            return skipped(self.name, mode, "running call")
        lists = listing.lists
        names = policy.lists + snapshot.account.lists if snapshot.account.lists else policy.lists
        if snapshot.trunk is not None:
            names += lists.of_trunk.get(snapshot.trunk.name, ())
        if not names and not lists.of_trunk and not (policy.own_lists and len(lists.listings)):
            return skipped(self.name, mode, "no list")
        called = "" if question.local else question.destination  # A local user's name may look like a number.
        calling = digits_of(listing.calling)
        hit = lists.verdict(
            names, policy.own_lists, snapshot.account.realm, snapshot.account.id, called, calling, snapshot.unix_s
        )
        if hit is not None:
            return self._refused(hit, mode, snapshot.unix_s)
        if lists.of_trunk and isinstance(snapshot.quote, Quote):
            return self._by_trunks(lists, snapshot.quote, called, calling, mode, snapshot.unix_s)
        return passed(self.name, mode)

    def _by_trunks(
        self, lists: Lists, quote: Quote, called: str, calling: str, mode: Mode, unix_s: UnixS
    ) -> RuleFinding:
        left = []
        blocked: Hit | None = None
        for route in quote.routes:
            hit = _of_trunk(lists, route.trunk, called, calling)
            if hit is None:
                left.append(route)
            else:
                blocked = blocked or hit
        if blocked is None:
            return passed(self.name, mode)
        if not left:
            return self._refused(blocked, mode, unix_s)
        return RuleFinding(RuleResult(self.name, mode), routes=tuple(left))

    def _refused(self, hit: Hit, mode: Mode, unix_s: UnixS) -> RuleFinding:
        reason = Reason.DESTINATION if hit.side is ListSide.CALLED else Reason.CALLER_LISTED
        side, entry = hit.side.value, _shown(hit.pattern)
        if hit.until_s:
            until = datetime.fromtimestamp(hit.until_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            text = f"The {side} number is on list {hit.list} until {until}: {hit.evidence}."
            retry_after_s = max(1, int(hit.until_s - unix_s))
        else:
            text = f"The {side} number is on list {hit.list} (entry {entry})."
            retry_after_s = 0
        return refused(
            self.name, mode, reason, text, counter=side, window=f"{hit.list} {entry}", retry_after_s=retry_after_s
        )


def _of_trunk(lists: Lists, trunk: str, called: str, calling: str) -> Hit | None:
    names = lists.of_trunk.get(trunk)
    if names:
        for digits, side in ((called, ListSide.CALLED), (calling, ListSide.CALLING)):
            hit = lists.find(names, digits, side)
            if hit is not None and hit.kind is ListKind.BLOCK:
                return hit
    return None


def _shown(pattern: str) -> str:
    return f"+{pattern}"
