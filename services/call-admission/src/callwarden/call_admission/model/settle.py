"""What a call cost in the end: a hold and how it ended in, the record and the charge out.

In: seconds, price, the charge that never passes what was held. Out: what that changes in the account, and when a
hold has expired (admission.core.transaction).
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.model.calls import Ended, Hold
from callwarden.kernel.tariff import Price, billed_s, cost

EXPIRED: Final = "expired"
DURATION_S_MAX: Final = 366 * 86_400  # A longer one is a clock gone wrong; keeps what is recorded within 32 bits.


@dataclass(slots=True)
class Settlement:
    """The part of a CDR that its hold doesn't have. Made for each call, so not frozen."""

    hold_id: UUID
    account_id: UUID
    answered_at_s: float | None
    ended_at_s: float
    duration_s: int
    billed_s: int
    price_micros: int
    currency: str
    trunk: str
    reason: str
    sip_status: int
    cost_micros: int | None = None
    """What the carrier charges; None: unknown, or in another currency."""
    carrier_account_id: UUID | None = None
    limits_hit: tuple[str, ...] = ()
    granted_s: int = 0
    held_micros: int = 0
    """With `granted_s` and the hold's price: what the charge is worked out of, now and when it is checked."""
    uncharged_micros: int = 0
    """What the account could not pay any more; `price_micros` is less by it."""


def talk_s(answered_at_s: float, ended_at_s: float) -> int:
    """Whole seconds of talk; a begun second counts, to the millisecond, since clocks of two events say no more."""
    milliseconds = round((ended_at_s - answered_at_s) * 1_000)
    return min(max(-(-milliseconds // 1_000), 0), DURATION_S_MAX)


def charge_micros(price: Price, answered_at_s: float, duration_s: int, granted_s: int, held_micros: int) -> int:
    """What a call costs that talked for so long: at most what was granted and held. Past what was granted the edge goes
    on only while it can't ask us; that time isn't charged."""
    return min(cost(price, answered_at_s, min(duration_s, granted_s)), held_micros)


def settle(hold: Hold, ended: Ended) -> Settlement:
    """The record of a call that ended: charged for its talk time, at most what was granted and held."""
    answered_at_s = ended.answered_at_s if ended.answered_at_s is not None else hold.answered_at_s
    if answered_at_s is None:
        return _record(hold, None, ended.ended_at_s, 0, ended.trunk, ended.reason, ended.sip_status)
    duration_s = talk_s(answered_at_s, ended.ended_at_s)
    return _record(hold, answered_at_s, ended.ended_at_s, duration_s, ended.trunk, ended.reason, ended.sip_status)


def settle_expired(hold: Hold) -> Settlement:
    """The record of a call whose end was never reported: what it was granted, if it was answered; nothing, if not."""
    if hold.answered_at_s is None:
        return _record(hold, None, hold.expires_at_s, 0, "", EXPIRED, 0)
    ended_at_s = hold.answered_at_s + hold.granted_s
    return _record(hold, hold.answered_at_s, ended_at_s, hold.granted_s, "", EXPIRED, 0)


def _record(
    hold: Hold, answered_at_s: float | None, ended_at_s: float, duration_s: int, trunk: str, reason: str, status: int
) -> Settlement:
    # Of a call that nobody has answered the duration is 0, which costs nothing whenever that was.
    began_at_s = hold.created_at_s if answered_at_s is None else answered_at_s
    price_micros = charge_micros(hold.price, began_at_s, duration_s, hold.granted_s, hold.held_micros)
    charged_s = billed_s(hold.price, began_at_s, min(duration_s, hold.granted_s))
    carrier = cost_micros = None
    taken = hold.of_trunk(trunk)
    if taken is not None:
        carrier = taken.carrier_account_id
        if taken.cost is not None and taken.cost.currency == hold.price.currency:
            # Of all the time that it lasted: a carrier charges what it carried, whatever we had granted.
            cost_micros = cost(taken.cost, began_at_s, duration_s)
    return Settlement(
        hold.id, hold.account_id, answered_at_s, max(ended_at_s, began_at_s), duration_s, charged_s, price_micros,
        hold.price.currency, trunk or hold.trunk, reason, status, cost_micros, carrier, hold.limits_hit, hold.granted_s,
        hold.held_micros,
    )  # fmt: skip
