"""Prices, refusals and decisions as protobuf messages: for rating's answers, for the database, for explain."""

from collections import OrderedDict
from functools import lru_cache
from typing import Final, Generic, TypeVar

from callwarden.api.admission.v1 import admission_pb2
from callwarden.api.rating.v1 import rating_pb2
from callwarden.call_admission.model.calls import Decision, Route
from callwarden.common.prices import price_message, price_of
from callwarden.kernel.tariff import Price
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult

K = TypeVar("K")
V = TypeVar("V")

PRICES_CACHED: Final = 4_096  # A deck has some dozens of different tariffs; an entry is about 1 KB.


class LruCache(Generic[K, V]):
    """A dictionary that forgets what was used longest ago. 0.2 µs a look-up."""

    def __init__(self, size_max: int) -> None:
        self._items: OrderedDict[K, V] = OrderedDict()
        self._size_max = size_max

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> V | None:
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._items[key] = value
        if len(self._items) > self._size_max:
            self._items.popitem(last=False)

    def clear(self) -> None:
        self._items.clear()


_PRICE_BYTES: "Final[LruCache[int, tuple[Price, bytes]]]" = LruCache(PRICES_CACHED)


@lru_cache(PRICES_CACHED)
def price_from(data: bytes) -> Price:
    """The price of a serialised rating.v1.Price. ValueError if it is none."""
    return price_of(rating_pb2.Price.FromString(data))


def price_bytes(price: Price) -> bytes:
    """The serialised rating.v1.Price."""
    # By identity: prices come out of price_from's cache, and hashing one takes longer than all else here (5 µs).
    # What is remembered is kept alive by it, so that nothing else can have its id.
    known = _PRICE_BYTES.get(id(price))
    if known is None:
        known = price, price_message(price).SerializeToString()
        _PRICE_BYTES.put(id(price), known)
    return known[1]


def refused_message(refuse: Refuse, sip_status: int) -> admission_pb2.Refused:
    return admission_pb2.Refused(
        reason=refuse.reason.value,
        rule=refuse.rule,
        counter=refuse.counter,
        value=refuse.value,
        limit=refuse.limit,
        window=refuse.window,
        text=refuse.text,
        retry_after_s=refuse.retry_after_s,
        sip_status=sip_status,
    )


def refuse_from(message: admission_pb2.Refused) -> Refuse:
    """A refusal that we have kept. ValueError for a reason that isn't known."""
    return Refuse(
        Reason(message.reason),
        message.rule,
        message.counter,
        message.value,
        message.limit,
        message.window,
        message.text,
        message.retry_after_s,
    )


# Protobuf messages are concatenations of their fields, so a decision is its fixed part and its rules' bytes put one
# after the other. Most rules say the same for every call: looking up their bytes costs 0.3 µs, building them 2.5.
_RULES_CACHED: Final = 4_096
_RULES_TAG: Final = bytes([admission_pb2.Decision.RULES_FIELD_NUMBER << 3 | 2])  # 2: length-delimited


_RULE_BYTES: Final[LruCache[int, tuple[RuleResult, bytes]]] = LruCache(_RULES_CACHED)


def _rule_bytes(result: RuleResult) -> bytes:
    if result.counter and result.refused is None:
        return _with_numbers(
            result.rule, result.mode is _ENFORCE, result.counter, result.value, result.limit or 0, result.window
        )
    # By identity: what the others say is one shared object (callwarden.call_admission.admission.core.rules.rule).
    known = _RULE_BYTES.get(id(result))
    if known is None:
        known = result, _plain(result)
        if result.refused is None:
            _RULE_BYTES.put(id(result), known)
    return known[1]


_ENFORCE: Final = Mode.ENFORCE


@lru_cache(_RULES_CACHED)
def _with_numbers(rule: str, is_enforced: bool, counter: str, value: int, limit: int, window: str) -> bytes:
    mode = Mode.ENFORCE if is_enforced else Mode.REPORT
    return _field(
        admission_pb2.RuleVerdict(
            rule=rule, mode=mode.value, verdict="pass", counter=counter, value=value, limit=limit, window=window
        )
    )


def _plain(result: RuleResult) -> bytes:
    if result.skipped:
        verdict, text = "skip", result.skipped
    elif result.refused is not None:
        verdict, text = "refuse", result.refused.text
    else:
        verdict, text = "pass", ""
    return _field(
        admission_pb2.RuleVerdict(
            rule=result.rule,
            mode=result.mode.value,
            verdict=verdict,
            counter=result.counter,
            value=result.value,
            limit=result.limit or 0,
            window=result.window,
            text=text,
        )
    )


def _field(verdict: admission_pb2.RuleVerdict) -> bytes:
    body = verdict.SerializeToString()
    return _RULES_TAG + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


SERVICE: Final = "call-admission"


def decision_bytes(decision: Decision) -> bytes:
    """The serialised admission.v1.Decision."""
    head = admission_pb2.Decision(
        at_s=decision.at_s,
        service=SERVICE,
        outcome=decision.outcome,
        policy_revision=decision.policy_revision,
        trace_id=decision.trace_id,
        account=decision.account,
        source_address=decision.source_address,
        cut_by=decision.cut_by,
    )
    if decision.refused is not None:
        head.refused.CopyFrom(refused_message(decision.refused, decision.sip_status))
    return b"".join((head.SerializeToString(), *map(_rule_bytes, decision.rules)))


def route_message(route: Route) -> rating_pb2.Route:
    message = rating_pb2.Route(
        trunk=route.trunk,
        address=route.address,
        add_prefix=route.add_prefix,
        strip_digits=route.strip_digits,
        carrier_account_id=route.carrier_account_id,
    )
    if route.cost is not None:
        message.cost.MergeFromString(price_bytes(route.cost))
    return message
