"""callwarden.api.admission.v1.AccountService: its methods, by the use cases. Out: messages (account_messages)."""

from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any, Final

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.admission.v1 import admission_pb2_grpc
from callwarden.call_admission.accounts.adapters.account_messages import (
    account_message,
    call_message,
    changed,
    correction_message,
    finding_message,
    given,
    simulated_message,
    summary_message,
    trunk_message,
    usage_message,
)
from callwarden.call_admission.accounts.app.account_import import ImportRequest
from callwarden.call_admission.accounts.app.account_service import AccountService
from callwarden.call_admission.accounts.app.limit_queries import LimitQueries, SimulatedCall
from callwarden.call_admission.accounts.app.record_service import RecordService
from callwarden.call_admission.accounts.app.trunk_service import TrunkService
from callwarden.call_admission.accounts.core.account_csv import BYTES_MAX
from callwarden.call_admission.accounts.core.accounts import AccountRef, check_account, check_change, check_filter
from callwarden.call_admission.accounts.core.checks import (
    check_currency,
    check_key,
    check_name,
    check_note,
    check_price,
    check_realm,
    page_size,
)
from callwarden.call_admission.accounts.core.trunks import check_trunk, check_trunk_change
from callwarden.call_admission.model.codecs.fields import (
    CALL_ID_CHARS_MAX,
    TEXT_CHARS_MAX,
    destination_of,
    seconds_of,
    text_of,
    uuid_of,
)
from callwarden.call_admission.records.core.charges import ChargeCount
from callwarden.call_admission.records.core.records import RecordPlace, check_format
from callwarden.kernel.account import FIELDS
from callwarden.kernel.errors import Invalid
from callwarden.kernel.trunk import TRUNK_FIELDS
from callwarden.kernel.verdict import Mode

OUTCOME_CHARS_MAX: Final = 32
FINDINGS_MAX: Final = 10_000  # of one check: what is wrong with so many is wrong with all


class AccountGrpc(admission_pb2_grpc.AccountServiceServicer):
    def __init__(
        self, accounts: AccountService, trunks: TrunkService, records: RecordService, limits: LimitQueries
    ) -> None:
        self._accounts = accounts
        self._trunks = trunks
        self._records = records
        self._limits = limits

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        account = check_account(given(request.account, FIELDS))
        return account_message(await self._accounts.create(account))

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        return account_message(await self._accounts.get(AccountRef.parse(request.account)))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsReply:  # noqa: N802
        if request.after:
            AccountRef.parse(request.after, "after")
        wanted = check_filter(request.type, request.realm, request.parent)
        found = await self._accounts.list(request.after, page_size(request.page_size), wanted)
        return pb.ListAccountsReply(accounts=[account_message(view) for view in found])

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        change = check_change(
            given(request, FIELDS),
            clear=request.clear,
            add=changed(request, "add", FIELDS),
            remove=changed(request, "remove", FIELDS),
        )
        return account_message(await self._accounts.update(AccountRef.parse(request.account), change))

    async def ImportAccounts(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ImportAccountsRequest], context: Any
    ) -> pb.ImportAccountsReply:
        first: pb.ImportAccountsRequest | None = None
        content = bytearray()
        async for part in request_iterator:
            first = first or part
            content += part.csv
            if len(content) > BYTES_MAX:
                raise Invalid(f"a file has at most {BYTES_MAX:,} bytes: import it in parts", field="csv")
        if first is None:
            raise Invalid("there is no part", field="csv")
        realm = check_realm(first.realm) if first.realm else ""
        currency = check_currency(first.currency) if first.currency else ""
        wanted = ImportRequest(bytes(content), realm, currency, first.dry_run, first.keep_going)
        done = await self._accounts.import_(wanted)
        return pb.ImportAccountsReply(
            created=done.created,
            errors=[pb.LineError(line=wrong.line, field=wrong.field, reason=wrong.reason) for wrong in done.errors],
            errors_total=done.errors_total,
        )

    async def ExportAccounts(  # noqa: N802
        self, request: pb.ExportAccountsRequest, context: Any
    ) -> AsyncIterator[pb.ExportPart]:
        async for text in self._accounts.export(check_filter(request.type, request.realm, request.parent)):
            yield pb.ExportPart(data=text.encode())

    async def CreateTrunk(self, request: pb.Trunk, context: Any) -> pb.Trunk:  # noqa: N802
        return trunk_message(await self._trunks.create(check_trunk(given(request, TRUNK_FIELDS))))

    async def UpdateTrunk(self, request: pb.UpdateTrunkRequest, context: Any) -> pb.Trunk:  # noqa: N802
        change = check_trunk_change(
            given(request, TRUNK_FIELDS),
            add=changed(request, "add", TRUNK_FIELDS),
            remove=changed(request, "remove", TRUNK_FIELDS),
        )
        return trunk_message(await self._trunks.update(check_name(request.name), change))

    async def ListTrunks(self, request: pb.ListTrunksRequest, context: Any) -> pb.ListTrunksReply:  # noqa: N802
        return pb.ListTrunksReply(trunks=[trunk_message(trunk) for trunk in await self._trunks.list()])

    async def DeleteTrunk(self, request: pb.DeleteTrunkRequest, context: Any) -> pb.DeleteTrunkReply:  # noqa: N802
        return pb.DeleteTrunkReply(deleted=await self._trunks.delete(check_name(request.name)))

    async def ListCalls(self, request: pb.ListCallsRequest, context: Any) -> pb.ListCallsReply:  # noqa: N802
        found = await self._records.calls(
            AccountRef.parse(request.account) if request.account else None,
            seconds_of(request.since_s, "since_s"),
            page_size(request.page_size),
            running=request.running,
        )
        return pb.ListCallsReply(calls=[call_message(view) for view in found])

    async def ExportCalls(  # noqa: N802
        self, request: pb.ExportCallsRequest, context: Any
    ) -> AsyncIterator[pb.ExportPart]:
        since_s, until_s = seconds_of(request.since_s, "since_s"), seconds_of(request.until_s, "until_s")
        if until_s and until_s <= since_s:
            raise Invalid("until_s must be after since_s", field="until_s")
        ref = AccountRef.parse(request.account) if request.account else None
        async for text in self._records.export_calls(ref, since_s, until_s, check_format(request.format)):
            yield pb.ExportPart(data=text.encode())

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainReply:  # noqa: N802
        found = await self._records.explain(text_of(request.call_id, "call_id", CALL_ID_CHARS_MAX))
        decisions = sorted((pb.Decision.FromString(body) for body in found.decisions), key=lambda made: made.at_s)
        return pb.ExplainReply(decisions=decisions, call=None if found.call is None else call_message(found.call))

    async def ListDecisions(  # noqa: N802
        self, request: pb.ListDecisionsRequest, context: Any
    ) -> pb.ListDecisionsReply:
        page = await self._records.decisions(
            AccountRef.parse(request.account),
            seconds_of(request.since_s, "since_s"),
            text_of(request.outcome, "outcome", OUTCOME_CHARS_MAX) if request.outcome else "",
            RecordPlace.parse(request.after) if request.after else None,
            page_size(request.page_size),
            _is_reported if request.reported else None,
        )
        return pb.ListDecisionsReply(
            decisions=[
                pb.DecisionLine(call_id=made.call_id, decision=pb.Decision.FromString(made.body))
                for made in page.decisions
            ],
            next="" if page.next is None else str(page.next),
        )

    async def ListLedger(self, request: pb.ListLedgerRequest, context: Any) -> pb.ListLedgerReply:  # noqa: N802
        page = await self._records.ledger(
            AccountRef.parse(request.account),
            seconds_of(request.since_s, "since_s"),
            RecordPlace.parse(request.after) if request.after else None,
            page_size(request.page_size),
        )
        return pb.ListLedgerReply(
            entries=[
                pb.LedgerEntry(
                    id=str(entry.id),
                    at_s=entry.at_s,
                    kind=entry.kind,
                    reference=entry.reference,
                    amount_micros=entry.amount_micros,
                    currency=entry.currency,
                    note=entry.note,
                )
                for entry in page.entries
            ],
            next="" if page.next is None else str(page.next),
        )

    async def ShowLimits(self, request: pb.ShowLimitsRequest, context: Any) -> pb.ShowLimitsReply:  # noqa: N802
        shown = await self._limits.show(AccountRef.parse(request.account))
        return pb.ShowLimitsReply(
            account=account_message(shown.account),
            limits=[usage_message(use) for use in shown.limits],
            policy_revision=shown.policy_revision,
        )

    async def Simulate(self, request: pb.SimulateCallRequest, context: Any) -> pb.SimulateCallReply:  # noqa: N802
        call = SimulatedCall(
            destination=destination_of(request.destination, local=request.local),
            local=request.local,
            source_address=_address(request.source_address) if request.source_address else "",
            caller_number=text_of(request.caller_number, "caller_number", TEXT_CHARS_MAX),
            trunk=check_name(request.trunk, "trunk") if request.trunk else "",
            at_s=seconds_of(request.at_s, "at_s"),
        )
        return simulated_message(await self._limits.simulate(AccountRef.parse(request.account), call))

    async def CorrectCall(self, request: pb.CorrectCallRequest, context: Any) -> pb.Correction:  # noqa: N802
        done = await self._records.correct_call(
            uuid_of(request.hold_id, "hold_id"),
            check_price(request.price_micros),
            check_note(request.reason),
            check_key(request.key),
        )
        return correction_message(done)

    async def ReverseEntry(self, request: pb.ReverseEntryRequest, context: Any) -> pb.Correction:  # noqa: N802
        done = await self._records.reverse_entry(
            uuid_of(request.entry_id, "entry_id"), check_note(request.reason), check_key(request.key)
        )
        return correction_message(done)

    async def AuditLedger(self, request: pb.AuditLedgerRequest, context: Any) -> pb.AuditLedgerReply:  # noqa: N802
        audit = await self._records.audit(AccountRef.parse(request.account) if request.account else None)
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

    async def CheckCharges(  # noqa: N802
        self, request: pb.CheckChargesRequest, context: Any
    ) -> AsyncIterator[pb.CheckChargesPart]:
        ref = AccountRef.parse(request.account) if request.account else None
        count, shown = ChargeCount(), 0
        async for findings in self._records.check_charges(ref, seconds_of(request.since_s, "since_s"), count):
            shown_now = findings[: FINDINGS_MAX - shown]
            shown += len(shown_now)
            yield pb.CheckChargesPart(findings=[finding_message(finding) for finding in shown_now])
        yield pb.CheckChargesPart(summary=summary_message(count))


def _is_reported(body: bytes) -> bool:
    """Whether a rule that only reports would have refused."""
    rules = pb.Decision.FromString(body).rules
    return any(rule.mode == Mode.REPORT.value and rule.verdict == "refuse" for rule in rules)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise Invalid("source_address must be an IP address", field="source_address") from error
