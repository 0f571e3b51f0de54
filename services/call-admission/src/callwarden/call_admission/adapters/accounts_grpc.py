"""callwarden.api.admission.v1.AccountService: messages to values and back, checked at the door."""

from typing import Any

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.admission.v1 import admission_pb2_grpc
from callwarden.call_admission.adapters.admission_grpc import CALL_ID_CHARS_MAX, seconds_of, text_of
from callwarden.call_admission.core.accounts import (
    AccountRef,
    AccountView,
    CallView,
    Trunk,
    check_account,
    check_change,
    check_name,
    check_trunk,
    page_size,
)
from callwarden.call_admission.desk import AccountDesk


class AccountGrpc(admission_pb2_grpc.AccountServiceServicer):
    def __init__(self, desk: AccountDesk) -> None:
        self._desk = desk

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        wanted = request.account
        limits = wanted.limits
        account = check_account(
            realm=wanted.realm,
            name=wanted.name,
            type_=wanted.type,
            status=wanted.status,
            currency=wanted.currency,
            time_zone=wanted.time_zone,
            prepaid=wanted.prepaid,
            deck=wanted.deck,
            max_lines=limits.max_lines if limits.HasField("max_lines") else None,
            daily_micros=limits.daily_micros if limits.HasField("daily_micros") else None,
            numbers=wanted.numbers,
        )
        return _account(await self._desk.create(account))

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        return _account(await self._desk.get(AccountRef.parse(request.account)))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsReply:  # noqa: N802
        if request.after:
            AccountRef.parse(request.after, "after")
        found = await self._desk.list(request.after, page_size(request.page_size))
        return pb.ListAccountsReply(accounts=[_account(view) for view in found])

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        change = check_change(
            status=request.status if request.HasField("status") else None,
            deck=request.deck if request.HasField("deck") else None,
            max_lines=request.limits.max_lines if request.limits.HasField("max_lines") else None,
            daily_micros=request.limits.daily_micros if request.limits.HasField("daily_micros") else None,
            clear=request.clear,
            add_numbers=request.add_numbers,
            remove_numbers=request.remove_numbers,
        )
        return _account(await self._desk.update(AccountRef.parse(request.account), change))

    async def CreateTrunk(self, request: pb.Trunk, context: Any) -> pb.Trunk:  # noqa: N802
        trunk = check_trunk(
            name=request.name,
            address=request.address,
            direction=request.direction,
            account=request.account,
            tech_prefix=request.tech_prefix,
            strip_digits=request.strip_digits,
            add_prefix=request.add_prefix,
            enabled=request.enabled,
        )
        return _trunk(await self._desk.create_trunk(trunk))

    async def ListTrunks(self, request: pb.ListTrunksRequest, context: Any) -> pb.ListTrunksReply:  # noqa: N802
        return pb.ListTrunksReply(trunks=[_trunk(trunk) for trunk in await self._desk.trunks()])

    async def DeleteTrunk(self, request: pb.DeleteTrunkRequest, context: Any) -> pb.DeleteTrunkReply:  # noqa: N802
        return pb.DeleteTrunkReply(deleted=await self._desk.delete_trunk(check_name(request.name)))

    async def ListCalls(self, request: pb.ListCallsRequest, context: Any) -> pb.ListCallsReply:  # noqa: N802
        found = await self._desk.calls(
            AccountRef.parse(request.account) if request.account else None,
            seconds_of(request.since_s, "since_s"),
            page_size(request.page_size),
            running=request.running,
        )
        return pb.ListCallsReply(calls=[_call(view) for view in found])

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainReply:  # noqa: N802
        found = await self._desk.explain(text_of(request.call_id, "call_id", CALL_ID_CHARS_MAX))
        decisions = sorted((pb.Decision.FromString(body) for body in found.decisions), key=lambda made: made.at_s)
        return pb.ExplainReply(decisions=decisions, call=None if found.call is None else _call(found.call))

    async def AuditLedger(self, request: pb.AuditLedgerRequest, context: Any) -> pb.AuditLedgerReply:  # noqa: N802
        audit = await self._desk.audit(AccountRef.parse(request.account) if request.account else None)
        return pb.AuditLedgerReply(
            accounts=audit.accounts,
            entries=audit.entries,
            balance_sum_micros=audit.balance_sum_micros,
            ledger_sum_micros=audit.ledger_sum_micros,
            held_sum_micros=audit.held_sum_micros,
            hold_rows_sum_micros=audit.hold_rows_sum_micros,
            open_holds=audit.open_holds,
            mismatched_accounts=audit.mismatched,
        )


def _account(view: AccountView) -> pb.Account:
    account = view.account
    return pb.Account(
        id=str(view.id),
        name=account.name,
        realm=account.realm,
        type=account.type.value,
        status="active" if account.active else "disabled",
        currency=account.currency,
        time_zone=account.time_zone,
        prepaid=account.prepaid,
        deck=account.deck,
        balance_micros=view.balance_micros,
        held_micros=view.held_micros,
        limits=pb.Limits(max_lines=account.max_lines, daily_micros=account.daily_micros),
        numbers=account.numbers,
        lines_in_use=view.lines_in_use,
        spent_today_micros=view.spent_today_micros,
    )


def _trunk(trunk: Trunk) -> pb.Trunk:
    return pb.Trunk(
        name=trunk.name,
        address=trunk.address,
        direction=trunk.direction.value,
        account=trunk.account,
        tech_prefix=trunk.tech_prefix,
        strip_digits=trunk.strip_digits,
        add_prefix=trunk.add_prefix,
        enabled=trunk.enabled,
    )


def _call(view: CallView) -> pb.Call:
    return pb.Call(
        hold_id=view.hold_id,
        call_id=view.call_id,
        account=view.account,
        destination=view.destination,
        state=view.state,
        started_at_s=view.started_at_s,
        answered_at_s=view.answered_at_s,
        ended_at_s=view.ended_at_s,
        duration_s=view.duration_s,
        billed_s=view.billed_s,
        price_micros=view.price_micros,
        currency=view.currency,
        reason=view.reason,
        trunk=view.trunk,
        policy_revision=view.policy_revision,
        trace_id=view.trace_id,
        caller_number=view.caller_number,
    )
