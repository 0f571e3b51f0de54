"""The policy's part of the checklist: every field with a hardened value, and what may be opened beyond the default.

The policy model alone says which fields have a hardened value, and which. This module says why each matters, how severe
a finding is, and what else can be opened. Checks are pure functions of the policies in force.
"""

import ipaddress
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from callwarden.cli.audit.finding import AuditFinding, AuditPlace, AuditRule, AuditSeverity
from callwarden.cli.yaml_lines import line_of_yaml, merged, nested
from callwarden.policy.bundle import Document, PolicySet, facts, layers_of
from callwarden.policy.fields import FieldFacts, leaves, written
from callwarden.policy.model import HARDENED, PolicySpec
from callwarden.policy.values import format_duration

Locate = Callable[[Document, str], AuditPlace]
"""Where a document says something about a field ("lines.max"), or would."""
Remedy = Callable[[Document | None], str]
"""What to do with a line for that document; None: there is no document yet."""

_LOW, _MEDIUM, _HIGH, _CRITICAL = AuditSeverity.LOW, AuditSeverity.MEDIUM, AuditSeverity.HIGH, AuditSeverity.CRITICAL

# By row of the catalogue, each that has a hardened value (tested): how bad it is when open, and why.
WHY: Final[Mapping[str, tuple[AuditSeverity, str]]] = {
    "checkrtpaddr": (_HIGH, "Anybody who guesses a media port hears the call or speaks into it."),
    "maxsubsmsgcount": (_MEDIUM, "A flood from one address goes on for longer before the address is banned."),
    "maxwrongmsgallowed": (_MEDIUM, "Fuzzers and scanners get more attempts before their address is banned."),
    "maxwrongauthfromip": (_HIGH, "So many passwords can be guessed from one address before it is banned."),
    "maxfailedauthenabledipport": (_MEDIUM, "A stolen phone's endpoint can guess so many passwords of others."),
    "maxfailedauthenabledip": (_MEDIUM, "From a customer's network so many passwords can be guessed."),
    "blockscanning_treshold": (_MEDIUM, "Who tries extensions one by one learns which exist."),
    "enablefirewall": (_MEDIUM, "Banned floods still cost the edge a packet each."),
    "validateinput": (_LOW, "Odd text in requests gets further before it is refused."),
    "apidefneedlogin": (_HIGH, "A stolen key, or a recorded request, is enough to use the API."),
    "apideftrustadmin": (_HIGH, "Either an address or a password alone makes an administrator."),
    "apisipauth": (_MEDIUM, "A caller that reaches the API acts for a subscriber without its password."),
    "remoteadmin": (_HIGH, "Administration can be attacked from more than this machine."),
    "stricttransport": (_MEDIUM, "Numbers, digests and who calls whom go over the network in clear text."),
    "useshadigestauh": (_MEDIUM, "A recorded MD5 digest is tried against billions of passwords a second."),
    "strongdigestauth": (_MEDIUM, "A recorded answer to a challenge can be used again."),
    "minpwdlength": (_MEDIUM, "Short passwords are guessed offline within days."),
    "callingcardauth": (_LOW, "A shown number, which anybody can send, is part of the proof."),
    "allowtrustedip": (_HIGH, "UDP sources can be forged: an address is no proof of who calls."),
    "maxcallperip": (_MEDIUM, "A stolen account calls all day from one address, and nothing notices."),
    "checkmaxdyndailycredit": (_HIGH, "Toll fraud overnight goes on until the credit is used up."),
    "maxdyndailycredit_multiplier": (_MEDIUM, "An account may spend so many times its largest day at once."),
    "sendadminemailnotifications": (_LOW, "Nobody is told of blocked users and critical events."),
    "autoban": (_MEDIUM, "A caller with bad statistics goes on with another number from the same address."),
    "blocknotbilledcalls": (
        _MEDIUM,
        "Calls are sold at the price of a larger destination than the one they cost us for.",
    ),
    "blocknotprofitablecalls": (_MEDIUM, "Calls are sold under cost."),
    "blockearlymedia": (_LOW, "Sound before the answer is a conversation that is never charged."),
    "autofinetune": (_LOW, "Limits move with the load, so an attacker who makes load moves limits."),
}

# Limits that count within a period: half the limit within half the period is as strict.
_PERIOD_OF: Final[Mapping[str, str]] = {
    "messages.perAddress.max": "messages.perAddress.period",
    "messages.wrongPerAddress.max": "messages.wrongPerAddress.period",
    "authFailures.perAddress.max": "authFailures.period",
    "authFailures.perKnownAddress.max": "authFailures.period",
    "authFailures.perKnownEndpoint.max": "authFailures.period",
    "callsPerAddress.maxCalls": "callsPerAddress.period",
}
# Where a number means "not at all", although it looks like the strictest limit.
_OFF: Final[Mapping[str, int]] = {"autoBan.scanningThreshold": 0}


@dataclass(frozen=True, slots=True)
class _Hardened:
    """A row of the checklist that is derived from the model; `wanted` as HARDENED has it."""

    rule: AuditRule
    facts: FieldFacts
    wanted: Any


@dataclass(frozen=True, slots=True)
class _Opened:
    """A field that opens something at other values than these, of which the first is the one to go back to."""

    path: str
    closed: tuple[Any, ...]
    severity: AuditSeverity
    why: str

    @property
    def rule(self) -> AuditRule:
        rows = facts()[self.path].catalogue
        return AuditRule(f"policy/opened/{self.path}", self.severity, f"spec.{self.path} protects", self.why, rows)


_OPENED: Final = (
    _Opened("fraud.blockPremium", (True,), _HIGH, "Premium numbers are how stolen accounts are turned into money."),
    _Opened("fraud.blockSatellite", (True,), _HIGH, "A minute to a satellite network costs several euros."),
    _Opened("fraud.dynamicList.enabled", (True,), _LOW, "Numbers of a running attack go on being called."),
    _Opened("fraud.smartList.enabled", (True,), _LOW, "Callers with unusual statistics go unnoticed."),
    _Opened("spend.checkPostpaid", (True,), _HIGH, "Postpaid accounts may spend without any limit."),
    _Opened("sip.dropMalformed", (True,), _MEDIUM, "Malformed messages are how parsers are broken into."),
    _Opened("authentication.allowUnauthenticatedCalls", (0,), _CRITICAL, "Anybody calls at your cost."),
    _Opened("authentication.allowAnonymousCaller", (0,), _MEDIUM, "Nobody knows whom a call is to be charged to."),
    _Opened("authentication.callerId", ("Refuse", "Rewrite"), _MEDIUM, "A subscriber calls as anybody it likes."),
    _Opened("authentication.challengeKnown", (1,), _HIGH, "An address that was once a user's needs no password."),
    _Opened("authentication.autoCreate", (False,), _HIGH, "Any phone that registers gets an account."),
    _Opened("authentication.callingNumber", (False,), _MEDIUM, "A number can be shown by anybody: it proves nothing."),
    _Opened("authentication.selfServicePasswordCheck", (0,), _MEDIUM, "The API says whether a guess is right."),
    _Opened("authentication.forkWithoutAuth", (3, 4), _HIGH, "Strangers forward calls at a subscriber's cost."),
    _Opened(
        "authentication.antiSpoofing", (True,), _HIGH, "A sender that forges a trunk's address calls as the trunk."
    ),
    _Opened("authentication.passwords.enforceStrong", (True,), _MEDIUM, "Weak passwords stay until they are guessed."),
    _Opened("authentication.passwords.check", (2,), _MEDIUM, "Common passwords are tried first."),
    _Opened("authentication.trustedAddresses.subnets", (False,), _HIGH, "A neighbour's address needs no password."),
    _Opened("authentication.trustedAddresses.localNetworks", (False,), _HIGH, "Any machine inside needs no password."),
    _Opened("authentication.trustedAddresses.authenticated", (False,), _HIGH, "One login opens a whole NAT."),
    _Opened("authentication.trustedAddresses.usersAsKnown", (False,), _MEDIUM, "Strangers get the known ones' limits."),
    _Opened("registrar.reuse", (0,), _MEDIUM, "Another machine takes over a phone's registration."),
    _Opened("routing.forwardToOtherDomains", (0,), _HIGH, "An open relay carries anybody's calls anywhere."),
    _Opened("routing.blockOtherDomains", (1,), _MEDIUM, "Strangers' domains reach your subscribers."),
    _Opened("routing.restrictToLocal", (3,), _HIGH, "A Contact or Refer-To makes the edge send into your network."),
    _Opened("routing.redirects", (2, 1), _MEDIUM, "A carrier's redirect chooses where a paid call goes."),
    _Opened("routing.topologyHiding", (True,), _MEDIUM, "Callers learn your carriers' and your inside addresses."),
    _Opened("routing.dtmfInput", (True,), _LOW, "Digits of an IVR become part of what is dialled, unchecked."),
    _Opened("api.strictInput", (True,), _MEDIUM, "Requests can carry scripts into the console."),
    _Opened("api.sessionLimits", (True,), _LOW, "Passwords of the console can be guessed at any speed."),
    _Opened("payment.review", (True,), _HIGH, "A stolen card's money is talked away before it is taken back."),
)

_MODES: Final = AuditRule(
    "policy/modes",
    _HIGH,
    "Every rule is enforced",
    "A rule that only reports, or is off, lets the calls through that it was made to refuse.",
)
_ALLOWED: Final = AuditRule(
    "policy/firewall-allow",
    _HIGH,
    "Only known networks are never banned",
    "An allowed address guesses passwords without end: no counter ever bans it.",
    ("firewall-static",),
)
_STRESS: Final = AuditRule(
    "policy/stress-test",
    _HIGH,
    "No policy contains a stress test",
    "While it lasts the firewall, automatic bans and the limits of pending calls are off.",
    ("stress-test",),
)
# Wider ones hold more strangers than peers: 16 million addresses of IPv4, a provider's allocation of IPv6.
_ALLOW_BITS_MIN: Final = {4: 9, 6: 33}


def _hardened() -> Iterator[_Hardened]:
    for path, wanted in leaves(HARDENED):
        fact = facts()[path]
        severity, why = WHY[fact.catalogue[0]]
        title = f"spec.{path} is hardened: {written(wanted)}"
        yield _Hardened(AuditRule(f"policy/{fact.catalogue[0]}", severity, title, why, fact.catalogue), fact, wanted)


_CHECKLIST: Final = tuple(_hardened())
RULES: Final = (*(row.rule for row in _CHECKLIST), *(opened.rule for opened in _OPENED), _MODES, _ALLOWED, _STRESS)


def findings(policies: PolicySet, locate: Locate, remedy: Remedy) -> Iterator[AuditFinding]:
    """What is open, once for the policy that opens it: a realm that only inherits it isn't named again."""
    told: set[tuple[str, str, object]] = set()
    for realm in policies.realms:
        scope = _Scope.of(policies, realm, locate, remedy)
        for finding, path in _of_realm(scope):
            winner = scope.winners.get(path)
            key = (finding.rule.id, path, winner.key if winner else None)
            if key not in told:
                told.add(key)
                yield finding


@dataclass(frozen=True, slots=True)
class _Scope:
    """The settings in force for one realm, and which policy sets each."""

    spec: PolicySpec
    layers: Sequence[Document]
    winners: Mapping[str, Document]
    """By field the document whose word on it is the last; fields that no document speaks of aren't there."""
    locate: Locate
    remedy: Remedy

    @classmethod
    def of(cls, policies: PolicySet, realm: str, locate: Locate, remedy: Remedy) -> "_Scope":
        layers = layers_of(realm, policies.documents)
        winners = {path: layer for layer in layers for path, _ in leaves(layer.spec)}
        return cls(policies.for_realm(realm), layers, winners, locate, remedy)

    def finding(
        self,
        rule: AuditRule,
        severity: AuditSeverity,
        what: str,
        path: str,
        change: Mapping[str, Any] | None,
        how: str = "",
    ) -> tuple[AuditFinding, str]:
        """`change`: what the spec of the named document is to say; None where no YAML closes it. The field's path goes
        with it."""
        target = self.winners.get(path) or (self.layers[-1] if self.layers else None)
        place = self.locate(target, path) if target is not None else AuditPlace("no policy")
        fix = "" if change is None else line_of_yaml({"spec": dict(change)})
        return AuditFinding(rule, severity, place, what, fix, how or self.remedy(target)), path


def _of_realm(scope: _Scope) -> Iterator[tuple[AuditFinding, str]]:
    for row in _CHECKLIST:
        yield from _not_hardened(scope, row)
    for opened in _OPENED:
        yield from _opened(scope, opened)
    yield from _lenient_modes(scope)
    yield from _wide_allow(scope)
    yield from _stressed(scope)


# ------------------------------------------------------------------ hardened values


def _not_hardened(scope: _Scope, row: _Hardened) -> Iterator[tuple[AuditFinding, str]]:
    path = row.facts.path
    if not row.facts.enforced:
        if not row.facts.has_always or not _as_strict(path, row.facts.always, row.wanted):
            does = f", which acts as for {written(row.facts.always)}" if row.facts.has_always else ""
            what = f"spec.{path} should be {written(row.wanted)}; no service of this version enforces it{does}"
            how = "until one does, close it by other means"
            yield scope.finding(row.rule, AuditSeverity.INFO, what, path, None, how)
        return
    value, period = _value(scope.spec, path), _PERIOD_OF.get(path)
    if period is None:
        span = usual = 1.0
    else:
        span, usual = float(_value(scope.spec, period)), float(_value(_DEFAULT, period))
    if _as_strict(path, value, row.wanted, span, usual):
        return
    change = nested(path, row.wanted)
    what = f"spec.{path} is {'without limit' if value is None else written(value)}, hardened: {written(row.wanted)}"
    if period is not None and span != usual:
        change = merged([change, nested(period, _as_written(period, usual))])
        what += f" within {_as_written(period, usual)} (is {_as_written(period, span)})"
    is_below_default = not _as_strict(path, value, _value(_DEFAULT, path), span, usual)
    severity = row.rule.severity.worse() if is_below_default else row.rule.severity
    yield scope.finding(row.rule, severity, what, path, change)


def _as_strict(path: str, have: Any, wanted: Any, have_span: float = 1.0, wanted_span: float = 1.0) -> bool:
    """Whether a value is as strict as the wanted one, in the direction in which the hardened one lies."""
    hardened, default = _number(path, _HARDENED[path]), _number(path, _value(_DEFAULT, path))
    rate, rate_wanted = _number(path, have) / have_span, _number(path, wanted) / wanted_span
    return rate >= rate_wanted if hardened > default else rate <= rate_wanted


def _number(path: str, value: Any) -> float:
    """A value on a scale: no limit, and what is derived from load, lie above every limit."""
    return math.inf if value is None or _OFF.get(path) == value else float(value)


_DEFAULT: Final = PolicySpec()
_HARDENED: Final = dict(leaves(HARDENED))


def _value(spec: PolicySpec, path: str) -> Any:
    """As Python has it: a Duration in seconds, no limit as None."""
    found: Any = spec
    for key in path.split("."):
        found = getattr(found, _names(found)[key])
    return found


def _names(group: Any) -> Mapping[str, str]:
    """A group's Python names by what they are outside."""
    return {info.alias or name: name for name, info in type(group).model_fields.items()}


def _as_written(path: str, value: float) -> Any:
    """A period as YAML has it: seconds with their units, else the number alone."""
    return value if facts()[path].unit else format_duration(int(value))


# ------------------------------------------------------------------ what is opened beyond the default


def _opened(scope: _Scope, opened: _Opened) -> Iterator[tuple[AuditFinding, str]]:
    value, fact = _value(scope.spec, opened.path), facts()[opened.path]
    if value in opened.closed:
        return
    what = f"spec.{opened.path} is {written(value)}"
    if not fact.enforced:
        what += "; no service of this version acts on it yet"
    severity = opened.severity if fact.enforced else AuditSeverity.INFO
    yield scope.finding(opened.rule, severity, what, opened.path, nested(opened.path, opened.closed[0]))


def _lenient_modes(scope: _Scope) -> Iterator[tuple[AuditFinding, str]]:
    for alias, name in _names(_DEFAULT.modes).items():
        mode, usual = getattr(scope.spec.modes, name), getattr(_DEFAULT.modes, name)
        if mode in ("Enforce", usual):
            continue
        severity = AuditSeverity.HIGH if mode == "Off" and usual == "Enforce" else AuditSeverity.MEDIUM
        path = f"modes.{alias}"
        what = f"rule {alias} {'is off' if mode == 'Off' else 'only reports'} (spec.{path})"
        yield scope.finding(_MODES, severity, what, path, nested(path, usual))


def _wide_allow(scope: _Scope) -> Iterator[tuple[AuditFinding, str]]:
    path = "firewall.allow"
    networks = scope.spec.firewall.allow
    if wide := [one for one in networks if _is_wide(one)]:
        keep = [one for one in networks if one not in wide]
        what = f"spec.{path} contains {', '.join(wide)}: most of those addresses belong to strangers"
        yield scope.finding(_ALLOWED, _ALLOWED.severity, what, path, nested(path, keep))


def _is_wide(network: str) -> bool:
    parsed = ipaddress.ip_network(network)
    return not parsed.is_private and parsed.prefixlen < _ALLOW_BITS_MIN[parsed.version]


def _stressed(scope: _Scope) -> Iterator[tuple[AuditFinding, str]]:
    said = scope.winners.get("profile")
    if said is not None and said.spec["profile"] == "StressTest":
        what = "profile StressTest turns protection off for a time"
        yield scope.finding(_STRESS, _STRESS.severity, what, "profile", {"profile": scope.spec.profile})
