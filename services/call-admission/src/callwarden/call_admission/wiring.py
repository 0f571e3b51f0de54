"""What both processes of this image open alike: number lists in memory, and the decision on calls over the database."""

import random
from dataclasses import dataclass

from callwarden.call_admission.admission.adapters import events_nats
from callwarden.call_admission.admission.adapters.policy_source import CompiledPolicies
from callwarden.call_admission.admission.adapters.quotes_grpc import SERVICE as RATING
from callwarden.call_admission.admission.adapters.quotes_grpc import GrpcQuotes
from callwarden.call_admission.admission.adapters.source_trunks_sql import SqlSourceTrunks
from callwarden.call_admission.admission.adapters.store_sql import SESSION, SqlAdmissionStore
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.attempts import AdmissionAttempts
from callwarden.call_admission.admission.ports import Notifier
from callwarden.call_admission.lists.adapters import lists_nats
from callwarden.call_admission.lists.adapters.lists_nats import NatsListed, NatsListPublisher
from callwarden.call_admission.lists.adapters.lists_sql import SqlLists
from callwarden.call_admission.lists.app.number_lists import NumberLists
from callwarden.call_admission.settings import ProcessSettings
from callwarden.common.bus import Bucket, Bus, KeyValue
from callwarden.common.rpc.stream import StreamPool
from callwarden.common.runtime import Runtime
from callwarden.common.sql import Database
from callwarden.limits.rendezvous import ranking

# For rating at start: started together, it may be ready a moment later. Without it cached prices go on.
PEERS_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class OpenedLists:
    """Number lists, read once and told of changes; `follow` and `follow_listed` keep them current."""

    numbers: NumberLists
    store: SqlLists
    listed: NatsListed
    listed_kv: KeyValue


@dataclass(frozen=True, slots=True)
class OpenedCalls:
    """The decision on calls, with what it stands on."""

    app: CallAdmission
    attempts: AdmissionAttempts
    quotes: GrpcQuotes
    source_trunks: SqlSourceTrunks


async def open_lists(runtime: Runtime, bus: Bus, database: Database) -> OpenedLists:
    """Raises Unavailable if the database doesn't answer."""
    store, listed_kv = SqlLists(database), bus.kv(Bucket.LISTED)
    listed = NatsListed(listed_kv, runtime.clock)
    numbers = NumberLists(store, NatsListPublisher(bus), listed, runtime.clock)
    await lists_nats.follow_changes(bus, numbers)
    await numbers.refresh()
    return OpenedLists(numbers, store, listed, listed_kv)


async def open_calls(
    settings: ProcessSettings,
    runtime: Runtime,
    bus: Bus,
    database: Database,
    policies: CompiledPolicies,
    lists: NumberLists,
    *,
    hot_connections: int,
    notifier: Notifier | None,
) -> OpenedCalls:
    """Prices are forgotten whenever rating or the policy says that they may have changed. Raises Unavailable."""
    session = SESSION if database.dialect == "postgresql" else None
    hot = await runtime.open(await database.hot(connections=hot_connections, session=session))
    attempts = AdmissionAttempts(SqlAdmissionStore(hot), random.random)
    rating = StreamPool(
        RATING, settings.targets(), ranking, credentials=runtime.credentials, peer="rating", metrics=runtime.metrics
    )
    quotes = GrpcQuotes(await runtime.open(rating), settings.quotes_cached_max)
    await rating.wait_up(PEERS_TIMEOUT_S)
    source_trunks = SqlSourceTrunks(database)
    await source_trunks.refresh()
    policies.on_change(lambda: events_nats.forget_quotes(quotes))  # spec.billing.exactMatch is rating's
    await events_nats.follow_rating(bus, quotes)
    app = CallAdmission(
        attempts,
        quotes,
        policies,
        runtime.clock,
        random.random,
        lists=lists,
        trunks=source_trunks,
        notifier=notifier,
        progress=events_nats.ConsumerProgress(bus, runtime.clock),
    )
    return OpenedCalls(app, attempts, quotes, source_trunks)
