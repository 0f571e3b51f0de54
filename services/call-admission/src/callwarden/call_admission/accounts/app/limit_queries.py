"""What is used of an account's limits, and what a call would get: nothing is written.

Out: what each rule counts and says (core.rules), reading it (app, ports), how it is shown (adapters, the CLI).
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.accounts.core.accounts import AccountRef
from callwarden.call_admission.accounts.core.views import AccountView
from callwarden.call_admission.accounts.ports import Accounts, Trunks
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.core.commands import sip_status
from callwarden.call_admission.admission.core.decide import Admit
from callwarden.call_admission.admission.core.rules import RULES, LimitUsage
from callwarden.call_admission.model.calls import CallRequest, Decision, Quote, Route
from callwarden.call_admission.model.sources import PolicySource
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.errors import Invalid
from callwarden.kernel.verdict import Mode, Refuse

_NOBODY: Final = UUID(int=0)
# The current counters say nothing of past calls; a moment beyond a year ahead is a slip.
PAST_S_MAX: Final = 60.0
AHEAD_S_MAX: Final = 366 * 86_400.0
_PLACES_NO_CALLS: Final = (AccountType.CARRIER, AccountType.RESELLER)


@dataclass(frozen=True, slots=True)
class LimitShown:
    """One limit of a rule, and what the rule's verdict does."""

    rule: str
    mode: Mode
    use: LimitUsage


@dataclass(frozen=True, slots=True)
class LimitReport:
    account: AccountView
    limits: tuple[LimitShown, ...]
    """In the order of the rules."""
    policy_revision: int


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """A call that is asked about, not placed. `at_s` 0: now."""

    destination: str
    local: bool
    source_address: str
    caller_number: str
    trunk: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the call would get."""

    verdict: Admit | Refuse
    decision: Decision
    quote: Quote | None
    """None: a local call, or one that has no price."""
    routes: tuple[Route, ...]
    currency: str
    number_owner: str = ""
    """The account that the number was given to, as name@realm: the call is local. Empty: it is none's."""


class LimitQueries:
    """Answers what operators ask of limits. Simulation uses the same code as real calls."""

    def __init__(
        self, app: CallAdmission, accounts: Accounts, trunks: Trunks, policies: PolicySource, clock: Clock
    ) -> None:
        self._app = app
        self._accounts = accounts
        self._trunks = trunks
        self._policies = policies
        self._clock = clock

    async def show(self, ref: AccountRef) -> LimitReport:
        """Raises NotFound, Conflict for a name that several realms have, Unavailable."""
        account_id = await self._accounts.find(ref)
        unix_s = self._clock.unix_s()
        account = await self._accounts.get(account_id, unix_s)
        snapshot = await self._app.snapshot_of(account_id, unix_s)
        policy = self._policies.for_realm(snapshot.account.realm)
        shown = tuple(
            LimitShown(rule.name, policy.modes.get(rule.name, Mode.ENFORCE), use)
            for rule in RULES
            for use in rule.uses(snapshot, policy)
        )
        return LimitReport(account, shown, policy.revision)

    async def simulate(self, ref: AccountRef, call: SimulatedCall) -> Simulated:
        """Raises as `show`, and Invalid for a moment that is over, an account that places no calls, a trunk that isn't
        the account's."""
        unix_s = self._clock.unix_s()
        if call.at_s and not unix_s - PAST_S_MAX <= call.at_s <= unix_s + AHEAD_S_MAX:
            raise Invalid("at_s must be from now to a year ahead", field="at_s")
        at_s = max(call.at_s, unix_s)
        account_id = await self._accounts.find(ref)
        view = await self._accounts.get(account_id, unix_s)
        account = view.account
        if account.type in _PLACES_NO_CALLS:
            raise Invalid(f"a {account.type.value} places no calls", field="account")
        if call.trunk and not any(
            trunk.name == call.trunk and trunk.account == account.name for trunk in await self._trunks.list()
        ):
            raise Invalid(f"{account.name} has no trunk {call.trunk}", field="trunk")
        owner = "" if call.local else await self._owner_of(call.destination, unix_s)
        request = CallRequest(
            _NOBODY, "", account_id, call.destination, call.destination, call.caller_number, call.source_address, "",
            call.local or bool(owner), at_s, trunk=call.trunk,
        )  # fmt: skip
        decided, snapshot = await self._app.simulate(request)
        policy = self._policies.for_realm(snapshot.account.realm)
        verdict = decided.verdict
        refused = verdict if isinstance(verdict, Refuse) else None
        decision = Decision(
            at_s, "admit" if refused is None else "refuse", refused, decided.rules, policy.revision, account.name,
            call.source_address, sip_status=0 if refused is None else sip_status(refused, policy),
            cut_by=decided.cut_by,
        )  # fmt: skip
        quote = snapshot.quote if isinstance(snapshot.quote, Quote) else None
        return Simulated(verdict, decision, quote, decided.routes, account.currency, owner)

    async def _owner_of(self, number: str, unix_s: UnixS) -> str:
        """As edges learn it from auth: a number of ours never leaves to a carrier."""
        owner_id = await self._accounts.owner_of(number)
        if owner_id is None:
            return ""
        owner = (await self._accounts.get(owner_id, unix_s)).account
        return f"{owner.name}@{owner.realm}"
