"""Where calls may go: prefixes and countries that policy lists, the account's own country, the trunk's prefixes."""

from collections.abc import Set

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot, SourceTrunk
from callwarden.call_admission.model.number_plan import country_of
from callwarden.call_admission.model.policy import PREFIX_DIGITS_MAX, AdmissionPolicy
from callwarden.kernel.verdict import Mode, Reason


def longest_prefix(number: str, prefixes: Set[str]) -> str:
    """The longest of `prefixes` that the number begins with, or "". At most 15 look-ups, however long the list."""
    for length in range(min(len(number), PREFIX_DIGITS_MAX), 0, -1):
        if number[:length] in prefixes:
            return number[:length]
    return ""


class DestinationsRule(AdmissionRule):
    """The longer prefix wins, so that +4930 can be allowed where +49 is blocked; equal ones: block. A prefix says more
    than a country: one that is allowed is so wherever it lies. Where prefixes or countries are allowed, all others are
    not. Only home: the account's country and allowed prefixes. The trunk's own lists apply in addition."""

    name = "destinations"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        if question.local:
            return skipped(self.name, mode, "local call")
        trunk = snapshot.trunk
        if trunk is not None and not (trunk.allowed_prefixes or trunk.blocked_prefixes):
            trunk = None
        if trunk is None and not _lists(policy):
            return skipped(self.name, mode, "no list")
        refusal = self._by_policy(snapshot, question.destination, policy, mode)
        if refusal is None and trunk is not None:
            refusal = self._by_trunk(trunk, question.destination, mode)
        return refusal or passed(self.name, mode)

    def _by_policy(self, snapshot: Snapshot, number: str, policy: AdmissionPolicy, mode: Mode) -> RuleFinding | None:
        allow = longest_prefix(number, policy.allowed_prefixes)
        block = longest_prefix(number, policy.blocked_prefixes)
        if block and len(block) >= len(allow):
            return self._refused(mode, f"Calls to +{block} are blocked.", "prefix", f"+{block}")
        if allow:
            return None
        allowed, blocked, home_only = policy.allowed_countries, policy.blocked_countries, policy.home_only
        country = country_of(number) if allowed or blocked or home_only else ""
        named = country or "no known country"
        if country in blocked:
            return self._refused(mode, f"Calls to {named} are blocked.", "country", country)
        if home_only:
            home = snapshot.account.country
            if not home:
                text = "Calls are allowed to the account's own country only, and it has none."
                return self._refused(mode, text, "country", country)
            if country != home:
                text = f"Calls are allowed to the account's own country {home} only, and this goes to {named}."
                return self._refused(mode, text, "country", country)
            return None
        if allowed:
            if country in allowed:
                return None
            text = f"Calls are allowed to listed countries only, and this goes to {named}."
            return self._refused(mode, text, "country", country)
        if policy.allowed_prefixes:
            text = "Calls are allowed to listed prefixes only, and this isn't one."
            return self._refused(mode, text, "prefix", "")
        return None

    def _by_trunk(self, trunk: SourceTrunk, number: str, mode: Mode) -> RuleFinding | None:
        allow = longest_prefix(number, trunk.allowed_prefixes)
        block = longest_prefix(number, trunk.blocked_prefixes)
        if block and len(block) >= len(allow):
            text = f"Calls by trunk {trunk.name} to +{block} are blocked."
            return self._refused(mode, text, "prefix", f"{trunk.name} +{block}")
        if trunk.allowed_prefixes and not allow:
            text = f"Calls by trunk {trunk.name} are allowed to its listed prefixes only, and this isn't one."
            return self._refused(mode, text, "prefix", trunk.name)
        return None

    def _refused(self, mode: Mode, text: str, counter: str, window: str) -> RuleFinding:
        return refused(self.name, mode, Reason.DESTINATION, text, counter=counter, window=window)


def _lists(policy: AdmissionPolicy) -> bool:
    return bool(
        policy.allowed_prefixes
        or policy.blocked_prefixes
        or policy.allowed_countries
        or policy.blocked_countries
        or policy.home_only
    )
