"""callwarden.api.admission.v1.AccountService: messages to values and back, checked at the door."""

from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any, Final

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.admission.v1 import admission_pb2_grpc
from callwarden.api.rating.v1 import rating_pb2
from callwarden.call_admission.accounts.app.account_service import AccountDesk, ImportWish
from callwarden.call_admission.accounts.app.limit_queries import LimitDesk, LimitShown, Simulated, Wish
from callwarden.call_admission.accounts.core.account_csv import BYTES_MAX
from callwarden.call_admission.accounts.core.accounts import (
    AccountRef,
    AccountView,
    CallView,
    Trunk,
    check_account,
    check_change,
    check_currency,
    check_filter,
    check_key,
    check_name,
    check_note,
    check_price,
    check_realm,
    check_trunk,
    check_trunk_change,
    page_size,
)
from callwarden.call_admission.model.codecs.fields import (
    CALL_ID_CHARS_MAX,
    TEXT_CHARS_MAX,
    destination_of,
    seconds_of,
    text_of,
    uuid_of,
)
from callwarden.call_admission.model.codecs.messages import decision_bytes, price_bytes, refused_message, route_message
from callwarden.call_admission.records.core.corrections import Corrected
from callwarden.call_admission.records.core.records import RecordPlace, check_format
from callwarden.kernel.errors import Invalid
from callwarden.kernel.verdict import Mode, Refuse

OUTCOME_CHARS_MAX: Final = 32


class AccountGrpc(admission_pb2_grpc.AccountServiceServicer):
    def __init__(self, desk: AccountDesk, limits: LimitDesk) -> None:
        self._desk = desk
        self._limits = limits

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        wanted = request.account
        profile = wanted.profile
        account = check_account(
            realm=wanted.realm,
            name=wanted.name,
            type_=wanted.type,
            status=wanted.status,
            currency=wanted.currency,
            time_zone=wanted.time_zone,
            prepaid=wanted.prepaid,
            deck=wanted.deck,
            limits=_limits(wanted.limits),
            numbers=wanted.numbers,
            parent=wanted.parent,
            country=profile.country,
            email=profile.email,
            email_verified=profile.email_verified,
            phone=profile.phone,
            phone_verified=profile.phone_verified,
            shards=wanted.shards,
            lists=wanted.lists,
        )
        return _account(await self._desk.create(account))

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        return _account(await self._desk.get(AccountRef.parse(request.account)))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsReply:  # noqa: N802
        if request.after:
            AccountRef.parse(request.after, "after")
        wanted = check_filter(request.type, request.realm, request.parent)
        found = await self._desk.list(request.after, page_size(request.page_size), wanted)
        return pb.ListAccountsReply(accounts=[_account(view) for view in found])

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Any) -> pb.Account:  # noqa: N802
        profile = request.profile
        change = check_change(
            status=_set(request, "status"),
            deck=_set(request, "deck"),
            currency=_set(request, "currency"),
            time_zone=_set(request, "time_zone"),
            prepaid=_set(request, "prepaid"),
            parent=_set(request, "parent"),
            limits=_limits(request.limits),
            country=_set(profile, "country"),
            email=_set(profile, "email"),
            email_verified=_set(profile, "email_verified"),
            phone=_set(profile, "phone"),
            phone_verified=_set(profile, "phone_verified"),
            shards=_set(request, "shards"),
            clear=request.clear,
            add_numbers=request.add_numbers,
            remove_numbers=request.remove_numbers,
            add_lists=request.add_lists,
            remove_lists=request.remove_lists,
        )
        return _account(await self._desk.update(AccountRef.parse(request.account), change))

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
        wish = ImportWish(bytes(content), realm, currency, first.dry_run, first.keep_going)
        done = await self._desk.import_(wish)
        return pb.ImportAccountsReply(
            created=done.created,
            errors=[pb.LineError(line=wrong.line, field=wrong.field, reason=wrong.reason) for wrong in done.errors],
            errors_total=done.errors_total,
        )

    async def ExportAccounts(  # noqa: N802
        self, request: pb.ExportAccountsRequest, context: Any
    ) -> AsyncIterator[pb.ExportPart]:
        async for text in self._desk.export(check_filter(request.type, request.realm, request.parent)):
            yield pb.ExportPart(data=text.encode())

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
            only_local=request.only_local,
            allow_prefixes=request.allow_prefixes,
            block_prefixes=request.block_prefixes,
        )
        return _trunk(await self._desk.create_trunk(trunk))

    async def UpdateTrunk(self, request: pb.UpdateTrunkRequest, context: Any) -> pb.Trunk:  # noqa: N802
        change = check_trunk_change(
            address=_set(request, "address"),
            tech_prefix=_set(request, "tech_prefix"),
            strip_digits=_set(request, "strip_digits"),
            add_prefix=_set(request, "add_prefix"),
            enabled=_set(request, "enabled"),
            only_local=_set(request, "only_local"),
            add_allow_prefixes=request.add_allow_prefixes,
            remove_allow_prefixes=request.remove_allow_prefixes,
            add_block_prefixes=request.add_block_prefixes,
            remove_block_prefixes=request.remove_block_prefixes,
        )
        return _trunk(await self._desk.update_trunk(check_name(request.name), change))

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

    async def ExportCalls(  # noqa: N802
        self, request: pb.ExportCallsRequest, context: Any
    ) -> AsyncIterator[pb.ExportPart]:
        since_s, until_s = seconds_of(request.since_s, "since_s"), seconds_of(request.until_s, "until_s")
        if until_s and until_s <= since_s:
            raise Invalid("until_s must be after since_s", field="until_s")
        ref = AccountRef.parse(request.account) if request.account else None
        async for text in self._desk.export_calls(ref, since_s, until_s, check_format(request.format)):
            yield pb.ExportPart(data=text.encode())

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainReply:  # noqa: N802
        found = await self._desk.explain(text_of(request.call_id, "call_id", CALL_ID_CHARS_MAX))
        decisions = sorted((pb.Decision.FromString(body) for body in found.decisions), key=lambda made: made.at_s)
        return pb.ExplainReply(decisions=decisions, call=None if found.call is None else _call(found.call))

    async def ListDecisions(  # noqa: N802
        self, request: pb.ListDecisionsRequest, context: Any
    ) -> pb.ListDecisionsReply:
        page = await self._desk.decisions(
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
        page = await self._desk.ledger(
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
            account=_account(shown.account),
            limits=[_use(use) for use in shown.limits],
            policy_revision=shown.policy_revision,
        )

    async def Simulate(self, request: pb.SimulateCallRequest, context: Any) -> pb.SimulateCallReply:  # noqa: N802
        wish = Wish(
            destination=destination_of(request.destination, local=request.local),
            local=request.local,
            source_address=_address(request.source_address) if request.source_address else "",
            caller_number=text_of(request.caller_number, "caller_number", TEXT_CHARS_MAX),
            trunk=check_name(request.trunk, "trunk") if request.trunk else "",
            at_s=seconds_of(request.at_s, "at_s"),
        )
        return _simulated(await self._limits.simulate(AccountRef.parse(request.account), wish))

    async def CorrectCall(self, request: pb.CorrectCallRequest, context: Any) -> pb.Correction:  # noqa: N802
        done = await self._desk.correct_call(
            uuid_of(request.hold_id, "hold_id"),
            check_price(request.price_micros),
            check_note(request.reason),
            check_key(request.key),
        )
        return _correction(done)

    async def ReverseEntry(self, request: pb.ReverseEntryRequest, context: Any) -> pb.Correction:  # noqa: N802
        done = await self._desk.reverse_entry(
            uuid_of(request.entry_id, "entry_id"), check_note(request.reason), check_key(request.key)
        )
        return _correction(done)

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


def _set(message: Any, name: str) -> Any:
    """The field's value; None where it isn't set."""
    return getattr(message, name) if message.HasField(name) else None


def _limits(message: pb.Limits) -> dict[str, int]:
    return {field.name: value for field, value in message.ListFields()}


def _is_reported(body: bytes) -> bool:
    """Whether a rule that only reports would have refused."""
    rules = pb.Decision.FromString(body).rules
    return any(rule.mode == Mode.REPORT.value and rule.verdict == "refuse" for rule in rules)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise Invalid("source_address must be an IP address", field="source_address") from error


def _use(limit: LimitShown) -> pb.LimitUse:
    use = limit.use
    return pb.LimitUse(
        rule=limit.rule,
        mode=limit.mode.value,
        counter=use.counter,
        unit=use.unit,
        used=use.used,
        limit=use.limit,
        remaining=use.remaining,
        window=use.window,
        resets_at_s=use.resets_at_s,
        source=use.source,
    )


def _simulated(found: Simulated) -> pb.SimulateCallReply:
    decision, verdict, quote = found.decision, found.verdict, found.quote
    reply = pb.SimulateCallReply(
        decision=pb.Decision.FromString(decision_bytes(decision)),
        currency=found.currency,
        prefix=quote.prefix if quote is not None else "",
        price=None if quote is None else rating_pb2.Price.FromString(price_bytes(quote.price)),
    )
    if isinstance(verdict, Refuse):
        reply.refused.CopyFrom(refused_message(verdict, decision.sip_status))
    else:
        reply.admitted.CopyFrom(
            pb.Admitted(
                granted_s=verdict.granted_s,
                final=verdict.final,
                max_duration_s=verdict.max_duration_s,
                routes=[route_message(route) for route in found.routes],
            )
        )
        reply.held_micros = verdict.held_micros
    return reply


def _correction(done: Corrected) -> pb.Correction:
    return pb.Correction(
        entry_id=str(done.entry_id),
        account=done.account,
        amount_micros=done.amount_micros,
        currency=done.currency,
        balance_micros=done.balance_micros,
        duplicate=done.duplicate,
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
        limits=pb.Limits(**account.limits),
        numbers=account.numbers,
        lines_in_use=view.lines_in_use,
        spent_today_micros=view.spent_today_micros,
        parent=account.parent,
        profile=pb.Profile(
            country=account.country or None,
            email=account.email or None,
            email_verified=account.email_verified or None,
            phone=account.phone or None,
            phone_verified=account.phone_verified or None,
        ),
        shards=account.shards,
        lists=account.lists,
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
        only_local=trunk.only_local,
        allow_prefixes=trunk.allow_prefixes,
        block_prefixes=trunk.block_prefixes,
        realm=trunk.realm,
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
        cost_micros=view.cost_micros,
        corrected_micros=view.corrected_micros,
    )
