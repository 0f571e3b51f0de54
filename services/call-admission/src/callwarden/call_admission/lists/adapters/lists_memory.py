"""Number lists in memory, for tests: keeps what lists.ports promises, as the contract suite shows."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from callwarden.call_admission.lists.ports import WrittenList
from callwarden.call_admission.model.lists import ENTRIES_TOTAL_MAX, LISTS_MAX, Listed, ListEntry, ListHead
from callwarden.kernel.errors import Conflict, Exhausted


class MemoryLists:
    """lists.ports.ListStore."""

    def __init__(self, realms: Mapping[UUID, str] | None = None) -> None:
        self._realms = dict(realms or {})
        self._heads: dict[str, ListHead] = {}
        self._entries: dict[tuple[str, int], dict[str, ListEntry]] = {}
        self._last = 0

    async def heads(self) -> list[ListHead]:
        return [head for _, head in sorted(self._heads.items())]

    async def patterns(self, name: str, version: int) -> AsyncIterator[Sequence[str]]:
        yield sorted(self._entries.get((name, version), {}))

    async def entries(self, name: str, after: str, limit: int) -> Sequence[ListEntry]:
        return [entry for pattern, entry in sorted(self._of(name).items()) if pattern > after][:limit]

    async def note(self, name: str, pattern: str) -> str:
        entry = self._of(name).get(pattern)
        return entry.note if entry is not None else ""

    def _of(self, name: str) -> Mapping[str, ListEntry]:
        head = self._heads.get(name)
        return self._entries[name, head.version] if head is not None else {}

    async def replace(self, head: ListHead, pages: AsyncIterator[Sequence[ListEntry]]) -> WrittenList:
        before = self._heads.get(head.name)
        entries: dict[str, ListEntry] = {}
        read = 0
        async for page in pages:
            for entry in page:
                entries.setdefault(entry.pattern, entry)
            read += len(page)
        if self._heads.get(head.name) is not before:
            raise Conflict("another import of this list came in between", field="name")
        others = [other for other in self._heads.values() if other.name != head.name]
        if len(others) >= LISTS_MAX:
            raise Exhausted(f"there are {LISTS_MAX} lists already")
        if sum(other.entries for other in others) + len(entries) > ENTRIES_TOTAL_MAX:
            raise Exhausted(f"all lists together have at most {ENTRIES_TOTAL_MAX:,} entries")
        self._last += 1
        self._entries[head.name, self._last] = entries
        self._heads[head.name] = replace(head, version=self._last, entries=len(entries), updated_at_s=float(self._last))
        if before is not None:
            del self._entries[head.name, before.version]
        return WrittenList(self._last, len(entries), read - len(entries))

    async def delete(self, name: str) -> bool:
        head = self._heads.pop(name, None)
        if head is not None:
            del self._entries[name, head.version]
        return head is not None

    async def realms(self, accounts: Sequence[UUID]) -> Mapping[UUID, str]:
        return {account: self._realms[account] for account in accounts if account in self._realms}


class MemoryListed:
    """lists.ports.ListedStore; nothing ends by itself here."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, ...], Listed] = {}

    async def put(self, listed: Listed) -> bool:
        return self.kept.setdefault(listed.key, listed) is listed

    async def delete(self, listed: Listed) -> None:
        self.kept.pop(listed.key, None)

    async def all(self) -> Sequence[Listed]:
        return list(self.kept.values())
