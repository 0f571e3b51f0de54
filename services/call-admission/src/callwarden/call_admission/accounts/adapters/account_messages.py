"""Messages of accounts and trunks to values and back, by the tables of fields; and what is shown of calls and limits.

Out: whether a value is right (core), the methods (accounts_grpc).
"""

from collections.abc import Iterable
from typing import Any

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.rating.v1 import rating_pb2
from callwarden.call_admission.accounts.app.limit_queries import LimitShown, Simulated
from callwarden.call_admission.accounts.core.views import AccountView, CallView
from callwarden.call_admission.model.codecs.messages import decision_bytes, price_bytes, refused_message, route_message
from callwarden.call_admission.records.core.charges import ChargeCount, ChargeFinding
from callwarden.call_admission.records.core.corrections import Corrected
from callwarden.kernel.account import FIELDS
from callwarden.kernel.fields import DataField, FieldKind
from callwarden.kernel.trunk import TRUNK_FIELDS, Trunk
from callwarden.kernel.verdict import Refuse

_SEVERAL = (FieldKind.PHONES, FieldKind.NAMES)


def given(message: Any, fields: Iterable[DataField]) -> dict[str, Any]:
    """What a message has, by `wire` names. A field that it can leave unset, and does, is left out; so is one that this
    message hasn't."""
    values: dict[str, Any] = {}
    for field in fields:
        holder = getattr(message, field.group) if field.group else message
        found = holder.DESCRIPTOR.fields_by_name.get(field.wire)
        if found is None or (found.has_presence and not holder.HasField(field.wire)):
            continue
        value = getattr(holder, field.wire)
        values[field.wire] = tuple(value) if field.kind in _SEVERAL else value
    return values


def changed(request: Any, verb: str, fields: Iterable[DataField]) -> dict[str, tuple[str, ...]]:
    """What an update adds to or removes from fields of several values, by their names."""
    return {field.name: tuple(getattr(request, f"{verb}_{field.wire}")) for field in fields if field.kind in _SEVERAL}


def fill(message: Any, value: Any, fields: Iterable[DataField]) -> None:
    """Puts the fields of a value into a message; what isn't set stays unset there where the message tells."""
    for field in fields:
        found = getattr(value, field.name)
        holder = getattr(message, field.group) if field.group else message
        if field.kind in _SEVERAL:
            getattr(holder, field.wire).extend(found)
            continue
        if found is None or (not found and field.group == "profile"):
            continue
        if field.kind is FieldKind.WORD:
            found = found.value
        elif field.kind is FieldKind.STATUS:
            found = "active" if found else "disabled"
        setattr(holder, field.wire, found)


def account_message(view: AccountView) -> pb.Account:
    message = pb.Account(
        id=str(view.id),
        balance_micros=view.balance_micros,
        held_micros=view.held_micros,
        lines_in_use=view.lines_in_use,
        spent_today_micros=view.spent_today_micros,
        limits=pb.Limits(),
        profile=pb.Profile(),
    )
    fill(message, view.account, FIELDS)
    return message


def trunk_message(trunk: Trunk) -> pb.Trunk:
    message = pb.Trunk()
    fill(message, trunk, TRUNK_FIELDS)
    return message


def usage_message(limit: LimitShown) -> pb.LimitUse:
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


def simulated_message(found: Simulated) -> pb.SimulateCallReply:
    decision, verdict, quote = found.decision, found.verdict, found.quote
    reply = pb.SimulateCallReply(
        decision=pb.Decision.FromString(decision_bytes(decision)),
        currency=found.currency,
        number_owner=found.number_owner,
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


def finding_message(finding: ChargeFinding) -> pb.ChargeFinding:
    return pb.ChargeFinding(
        kind=finding.kind.value,
        hold_id=str(finding.hold_id),
        call_id=finding.call_id,
        account=finding.account,
        currency=finding.currency,
        expected_micros=finding.expected_micros,
        found_micros=finding.found_micros,
        note=finding.note,
    )


def summary_message(count: ChargeCount) -> pb.ChargeSummary:
    return pb.ChargeSummary(
        records=count.records,
        unpriced=count.unpriced,
        uncharged=count.uncharged,
        entries=count.entries,
        holds=count.holds,
        edges_asked=count.edges_asked,
        found=[pb.ChargeFindingCount(kind=kind.value, count=n) for kind, n in sorted(count.found.items())],
    )


def correction_message(done: Corrected) -> pb.Correction:
    return pb.Correction(
        entry_id=str(done.entry_id),
        account=done.account,
        amount_micros=done.amount_micros,
        currency=done.currency,
        balance_micros=done.balance_micros,
        duplicate=done.duplicate,
    )


def call_message(view: CallView) -> pb.Call:
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
