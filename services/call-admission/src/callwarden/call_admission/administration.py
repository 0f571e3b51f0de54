"""The process `callwarden-call-admission-administration`: accounts, trunks, lists, records and reports, for operators.

In: everything that reads or writes many rows at an operator's request, and the deletion of old records. Out: calls
(`main`): they have a process, an event loop and database connections of their own, so that an import of 100,000
accounts never holds up an INVITE. Both processes run from one image.

Simulation and `limits show` are here as well. They read the database as it is now, with the lists, policies and prices
that this process follows as every other does, and use the same code as real calls; nothing of them lives in the memory
of a process that admits calls.
"""

import os
import random
from typing import Final
from uuid import UUID

from callwarden.api.admission.v1 import admission_pb2_grpc, lists_pb2_grpc
from callwarden.call_admission.accounts.adapters.accounts_grpc import AccountGrpc
from callwarden.call_admission.accounts.adapters.accounts_sql import SqlAccounts
from callwarden.call_admission.accounts.adapters.calls_sql import SqlCallHistory
from callwarden.call_admission.accounts.adapters.events_nats import NatsAccountEvents
from callwarden.call_admission.accounts.adapters.trunks_sql import SqlTrunks
from callwarden.call_admission.accounts.app.account_service import AccountService
from callwarden.call_admission.accounts.app.limit_queries import LimitQueries
from callwarden.call_admission.accounts.app.record_service import RecordService
from callwarden.call_admission.accounts.app.trunk_service import TrunkService
from callwarden.call_admission.admission.adapters.policy_source import CompiledPolicies
from callwarden.call_admission.lists.adapters import lists_nats
from callwarden.call_admission.lists.adapters import metrics as list_metrics
from callwarden.call_admission.lists.adapters.lists_grpc import ListGrpc
from callwarden.call_admission.records.adapters.charges_sql import SqlCharges
from callwarden.call_admission.records.adapters.edges_nats import NatsEdgeCalls
from callwarden.call_admission.records.adapters.metrics import register_check
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.call_admission.records.app.charge_check import ChargeCheck
from callwarden.call_admission.records.app.retention import Retention
from callwarden.call_admission.settings import AdministrationSettings
from callwarden.call_admission.wiring import open_calls, open_lists
from callwarden.common.bus import Bucket
from callwarden.common.pace import let_others_first
from callwarden.common.runtime import Runtime, run_service
from callwarden.kernel import ids

# For the queries about limits, which use the same prepared statements as calls.
HOT_CONNECTIONS: Final = 1


async def wire(settings: AdministrationSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    database = await runtime.database()
    policies = CompiledPolicies(await runtime.policies())
    lists = await open_lists(runtime, bus, database)
    calls = await open_calls(
        settings, runtime, bus, database, policies, lists.numbers, hot_connections=HOT_CONNECTIONS, notifier=None
    )
    publisher = await runtime.open(bus.publisher())
    records = SqlRecords(database)
    accounts, trunks, events = SqlAccounts(database), SqlTrunks(database), NatsAccountEvents(publisher, new_id)
    check = ChargeCheck(
        SqlCharges(database),
        NatsEdgeCalls(bus.kv(Bucket.DIALOGS), bus.kv(Bucket.MEMBERS)),
        runtime.clock,
        random.random,
        kept_days=settings.keep_cdr_days,
        every_s=settings.check_charges_every_s,
        span_s=settings.check_charges_span_s,
    )
    servicer = AccountGrpc(
        AccountService(accounts, events, policies, runtime.clock, new_id),
        TrunkService(trunks, accounts, events, runtime.clock),
        RecordService(accounts, SqlCallHistory(database), records, runtime.clock, check),
        LimitQueries(calls.app, accounts, trunks, policies, runtime.clock),
    )
    retention = Retention(records, settings.kept_days(), runtime.clock, random.random)
    list_metrics.register_lists(runtime.metrics, lists.numbers)
    admission_pb2_grpc.add_AccountServiceServicer_to_server(servicer, runtime.server)
    lists_pb2_grpc.add_ListServiceServicer_to_server(ListGrpc(lists.numbers), runtime.server)
    runtime.spawn("source-trunks", calls.source_trunks.follow(bus))
    runtime.spawn("lists-follow", lists.numbers.follow())
    runtime.spawn("listed-follow", lists_nats.follow_listed(lists.listed_kv, lists.numbers, lambda _: None))
    register_check(runtime.metrics, check)
    if settings.check_charges_every_s:
        runtime.spawn("charge-check", check.run())
    if retention.forgets:
        runtime.spawn("retention", retention.run())


def new_id() -> UUID:
    return ids.from_bytes(os.urandom(16))


def main() -> None:
    let_others_first()
    run_service("administration", AdministrationSettings, wire)


if __name__ == "__main__":
    main()
