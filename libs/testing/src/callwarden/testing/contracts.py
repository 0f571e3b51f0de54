"""Contract suites: the same tests over every implementation of a port, so that a fake proves something.

A port's suite is a class whose name ends in "Contract"; a fixture `subject` hands it the implementation:

    class StoreContract(ContractSuite[Store]):
        async def test_an_update_is_seen_by_the_next(self, subject: Store) -> None: ...

    class TestMemoryStore(StoreContract):
        @pytest.fixture
        def subject(self) -> Store:
            return MemoryStore()

    class TestSqlStore(StoreContract):
        @pytest_asyncio.fixture
        async def subject(self, database_url: str) -> AsyncIterator[Store]: ...

A suite that only the fake passes shows nothing: `assert_shown_on` says so in the module with the implementations.
"""

from typing import ClassVar, Generic, TypeVar

import pytest

from callwarden.kernel.clock import Clock

T = TypeVar("T")


class ContractSuite(Generic[T]):
    """Base of all suites. Subclasses named "…Contract" are suites, all others implement `subject` and are run."""

    implementations: ClassVar[list[type]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        is_suite = cls.__name__.endswith("Contract")
        if is_suite:
            cls.implementations = []
        elif not cls.__name__.startswith("Test"):
            raise TypeError(f"{cls.__name__} would not be run: name a suite …Contract and an implementation Test…")
        elif "subject" not in {name for base in cls.__mro__ if base is not ContractSuite for name in vars(base)}:
            raise TypeError(f"{cls.__name__} has no fixture `subject`")
        else:
            cls.implementations.append(cls)

    @pytest.fixture
    def subject(self) -> T:
        """The implementation under test, fresh."""
        raise NotImplementedError


def assert_shown_on(suite: type[ContractSuite[T]], *names: str) -> None:
    """Fails unless exactly these test classes run the suite."""
    shown = sorted(implementation.__name__ for implementation in suite.implementations)
    assert shown == sorted(names), f"{suite.__name__} runs over {shown}"


class ClockContract(ContractSuite[Clock]):
    """What every `callwarden.kernel.clock.Clock` promises."""

    def test_wall_time_is_seconds_since_1970(self, subject: Clock) -> None:
        year_2020_s, year_2200_s = 1_577_836_800.0, 7_258_118_400.0
        assert year_2020_s < subject.unix_s() < year_2200_s

    def test_monotonic_time_does_not_run_backwards(self, subject: Clock) -> None:
        readings = [subject.mono_s() for _ in range(1_000)]
        assert readings == sorted(readings)

    def test_asking_for_the_time_does_not_use_it_up(self, subject: Clock) -> None:
        before_s = subject.unix_s()
        subject.mono_s()
        assert subject.unix_s() - before_s < 60.0
