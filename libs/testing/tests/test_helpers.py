"""Clocks, waiting, skipping, contracts."""

import asyncio

import pytest

from callwarden.common.clock import SystemClock
from callwarden.kernel.clock import Clock
from callwarden.testing.clock import FakeClock
from callwarden.testing.contracts import ClockContract, ContractSuite, assert_shown_on
from callwarden.testing.programs import needs_program
from callwarden.testing.waiting import eventually


class TestFakeClock(ClockContract):
    @pytest.fixture
    def subject(self) -> Clock:
        return FakeClock()


class TestSystemClock(ClockContract):
    @pytest.fixture
    def subject(self) -> Clock:
        return SystemClock()


def test_the_clock_contract_is_shown_on_the_real_one_too() -> None:
    assert_shown_on(ClockContract, "TestFakeClock", "TestSystemClock")
    with pytest.raises(AssertionError, match="runs over"):
        assert_shown_on(ClockContract, "TestFakeClock")


def test_a_contract_without_a_subject_or_that_pytest_would_not_run_is_refused() -> None:
    class NothingContract(ContractSuite[int]):
        pass

    with pytest.raises(TypeError, match="no fixture `subject`"):
        type("TestNothing", (NothingContract,), {})
    with pytest.raises(TypeError, match="would not be run"):
        type("Nothing", (NothingContract,), {"subject": 1})
    assert NothingContract.implementations == []


def test_a_fake_clock_stands_still_until_it_is_turned(fake_clock: FakeClock) -> None:
    unix_s, mono_s = fake_clock.unix_s(), fake_clock.mono_s()
    assert fake_clock.unix_s() == unix_s
    fake_clock.advance(1.5)
    assert (fake_clock.unix_s(), fake_clock.mono_s()) == (unix_s + 1.5, mono_s + 1.5)
    with pytest.raises(ValueError, match="not in the future"):
        fake_clock.advance(-1)


def test_the_wall_clock_may_step_back_and_the_monotonic_does_not_notice(fake_clock: FakeClock) -> None:
    unix_s, mono_s = fake_clock.unix_s(), fake_clock.mono_s()
    fake_clock.step_wall(-3_600)
    assert (fake_clock.unix_s(), fake_clock.mono_s()) == (unix_s - 3_600, mono_s)


async def test_eventually_returns_the_first_true_value_of_a_plain_or_async_probe() -> None:
    values = iter([0, "", None, "there"])
    assert await eventually(lambda: next(values), interval_s=0) == "there"

    async def probe() -> int:
        await asyncio.sleep(0)
        return 7

    assert await eventually(probe) == 7


async def test_eventually_says_what_did_not_come_true() -> None:
    with pytest.raises(AssertionError, match=r"the row did not come true within 0\.01 s, it gave 0"):
        await eventually(lambda: 0, timeout_s=0.01, interval_s=0, what="the row")

    def probe() -> bool:
        raise AssertionError("three rows, not one")

    with pytest.raises(AssertionError, match="three rows, not one"):
        await eventually(probe, timeout_s=0.01, interval_s=0)


async def test_eventually_does_not_hide_an_error_that_is_no_assertion() -> None:
    def probe() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await eventually(probe)


def test_a_missing_program_is_named_with_what_installs_it() -> None:
    missing = needs_program("no-such-program", "some-package").mark
    assert missing.args == (True,)
    assert missing.kwargs["reason"] == "needs no-such-program: apt-get install some-package"
    assert needs_program("sipp").mark.kwargs["reason"] == "needs sipp: apt-get install sip-tester"
    assert needs_program("sh").mark.args == (False,)
