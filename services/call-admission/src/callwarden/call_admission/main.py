"""The process: `callwarden-call-admission`, or `python -m callwarden.call_admission.main`."""

import os
import random
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
from callwarden.call_admission.admission.adapters import events_nats, metrics
from callwarden.call_admission.admission.adapters.admission_grpc import AdmissionGrpc
from callwarden.call_admission.admission.adapters.policy_source import CompiledPolicies
from callwarden.call_admission.admission.adapters.quotes_grpc import SERVICE as RATING
from callwarden.call_admission.admission.adapters.quotes_grpc import GrpcQuotes
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.admission.adapters.source_trunks_sql import SqlSourceTrunks
from callwarden.call_admission.admission.adapters.store_sql import SESSION, SqlAdmissionStore
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.attempts import AdmissionAttempts
from callwarden.call_admission.lists.adapters import lists_nats
from callwarden.call_admission.lists.adapters import metrics as list_metrics
from callwarden.call_admission.lists.adapters.lists_grpc import ListGrpc
from callwarden.call_admission.lists.adapters.lists_nats import NatsCountPublisher, NatsListed, NatsListPublisher
from callwarden.call_admission.lists.adapters.lists_sql import SqlLists
from callwarden.call_admission.lists.app.call_watch import CallWatch
from callwarden.call_admission.lists.app.number_lists import NumberLists
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.call_admission.records.app.retention import Retention
from callwarden.call_admission.settings import AdmissionSettings
from callwarden.common.bus import Bucket
from callwarden.common.rpc.stream import StreamPool
from callwarden.common.runtime import Runtime, run_service
from callwarden.kernel import ids
from callwarden.limits.rendezvous import ranking

# One for the group commit, one for the reaper's look; a third in case one of them is being given up.
HOT_CONNECTIONS = 3
# For rating at start: started together, it may be ready a moment later. Without it cached prices go on.
PEERS_TIMEOUT_S = 15.0


async def wire(settings: AdmissionSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    database = await runtime.database()
    session = SESSION if database.dialect == "postgresql" else None
    hot = await runtime.open(await database.hot(connections=HOT_CONNECTIONS, session=session))
    attempts = AdmissionAttempts(SqlAdmissionStore(hot), random.random)
    rating = StreamPool(RATING, settings.targets(), ranking, tls=runtime.tls, peer="rating", metrics=runtime.metrics)
    quotes = GrpcQuotes(await runtime.open(rating), settings.quotes_cached_max)
    await rating.wait_up(PEERS_TIMEOUT_S)
    source_trunks = SqlSourceTrunks(database)
    await source_trunks.refresh()
    followed = await runtime.policies()
    policies = CompiledPolicies(followed)
    followed.on_change(lambda _: events_nats.forget_quotes(quotes))  # spec.billing.exactMatch is rating's
    list_store, listed_kv = SqlLists(database), bus.kv(Bucket.LISTED)
    listed = NatsListed(listed_kv, runtime.clock)
    lists = NumberLists(list_store, NatsListPublisher(bus), listed, runtime.clock)
    await lists_nats.follow_changes(bus, lists)
    await lists.refresh()
    counted = NatsCountPublisher(bus, settings.instance)
    watch = CallWatch(list_store, counted, listed, lists, policies, runtime.clock)
    publisher = await runtime.open(bus.publisher())
    notifier = events_nats.NatsNotifier(publisher)
    app = CallAdmission(
        attempts, quotes, policies, runtime.clock, random.random, lists=lists, trunks=source_trunks, notifier=notifier
    )
    account_events = NatsAccountEvents(publisher, new_id)
    records = SqlRecords(database)
    accounts, trunks = SqlAccounts(database), SqlTrunks(database)
    retention = Retention(records, settings.kept_days(), runtime.clock, random.random)
    metrics.register(runtime.metrics, app, attempts, quotes)
    list_metrics.register_lists(runtime.metrics, lists, watch)
    admission_pb2_grpc.add_AdmissionServiceServicer_to_server(AdmissionGrpc(app, watch), runtime.server)
    administration = AccountGrpc(
        AccountService(accounts, account_events, policies, runtime.clock, new_id),
        TrunkService(trunks, accounts, account_events, runtime.clock),
        RecordService(accounts, SqlCallHistory(database), records, runtime.clock),
        LimitQueries(app, accounts, trunks, policies, runtime.clock),
    )
    admission_pb2_grpc.add_AccountServiceServicer_to_server(administration, runtime.server)
    lists_pb2_grpc.add_ListServiceServicer_to_server(ListGrpc(lists), runtime.server)
    runtime.ready_when("database", lambda: app.is_up)
    runtime.spawn("group-commit", app.run())
    runtime.spawn("reaper", app.reap())
    runtime.spawn("source-trunks", source_trunks.follow(bus))
    runtime.spawn("shards", app.grow(attempts.contended.take, SqlShards(database)))
    if retention.forgets:
        runtime.spawn("retention", retention.run())
    runtime.spawn("lists-follow", lists.follow())
    runtime.spawn("listed-follow", lists_nats.follow_listed(listed_kv, lists, watch.gone))
    runtime.spawn("call-watch", watch.run())
    await lists_nats.follow_counts(bus, settings.instance, watch)
    await events_nats.follow_rating(bus, quotes)
    events_nats.consume(runtime, bus, app, watch)


def new_id() -> UUID:
    return ids.from_bytes(os.urandom(16))


def main() -> None:
    run_service("call-admission", AdmissionSettings, wire)


if __name__ == "__main__":
    main()
