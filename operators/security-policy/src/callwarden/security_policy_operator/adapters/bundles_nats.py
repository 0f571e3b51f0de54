"""The bundle and its acknowledgements in NATS KV (ports.BundleStore)."""

from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError

from callwarden.api.policy.v1 import policy_pb2
from callwarden.common.bus import Deleted, KeyValue, Put
from callwarden.common.logs import get_logger
from callwarden.common.policy import BUNDLE_KEY, encode_bundle, parse_bundle
from callwarden.kernel.clock import UnixS
from callwarden.kernel.errors import CallwardenError
from callwarden.policy.bundle import PolicySet, default_set
from callwarden.security_policy_operator.core.status import Ack
from callwarden.security_policy_operator.ports import AppliedBundle

log = get_logger(__name__)


class NatsBundles:
    """Of one bus."""

    def __init__(self, policy: KeyValue, acks: KeyValue) -> None:
        self._policy, self._acks = policy, acks

    async def read(self) -> AppliedBundle:
        entry = await self._policy.get(BUNDLE_KEY)
        if entry is None:
            return AppliedBundle(default_set(), 0.0, 0)
        try:
            bundle = policy_pb2.Bundle.FromString(entry.value)
        except DecodeError as error:
            log.error("bundle.unreadable", error=error)
            return AppliedBundle(default_set(), 0.0, entry.revision)
        try:
            return AppliedBundle(parse_bundle(entry.value), bundle.created_at_s, entry.revision)
        except (ValueError, CallwardenError) as error:
            # Another version wrote it. The revision must keep rising, or services would take the next one for older.
            log.error("bundle.unreadable", error=error)
            return AppliedBundle(PolicySet.build(bundle.revision, ()), 0.0, entry.revision)

    async def write(self, policies: PolicySet, written_s: UnixS, sequence: int) -> None:
        await self._policy.put(BUNDLE_KEY, encode_bundle(policies, written_s), revision=sequence)

    async def acks(self) -> AsyncIterator[tuple[str, Ack | None] | None]:
        async for change in self._acks.watch():
            match change:
                case Put(key=key, value=value):
                    ack = policy_pb2.Ack.FromString(value)
                    yield key, Ack(ack.service, ack.instance, ack.revision)
                case Deleted(key=key):
                    yield key, None
                case _:
                    yield None
