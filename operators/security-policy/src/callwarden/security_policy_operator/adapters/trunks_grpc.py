"""Trunks by call-admission's account service (ports.TrunkRegistry)."""

from typing import TYPE_CHECKING

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.common.rpc.client import unary
from callwarden.kernel.errors import NotFound
from callwarden.policy.resources import TrunkSpec
from callwarden.security_policy_operator.core.trunks import TrunkAccount, TrunkDifference, TrunkState

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceAsyncStub

_LISTS = ("allow_prefixes", "block_prefixes")


class AccountServiceTrunks:
    """Of one call-admission."""

    def __init__(self, accounts: "AccountServiceAsyncStub") -> None:
        self._accounts = accounts

    async def list(self) -> list[TrunkState]:
        return [state_of(trunk) for trunk in (await unary(self._accounts.ListTrunks, pb.ListTrunksRequest())).trunks]

    async def find_account(self, account: str) -> TrunkAccount | None:
        try:
            found = await unary(self._accounts.GetAccount, pb.GetAccountRequest(account=account))
        except NotFound:
            return None
        return _account(found)

    async def create_account(self, name: str, spec: TrunkSpec) -> TrunkAccount:
        new = pb.Account(
            name=name, realm=spec.realm, type=spec.direction, currency=spec.currency, deck=spec.deck, time_zone="UTC"
        )
        return _account(await unary(self._accounts.CreateAccount, pb.CreateAccountRequest(account=new)))

    async def create(self, trunk: TrunkState) -> None:
        await unary(self._accounts.CreateTrunk, message_of(trunk))

    async def update(self, change: TrunkDifference) -> None:
        await unary(self._accounts.UpdateTrunk, update_of(change))

    async def delete(self, name: str) -> bool:
        return bool((await unary(self._accounts.DeleteTrunk, pb.DeleteTrunkRequest(name=name))).deleted)


def state_of(trunk: pb.Trunk) -> TrunkState:
    return TrunkState(
        name=trunk.name,
        address=trunk.address,
        direction=trunk.direction,
        tech_prefix=trunk.tech_prefix,
        strip_digits=trunk.strip_digits,
        add_prefix=trunk.add_prefix,
        enabled=trunk.enabled,
        only_local=trunk.only_local,
        allow_prefixes=frozenset(trunk.allow_prefixes),
        block_prefixes=frozenset(trunk.block_prefixes),
        account=trunk.account,
        realm=trunk.realm,
    )


def message_of(trunk: TrunkState) -> pb.Trunk:
    return pb.Trunk(
        name=trunk.name,
        address=trunk.address,
        direction=trunk.direction,
        tech_prefix=trunk.tech_prefix,
        strip_digits=trunk.strip_digits,
        add_prefix=trunk.add_prefix,
        enabled=trunk.enabled,
        only_local=trunk.only_local,
        allow_prefixes=sorted(trunk.allow_prefixes),
        block_prefixes=sorted(trunk.block_prefixes),
        account=trunk.account,
    )


def update_of(change: TrunkDifference) -> pb.UpdateTrunkRequest:
    """Only what is different: call-admission leaves the rest alone."""
    request = pb.UpdateTrunkRequest(name=change.after.name)
    for name in change.fields:
        before, after = getattr(change.before, name), getattr(change.after, name)
        if name in _LISTS:
            getattr(request, f"add_{name}").extend(sorted(after - before))
            getattr(request, f"remove_{name}").extend(sorted(before - after))
        else:
            setattr(request, name, after)
    return request


def _account(account: pb.Account) -> TrunkAccount:
    return TrunkAccount(account.id, account.type, account.name, account.realm)
