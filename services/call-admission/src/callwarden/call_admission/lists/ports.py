"""What number lists need of the world. Each docstring is the contract; every method may raise Unavailable."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from callwarden.call_admission.lists.core.call_stats import CallCount
from callwarden.call_admission.model.lists import Listed, ListEntry, ListHead


@dataclass(frozen=True, slots=True)
class WrittenList:
    """A list that was written. `duplicates`: entries that came more than once."""

    version: int
    entries: int
    duplicates: int


class ListStore(Protocol):
    """Fixed lists, kept. What one method wrote the next reads."""

    async def heads(self) -> list[ListHead]:
        """All lists with the version that holds, by name."""
        ...

    def patterns(self, name: str, version: int) -> AsyncIterator[Sequence[str]]:
        """The entries of one version in pages; those with as many digits ascending.

        A version that was replaced meanwhile may end early: who reads counts, and looks at `heads` again.
        """
        ...

    async def entries(self, name: str, after: str, limit: int) -> Sequence[ListEntry]:
        """Entries of the version that holds, in their order, after that one."""
        ...

    async def note(self, name: str, pattern: str) -> str:
        """The note of one entry; "" where there is none."""
        ...

    async def replace(self, head: ListHead, pages: AsyncIterator[Sequence[ListEntry]]) -> WrittenList:
        """Makes these entries (at least one) the list of that name, under a version above all before.

        All or nothing: until the end readers get the version before, and whatever fails leaves it in place. `version`,
        `entries` and `updated_at_s` of the head are ignored. Raises Conflict when another import of the list came in
        between, Exhausted beyond LISTS_MAX or ENTRIES_TOTAL_MAX.
        """
        ...

    async def delete(self, name: str) -> bool:
        """Takes the list away; whether it was there."""
        ...

    async def realms(self, accounts: Sequence[UUID]) -> Mapping[UUID, str]:
        """The realms of those accounts that there are."""
        ...


class ListPublisher(Protocol):
    """Notifies all processes."""

    async def changed(self, name: str, version: int) -> None:
        """A list has this version now; 0: it is gone. May be lost, never raises."""
        ...


class CountPublisher(Protocol):
    """Publishes to all other processes how calls ended."""

    async def counted(self, counts: Sequence[CallCount]) -> None:
        """This process counted so much since it published last. May be lost, never raises."""
        ...


class ListedStore(Protocol):
    """Numbers that are listed for a time, kept for all processes; each gone by itself at its end."""

    async def put(self, listed: Listed) -> bool:
        """Lists it; False if it is listed already, which stays as it is."""
        ...

    async def delete(self, listed: Listed) -> None:
        """Lifts it; nothing happens if it isn't listed."""
        ...

    async def all(self) -> Sequence[Listed]:
        """What is listed."""
        ...
