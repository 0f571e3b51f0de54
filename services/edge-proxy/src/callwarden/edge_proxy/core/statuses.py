"""Reasons to SIP statuses: the one table of the edge. No other module sets a status for a refusal.

In: every Reason, by who is refused. Out: statuses that SIP itself asks for (400, 420, 482, 483 …), which are in the
check that finds the fault, and answers of others that are passed on.
"""

from dataclasses import dataclass

from callwarden.kernel.verdict import Reason


@dataclass(frozen=True, slots=True)
class RefusalAnswer:
    """A status; `retry_after_s` 0: no Retry-After. `text` is what a phone may show; '': RFC 3261's phrase."""

    status: int
    retry_after_s: int = 0
    text: str = ""


OVERLOAD_RETRY_S = 5  # Long enough for a pod to come back, short enough for a person who redials.
LINES_RETRY_S = 2  # Lines of a trunk come free all the time.

# Status to an end user. STYLE.md, "Answers and errors to statuses".
ANSWERS: dict[Reason, RefusalAnswer] = {
    # Unknown user and wrong password are asked again, alike; the challenge is put in by who answers.
    Reason.CREDENTIALS: RefusalAnswer(407),
    Reason.UNAUTHENTICATED: RefusalAnswer(407),
    Reason.ACCOUNT_DISABLED: RefusalAnswer(403),
    Reason.ACCOUNT_UNKNOWN: RefusalAnswer(403),
    Reason.CALLER_ID: RefusalAnswer(403, text="Caller ID Not Allowed"),
    Reason.CALLER_LISTED: RefusalAnswer(403),
    Reason.BANNED: RefusalAnswer(403),
    Reason.RATE: RefusalAnswer(503, OVERLOAD_RETRY_S),  # 429 means something else in SIP (RFC 3892)
    Reason.SCANNER: RefusalAnswer(403),
    Reason.MALFORMED: RefusalAnswer(400),
    Reason.OVERLOAD: RefusalAnswer(503, OVERLOAD_RETRY_S),
    Reason.LINES: RefusalAnswer(486),
    Reason.CREDIT: RefusalAnswer(403),
    Reason.DAILY_SPEND: RefusalAnswer(403),
    Reason.MONTHLY_SPEND: RefusalAnswer(403),
    Reason.TALK_TIME: RefusalAnswer(403),
    Reason.DURATION: RefusalAnswer(403),
    Reason.ADDRESS_QUOTA: RefusalAnswer(403),
    Reason.RESELLER_QUOTA: RefusalAnswer(403),
    Reason.CEILING: RefusalAnswer(503, LINES_RETRY_S),
    Reason.VELOCITY: RefusalAnswer(403),
    Reason.BASELINE: RefusalAnswer(403),
    Reason.DESTINATION: RefusalAnswer(403),
    Reason.PREMIUM: RefusalAnswer(403),
    Reason.SATELLITE: RefusalAnswer(403),
    Reason.NEW_DESTINATION: RefusalAnswer(403),
    Reason.ONLY_LOCAL: RefusalAnswer(403),
    Reason.NOT_BILLED: RefusalAnswer(403),
    Reason.NOT_PROFITABLE: RefusalAnswer(503, OVERLOAD_RETRY_S),  # as without a route: another server may have one
    Reason.ROUTE_COST: RefusalAnswer(503, OVERLOAD_RETRY_S),
    Reason.NO_RATE: RefusalAnswer(403),
    Reason.NO_ROUTE: RefusalAnswer(503, OVERLOAD_RETRY_S),
    Reason.NOT_FOUND: RefusalAnswer(404),
    Reason.NOT_REGISTERED: RefusalAnswer(480),
    Reason.FOREIGN_DOMAIN: RefusalAnswer(403),
    Reason.BAD_NUMBER: RefusalAnswer(484),
    Reason.TRANSFER: RefusalAnswer(403),
    Reason.UNAVAILABLE: RefusalAnswer(503, OVERLOAD_RETRY_S),
}

# Where a trunk hears something else: a switch takes 486 for the callee being busy and gives up.
TRUNK_ANSWERS: dict[Reason, RefusalAnswer] = {Reason.LINES: RefusalAnswer(503, LINES_RETRY_S)}

# Refusals whose status policy may set (spec.spend.rejectStatus).
QUOTAS = frozenset(
    {
        Reason.CREDIT, Reason.DAILY_SPEND, Reason.MONTHLY_SPEND, Reason.TALK_TIME, Reason.DURATION,
        Reason.RESELLER_QUOTA, Reason.ADDRESS_QUOTA,
    }
)  # fmt: skip


def answer_for(
    reason: Reason, *, is_trunk: bool, quota_status: int, wanted: int = 0, retry_after_s: int = 0
) -> RefusalAnswer:
    """The answer to a refused call. `wanted` is the status that call-admission asks for, 0: none.

    `quota_status` is policy's for refusals for money and quotas. `retry_after_s` replaces the table's where a
    Retry-After is sent at all (5xx and 486).
    """
    answer = TRUNK_ANSWERS.get(reason, ANSWERS[reason]) if is_trunk else ANSWERS[reason]
    status = answer.status
    if 400 <= wanted <= 699:
        status = wanted
    elif reason in QUOTAS:
        status = quota_status
    if status not in (486, 503):  # RFC 3261 20.33: others carry no Retry-After
        return RefusalAnswer(status, 0, answer.text if status == answer.status else "")
    return RefusalAnswer(status, retry_after_s or answer.retry_after_s, answer.text if status == answer.status else "")
