"""Trunk resources carried out: call-admission has a trunk as each of them says, and none when it is gone."""

import math
from collections.abc import Awaitable, Container
from itertools import chain
from typing import TYPE_CHECKING, Final

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.common.logs import get_logger
from callwarden.common.rpc.client import unary
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict, Denied, Exhausted, Invalid, NotFound, Unavailable
from callwarden.policy.resources import TrunkSpec
from callwarden.security_policy_operator.adapters.declared import Declared, away, each
from callwarden.security_policy_operator.core.declared import Refusal
from callwarden.security_policy_operator.core.named import decide
from callwarden.security_policy_operator.core.plan import Source
from callwarden.security_policy_operator.ports import Cluster

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceAsyncStub

log = get_logger(__name__)

PLURAL: Final = "trunks"
FINALIZER: Final = "callwarden.io/trunk"
SERVICE: Final = "call-admission"
_FINAL: Final = (Invalid, NotFound, Conflict, Denied, Exhausted)
"""Asking again soon is of no use; it is asked again at the next resync."""


class Trunks:
    """`reconcile` in each round."""

    def __init__(self, cluster: Cluster, accounts: "AccountServiceAsyncStub", clock: Clock, me: str) -> None:
        """`me`: this process, as Events name it."""
        self._declared = Declared(cluster, clock, me, "Trunk", PLURAL, FINALIZER)
        self._accounts = accounts

    async def reconcile(self) -> None:
        sources = await self._declared.sources()
        if not sources:
            return
        decisions = decide(sources, TrunkSpec)
        try:
            listed = await unary(self._accounts.ListTrunks, pb.ListTrunksRequest())
        except CallwardenError as error:
            for source, decision in decisions:
                refusal = decision if isinstance(decision, Refusal) else away(SERVICE, error)
                await self._declared.refused(source, refusal)
            raise Unavailable(f"{SERVICE}: {error.message}") from error
        stands = {trunk.name: trunk for trunk in listed.trunks}
        kept: set[str] = set()
        staying = (
            (
                source,
                self._keep(source, decision, stands.get(source.key.name), kept)
                if isinstance(decision, TrunkSpec)
                else self._declared.refused(source, decision),
            )
            for source, decision in decisions
        )
        # After those that stay: one of them may take over the trunk of one that leaves.
        leaving = ((source, self._drop(source, kept)) for source in sources if source.is_leaving)
        await each(chain(staying, leaving))

    def pause_s(self) -> float:
        return math.inf

    async def _keep(self, source: Source, spec: TrunkSpec, stands: pb.Trunk | None, kept: set[str]) -> None:
        """Its name comes to `kept` as soon as the trunk is its own."""
        wanted = trunk_of(source.key.name, spec)
        change = change_of(stands, wanted) if stands is not None else None
        is_new = not self._declared.is_held(source)
        if stands is None or is_new:
            if not await self._tried(source, self._claim(wanted, spec, stands)):
                return
            # Only now: a resource that never had a trunk takes none away.
            if not await self._declared.hold(source):
                return
        kept.add(wanted.name)
        if not await self._tried(source, self._write(wanted, stands, change)):
            return
        if stands is not None and is_new:
            fields = ", ".join(changed_fields(change)) if change is not None else "nothing"
            await self._declared.tell(source, "TakenOver", f"The trunk was there already. Changed: {fields}.")
        message = "Calls pass as it says." if spec.enabled else "The trunk is there, and disabled."
        await self._declared.applied(source, "InUse", message)

    async def _tried(self, source: Source, work: Awaitable[None]) -> bool:
        """False if call-admission doesn't want it, which the status says then; raises what may be well soon."""
        try:
            await work
        except _FINAL as error:
            text = f"{error.field}: {error.message}" if error.field else error.message
            await self._declared.refused(source, Refusal("Refused", text))
            return False
        except CallwardenError as error:
            await self._declared.refused(source, away(SERVICE, error))
            raise
        return True

    async def _claim(self, wanted: pb.Trunk, spec: TrunkSpec, stands: pb.Trunk | None) -> None:
        """Finds its account, which `wanted` gets; Conflict if the trunk that stands is of another one."""
        asked = spec.account or f"{wanted.name}@{spec.realm}"
        account: pb.Account | None = None
        try:
            account = await unary(self._accounts.GetAccount, pb.GetAccountRequest(account=asked))
        except NotFound:
            if spec.account:
                raise
        if stands is not None:
            owner = (account.type, account.name, account.realm) if account is not None else None
            if spec.direction != stands.direction or owner != (stands.direction, stands.account, stands.realm):
                whose = f"a {stands.direction} of account {stands.account}@{stands.realm}"
                raise Conflict(f"there is a trunk {stands.name} already, {whose}", field="metadata.name")
        elif account is None:
            account = await self._make_account(wanted.name, spec)
        elif account.type != spec.direction:
            raise Conflict(f"account {asked} is of type {account.type}", field="spec.account")
        assert account is not None
        wanted.account = account.id

    async def _make_account(self, name: str, spec: TrunkSpec) -> pb.Account:
        new = pb.Account(
            name=name, realm=spec.realm, type=spec.direction, currency=spec.currency, deck=spec.deck, time_zone="UTC"
        )
        made: pb.Account = await unary(self._accounts.CreateAccount, pb.CreateAccountRequest(account=new))
        return made

    async def _write(self, wanted: pb.Trunk, stands: pb.Trunk | None, change: pb.UpdateTrunkRequest | None) -> None:
        if stands is None:
            await unary(self._accounts.CreateTrunk, wanted)
            log.info("trunk.created", name=wanted.name)
        elif change is not None:
            await unary(self._accounts.UpdateTrunk, change)
            log.info("trunk.changed", name=wanted.name, fields=changed_fields(change))

    async def _drop(self, source: Source, kept: Container[str]) -> None:
        """`kept`: the names of trunks that are another resource's now."""
        name = source.key.name
        if not self._declared.is_held(source) or name in kept:
            await self._declared.let_go(source)
            return
        try:
            deleted = (await unary(self._accounts.DeleteTrunk, pb.DeleteTrunkRequest(name=name))).deleted
        except Conflict as error:  # a route leads to it: until somebody takes that away no call passes
            await unary(self._accounts.UpdateTrunk, pb.UpdateTrunkRequest(name=name, enabled=False))
            refusal = Refusal("Routed", f"Disabled, not deleted: {error.message}.", accepted=True)
            await self._declared.refused(source, refusal)
            return
        log.info("trunk.deleted", name=name, deleted=deleted)
        await self._declared.let_go(source, "Deleted" if deleted else "", "The trunk is there no more.")


def trunk_of(name: str, spec: TrunkSpec) -> pb.Trunk:
    """As call-admission has it, but for its account."""
    return pb.Trunk(
        name=name,
        address=spec.address,
        direction=spec.direction,
        tech_prefix=spec.tech_prefix,
        strip_digits=spec.strip_digits,
        add_prefix=spec.add_prefix,
        enabled=spec.enabled,
        only_local=spec.only_local,
        allow_prefixes=spec.allow_prefixes,
        block_prefixes=spec.block_prefixes,
    )


def change_of(stands: pb.Trunk, wanted: pb.Trunk) -> pb.UpdateTrunkRequest | None:
    """What makes the one the other; None: nothing to do. Direction and account never change."""
    change = pb.UpdateTrunkRequest(
        add_allow_prefixes=sorted({*wanted.allow_prefixes} - {*stands.allow_prefixes}),
        remove_allow_prefixes=sorted({*stands.allow_prefixes} - {*wanted.allow_prefixes}),
        add_block_prefixes=sorted({*wanted.block_prefixes} - {*stands.block_prefixes}),
        remove_block_prefixes=sorted({*stands.block_prefixes} - {*wanted.block_prefixes}),
    )
    for name in ("address", "tech_prefix", "strip_digits", "add_prefix", "enabled", "only_local"):
        if (value := getattr(wanted, name)) != getattr(stands, name):
            setattr(change, name, value)
    if change == pb.UpdateTrunkRequest():
        return None
    change.name = wanted.name
    return change


def changed_fields(change: pb.UpdateTrunkRequest) -> list[str]:
    """As the resource's spec calls them."""
    names = [field.name for field, _ in change.ListFields() if field.name != "name"]
    lists = {f"{verb}_{name}": name for verb in ("add", "remove") for name in ("allow_prefixes", "block_prefixes")}
    fields = dict.fromkeys(lists.get(name, name) for name in names)
    return [TrunkSpec.model_fields[name].alias or name for name in fields]
