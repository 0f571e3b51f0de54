"""The process of calls: `callwarden-call-admission`, or `python -m callwarden.call_admission.main`.

In: AdmissionService, the group commit, how calls end, the reaper. Out: everything that operators ask for, which has a
process of its own (`administration`) and never shares this event loop.
"""

from typing import Final

from callwarden.api.admission.v1 import admission_pb2_grpc
from callwarden.call_admission.admission.adapters import events_nats, metrics
from callwarden.call_admission.admission.adapters.admission_grpc import AdmissionGrpc
from callwarden.call_admission.admission.adapters.policy_source import CompiledPolicies
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.lists.adapters import lists_nats
from callwarden.call_admission.lists.adapters import metrics as list_metrics
from callwarden.call_admission.lists.adapters.lists_nats import NatsCountPublisher
from callwarden.call_admission.lists.app.call_watch import CallWatch
from callwarden.call_admission.settings import AdmissionSettings
from callwarden.call_admission.wiring import open_calls, open_lists
from callwarden.common.runtime import Runtime, run_service

# One for the group commit, one for the reaper's look; a third in case one of them is being given up.
HOT_CONNECTIONS: Final = 3


async def wire(settings: AdmissionSettings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    database = await runtime.database()
    policies = CompiledPolicies(await runtime.policies())
    lists = await open_lists(runtime, bus, database)
    numbers = lists.numbers
    publisher = await runtime.open(bus.publisher())
    calls = await open_calls(
        settings,
        runtime,
        bus,
        database,
        policies,
        numbers,
        hot_connections=HOT_CONNECTIONS,
        notifier=events_nats.NatsNotifier(publisher),
    )
    app, attempts = calls.app, calls.attempts
    counted = NatsCountPublisher(bus, settings.instance)
    watch = CallWatch(lists.store, counted, lists.listed, numbers, policies, runtime.clock)
    metrics.register(runtime.metrics, app, attempts, calls.quotes)
    list_metrics.register_lists(runtime.metrics, numbers)
    list_metrics.register_watch(runtime.metrics, watch)
    admission_pb2_grpc.add_AdmissionServiceServicer_to_server(AdmissionGrpc(app, watch), runtime.server)
    runtime.ready_when("database", lambda: app.is_up)
    runtime.spawn("group-commit", app.run())
    runtime.spawn("reaper", app.reap())
    runtime.spawn("source-trunks", calls.source_trunks.follow(bus))
    runtime.spawn("shards", app.grow(attempts.contended.take, SqlShards(database)))
    runtime.spawn("lists-follow", numbers.follow())
    runtime.spawn("listed-follow", lists_nats.follow_listed(lists.listed_kv, numbers, watch.gone))
    runtime.spawn("call-watch", watch.run())
    await lists_nats.follow_counts(bus, settings.instance, watch)
    events_nats.consume(runtime, bus, app, watch)


def main() -> None:
    run_service("call-admission", AdmissionSettings, wire)


if __name__ == "__main__":
    main()
