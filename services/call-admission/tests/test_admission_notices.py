"""Notices of limits: each level once a day, by whichever process."""

from admission_site import running

from callwarden.call_admission.admission.core.commands import (
    Refused,
)
from callwarden.call_admission.model.usage import BLOCKED
from callwarden.testing.clock import FakeClock


async def test_a_block_is_told_once_a_day_by_whichever_process(database_url: str, fake_clock: FakeClock) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        account_id = await one.account(max_lines=1)
        await one.admit(account_id)
        for site in (one, other, one):
            assert isinstance(await site.app.admit(site.request(account_id)), Refused)
        told = [*one.notified.notices, *other.notified.notices]
        blocks = [notice for notice in told if notice.level == BLOCKED]
        assert [(notice.rule, notice.account_id) for notice in blocks] == [("lines", account_id)]
        fake_clock.advance(86_400)
        await one.admit(account_id)
        assert isinstance(await one.app.admit(one.request(account_id)), Refused)
        again = [notice for notice in (*one.notified.notices, *other.notified.notices) if notice.level == BLOCKED]
        assert len(again) == 2


async def test_each_threshold_of_a_limit_and_the_block_are_told_once_a_day(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock) as site:
        account_id = await site.account(max_lines=10)
        for _ in range(10):
            await site.admit(account_id)
        for _ in range(2):
            assert isinstance(await site.app.admit(site.request(account_id)), Refused)
        notices = [notice for notice in site.notified.notices if notice.rule == "lines"]
        told = [(notice.level, notice.value, notice.limit) for notice in notices]
        assert told == [(50, 5, 10), (80, 8, 10), (100, 10, 10), (BLOCKED, 10, 10)]
