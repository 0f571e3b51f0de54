"""The desk where people ask what is used of an account's limits, and what a call would get: nothing is written.

Out: what each rule counts and says (core.rules), reading it (app, ports), how it is shown (adapters, the CLI).
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.accounts.core.accounts import AccountRef, AccountView
from callwarden.call_admission.accounts.ports import Accounts
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.core.commands import sip_status
from callwarden.call_admission.admission.core.decide import Admit
from callwarden.call_admission.admission.core.rules import RULES, LimitUsage
from callwarden.call_admission.model.account import AccountType
from callwarden.call_admission.model.calls import CallRequest, Decision, Quote, Route
from callwarden.call_admission.model.sources import PolicySource
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import Invalid
from callwarden.kernel.verdict import Mode, Refuse

_NOBODY: Final = UUID(int=0)
# What is true now says nothing of calls that were; and who asks of next year mistypes.
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
class Limits:
    account: AccountView
    limits: tuple[LimitShown, ...]
    """In the order of the rules."""
    policy_revision: int


@dataclass(frozen=True, slots=True)
class Wish:
    """A call that isn't placed. `at_s` 0: now."""

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


class LimitDesk:
    """What people ask of limits."""

    def __init__(self, app: CallAdmission, accounts: Accounts, policies: PolicySource, clock: Clock) -> None:
        self._app = app
        self._accounts = accounts
        self._policies = policies
        self._clock = clock

    async def show(self, ref: AccountRef) -> Limits:
        """Raises NotFound, Conflict for a name that several realms have, Unavailable."""
        account_id = await self._accounts.find(ref)
        now_s = self._clock.unix_s()
        account = await self._accounts.get(account_id, now_s)
        snapshot = await self._app.snapshot_of(account_id, now_s)
        policy = self._policies.for_realm(snapshot.account.realm)
        shown = tuple(
            LimitShown(rule.name, policy.modes.get(rule.name, Mode.ENFORCE), use)
            for rule in RULES
            for use in rule.uses(snapshot, policy)
        )
        return Limits(account, shown, policy.revision)

    async def simulate(self, ref: AccountRef, wish: Wish) -> Simulated:
        """Raises as `show`, and Invalid for a moment that is over, an account that places no calls, a trunk that isn't
        the account's."""
        now_s = self._clock.unix_s()
        if wish.at_s and not now_s - PAST_S_MAX <= wish.at_s <= now_s + AHEAD_S_MAX:
            raise Invalid("at_s must be from now to a year ahead", field="at_s")
        at_s = max(wish.at_s, now_s)
        account_id = await self._accounts.find(ref)
        view = await self._accounts.get(account_id, now_s)
        account = view.account
        if account.type in _PLACES_NO_CALLS:
            raise Invalid(f"a {account.type.value} places no calls", field="account")
        if wish.trunk and not any(
            trunk.name == wish.trunk and trunk.account == account.name for trunk in await self._accounts.trunks()
        ):
            raise Invalid(f"{account.name} has no trunk {wish.trunk}", field="trunk")
        request = CallRequest(
            _NOBODY, "", account_id, wish.destination, wish.destination, wish.caller_number, wish.source_address, "",
            wish.local, at_s, trunk=wish.trunk,
        )  # fmt: skip
        decided, snapshot = await self._app.simulate(request)
        policy = self._policies.for_realm(snapshot.account.realm)
        verdict = decided.verdict
        refused = verdict if isinstance(verdict, Refuse) else None
        decision = Decision(
            at_s, "admit" if refused is None else "refuse", refused, decided.rules, policy.revision, account.name,
            wish.source_address, sip_status=0 if refused is None else sip_status(refused, policy),
            cut_by=decided.cut_by,
        )  # fmt: skip
        quote = snapshot.quote if isinstance(snapshot.quote, Quote) else None
        return Simulated(verdict, decision, quote, decided.routes, account.currency)
