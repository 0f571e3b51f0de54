"""Satellite and other non-geographic networks that cost several units a minute."""

from typing import Final

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.verdict import Mode, Reason

# ITU-T E.164 annex (list of assigned country codes): 870 Inmarsat SNAC, 881 Global Mobile Satellite System,
# 882 and 883 International Networks, where satellite operators have ranges among others.
SATELLITE_CODES: Final = frozenset({"870", "881", "882", "883"})


class SatelliteRule(AdmissionRule):
    name = "satellite"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        if question.local:
            return skipped(self.name, mode, "local call")
        code = question.destination[:3]
        if code not in SATELLITE_CODES:
            return passed(self.name, mode)
        return refused(self.name, mode, Reason.SATELLITE, "The number is in a satellite network.", window=f"+{code}")

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.block_satellite else "not blocked by policy"
