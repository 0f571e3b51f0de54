"""Calls, accounts and policies as tests of rules speak of them, and an account whose calls are decided, counted and
settled one after another on a clock that tests turn."""

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from callwarden.call_admission.admission.core.decide import Admit, Evaluation, decide, decide_extension
from callwarden.call_admission.admission.core.rules import velocity
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot, SourceTrunk
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import CallRequest, Ended, ExtendRequest, Hold, Pricing, Quote, Route
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.policy import AdmissionPolicies, AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT, ADDRESS, REALM, RESELLER, SYSTEM
from callwarden.call_admission.model.settle import settle
from callwarden.call_admission.model.usage import TransitionContext, Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import UnixS
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Refuse, RuleResult
from callwarden.limits.shards import Shard
from callwarden.policy.bundle import Document, PolicySet

NOW_S = UnixS(1_767_614_400.0)  # 2026-01-05T12:00:00Z, a Monday
TODAY = date(2026, 1, 5)
ACCOUNT_ID = UUID(int=1)
RESELLER_ID = UUID(int=2)
CARRIER_ID = UUID(int=3)
MINUTE = 60_000  # micros a minute, in seconds: 0.001 a second
PRICE = Price("EUR", (Window(0, (RateGroup(0, MINUTE, 60, 1),)),))
ROUTE = Route("carrier", "192.0.2.1:5060")


def at(text: str, zone: str = "UTC") -> float:
    """The moment that clocks in the zone show as "2026-01-05 12:00"; `fold` 1 by a trailing "'"."""
    moment = datetime.fromisoformat(text.rstrip("'")).replace(fold=int(text.endswith("'")))
    return moment.replace(tzinfo=ZoneInfo(zone) if zone != "UTC" else UTC).timestamp()


def priced(micros_a_minute: int, currency: str = "EUR") -> Price:
    return Price(currency, (Window(0, (RateGroup(0, micros_a_minute, 60, 1),)),))


def policy(**spec: object) -> AdmissionPolicy:
    document = Document.from_object(
        {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": "p"}, "spec": spec}
    )
    return AdmissionPolicies(PolicySet.build(7, [document])).for_realm("example.org")


def account(**changes: object) -> Account:
    base = Account(
        id=ACCOUNT_ID,
        realm="example.org",
        name="alice",
        type=AccountType.ENDUSER,
        active=True,
        currency="EUR",
        time_zone="Europe/Berlin",
        prepaid=True,
        deck="retail",
        balance_micros=1_000_000,
        held_micros=0,
        overdraft_micros=0,
        max_lines=None,
        daily_micros=None,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def postpaid(**changes: object) -> Account:
    return account(prepaid=False, balance_micros=0, **changes)


def reseller(**changes: object) -> Account:
    fixed = {"id": RESELLER_ID, "name": "shop", "type": AccountType.RESELLER, "prepaid": False, "balance_micros": 0}
    return account(**(fixed | changes))


def quote(price: Price = PRICE, *routes: Route) -> Quote:
    return Quote(Pricing("retail"), "49", price, routes or (ROUTE,), NOW_S + 60)


def counted(kind: str = ACCOUNT, usage: Usage | None = None, **changes: object) -> CounterView:
    keys = {ACCOUNT: ACCOUNT_ID, RESELLER: RESELLER_ID}
    return replace(CounterView(kind, keys.get(kind, UUID(int=8)), usage or Usage()), **changes)  # type: ignore[arg-type]


def snapshot(of: Account | None = None, *owners: CounterView, **changes: object) -> Snapshot:
    """Of an account that has counted nothing, but for what is said."""
    of = of or account()
    day = day_of(NOW_S, of.time_zone)
    base = Snapshot(of, of.balance_micros, of.held_micros, 0, day, 0, 0, quote(), unix_s=NOW_S)
    base.counted = views = {ACCOUNT: counted()} | {owner.owner: owner for owner in owners}
    if views[ACCOUNT].is_sharded:
        base.held_micros = views[ACCOUNT].usage.used("credit", NOW_S)
    return replace(base, **changes)  # type: ignore[arg-type]


def request(destination: str = "493012345678", *, local: bool = False, at_s: float = NOW_S) -> CallRequest:
    return CallRequest(
        UUID(int=9), "call", ACCOUNT_ID, destination, destination, "4930", "192.0.2.7", "edge-0", local, at_s
    )


def refusal(decided: Evaluation) -> Refuse:
    assert isinstance(decided.verdict, Refuse)
    return decided.verdict


def admission(decided: Evaluation) -> Admit:
    assert isinstance(decided.verdict, Admit)
    return decided.verdict


def result(decided: Evaluation, rule: str) -> RuleResult:
    (found,) = [result for result in decided.rules if result.rule == rule]
    return found


def camel(rule: str) -> str:
    """The rule's name as policies write it."""
    head, *tail = rule.split("_")
    return "".join([head, *map(str.capitalize, tail)])


@dataclass
class Line:
    """An account, its reseller and all it is counted in, on a clock that stands until it is turned."""

    account: Account
    policy: AdmissionPolicy
    unix_s: float = NOW_S
    reseller: Account | None = None
    trunk: SourceTrunk | None = None
    usages: dict[str, Usage] = field(
        default_factory=lambda: {kind: Usage() for kind in (ACCOUNT, RESELLER, REALM, SYSTEM, ADDRESS)}
    )
    spent_micros: int = 0
    shard: Shard | None = None
    holds: dict[UUID, Hold] = field(default_factory=dict)
    expired: set[UUID] = field(default_factory=set)

    def snapshot(self, day: date | None = None, quoted: Quote | None = None) -> Snapshot:
        of = self.account
        owners = {
            kind: CounterView(
                kind, UUID(int=8), usage, self.shard if kind == ACCOUNT else None,
                self.reseller if kind == RESELLER else None,
            )
            for kind, usage in self.usages.items()
            if kind != RESELLER or self.reseller is not None
        }  # fmt: skip
        own = self.usages[ACCOUNT]
        on = day or day_of(self.unix_s, of.time_zone)
        span = own.day(on.toordinal())
        lines = sum(hold.expires_at_s > self.unix_s for hold in self.holds.values())
        return Snapshot(
            of, of.balance_micros - self.spent_micros, own.held_micros, lines, on, span.spent_micros,
            span.held_micros, quoted, unix_s=UnixS(self.unix_s), counted=owners, trunk=self.trunk,
        )  # fmt: skip

    def ask(self, destination: str = "493012345678", quoted: Quote | None = None, *, local: bool = False) -> Evaluation:
        of = self.snapshot(quoted=None if local else quoted or quote())
        return decide(of, request(destination, local=local, at_s=self.unix_s), self.policy)

    def call(self, destination: str = "493012345678", quoted: Quote | None = None) -> Hold | Refuse:
        """The call's hold, counted everywhere, or why there is none."""
        verdict = self.ask(destination, quoted).verdict
        if isinstance(verdict, Refuse):
            return verdict
        asked = request(destination, at_s=self.unix_s)
        hold = Hold(
            UUID(int=1_000 + len(self.holds) + len(self.expired)), self.account.id, self.unix_s, None,
            self.unix_s + self.policy.setup_s_max + verdict.granted_s + 10, verdict.granted_s, verdict.max_duration_s,
            verdict.final, verdict.held_micros, day_of(self.unix_s, self.account.time_zone), verdict.price, "carrier",
            velocity.marks(asked, self.policy, self.account, UnixS(self.unix_s)),
        )  # fmt: skip
        for kind, usage in self.usages.items():
            usage.begin(asked, hold, self._facts(kind))
        self.holds[hold.id] = hold
        return hold

    def extend(self, hold: Hold) -> Hold | Refuse:
        without = replace(hold, granted_s=0, held_micros=0)
        for kind, usage in self.usages.items():
            usage.extend(hold, without, self._facts(kind))
        wish = ExtendRequest(hold.id, "call", hold.account_id, hold.created_at_s, hold.granted_s)
        verdict = decide_extension(self.snapshot(hold.spend_day), hold, wish, self.policy).verdict
        after = hold
        if isinstance(verdict, Admit):
            after = hold.granted(
                hold.created_at_s, verdict.granted_s, verdict.held_micros, "", 5, final=verdict.final
            )  # fmt: skip
        for kind, usage in self.usages.items():
            usage.extend(without, after, self._facts(kind))
        self.holds[hold.id] = after
        return verdict if isinstance(verdict, Refuse) else after

    def end(self, hold: Hold, talk_s: int) -> int:
        """What it has cost. Answered when it began."""
        hold = self.holds.pop(hold.id)
        self.expired.add(hold.id)
        settlement = settle(
            hold, Ended(hold.id, hold.account_id, hold.created_at_s, hold.created_at_s + talk_s, "bye", 200, "carrier")
        )
        for kind, usage in self.usages.items():
            usage.end(hold, settlement, self._facts(kind))
        self.spent_micros += settlement.price_micros
        return settlement.price_micros

    def spend(self, micros: int) -> int:
        """One call of a minute that costs so much; what was granted if it is cut short, in micros."""
        hold = self.call(quoted=quote(priced(micros)))
        return 0 if isinstance(hold, Refuse) else self.end(hold, hold.granted_s)

    def _facts(self, kind: str) -> TransitionContext:
        of = self.reseller if kind == RESELLER and self.reseller is not None else self.account
        return TransitionContext(kind, self.policy, of, UnixS(self.unix_s), leases=True)


def granted(hold: Hold | Refuse) -> Hold:
    assert isinstance(hold, Hold), hold
    return hold


def refused(hold: Hold | Refuse) -> Refuse:
    assert isinstance(hold, Refuse), hold
    return hold
