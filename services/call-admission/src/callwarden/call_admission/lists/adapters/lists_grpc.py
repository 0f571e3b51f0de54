"""callwarden.api.admission.v1.ListService: messages to values and back, checked at the door."""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from callwarden.api.admission.v1 import lists_pb2 as pb
from callwarden.api.admission.v1 import lists_pb2_grpc
from callwarden.call_admission.lists.app.number_lists import ListInfo, NumberLists
from callwarden.call_admission.lists.core.list_file import BYTES_MAX
from callwarden.call_admission.lists.ports import WrittenList
from callwarden.call_admission.model.lists import Listed, ListHead, ListKind, ListSide
from callwarden.kernel.errors import Exhausted, Invalid

Choice = TypeVar("Choice", ListKind, ListSide)

TEXT_CHARS_MAX = 256
RECEIVED_MAX = 2  # files at a time, 64 MiB each: one that is written, one that comes in meanwhile


class ListGrpc(lists_pb2_grpc.ListServiceServicer):
    def __init__(self, lists: NumberLists) -> None:
        self._lists = lists
        self._received = 0

    async def ImportList(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ImportListRequest], context: Any
    ) -> pb.ImportListReply:
        if self._received >= RECEIVED_MAX:
            raise Exhausted("other lists are being imported: try again in a moment")
        self._received += 1
        try:
            return await self._import(request_iterator)
        finally:
            self._received -= 1

    async def _import(self, request_iterator: AsyncIterator[pb.ImportListRequest]) -> pb.ImportListReply:
        first: pb.ImportListRequest | None = None
        parts: list[bytes] = []
        size = 0
        async for part in request_iterator:
            first = first or part
            size += len(part.content)
            if size > BYTES_MAX:
                raise Invalid(f"a file has at most {BYTES_MAX} bytes", field="content")
            if part.content:
                parts.append(part.content)
        if first is None:
            raise Invalid("there is no part", field="content")
        head = ListHead(
            first.name,
            0,
            _choice(ListKind, first.kind or ListKind.BLOCK.value, "kind"),
            _choice(ListSide, first.side or ListSide.CALLED.value, "side"),
            first.description,
            0,
            first.source,
            tuple(first.trunks),
        )
        result = await self._lists.import_list(head, parts, column=_short(first.column), prefixes=first.prefixes)
        if isinstance(result, WrittenList):
            return pb.ImportListReply(version=result.version, entries=result.entries, duplicates=result.duplicates)
        return pb.ImportListReply(errors=[pb.ListLineError(line=error.line, reason=error.reason) for error in result])

    async def ListLists(self, request: pb.ListListsRequest, context: Any) -> pb.ListListsReply:  # noqa: N802
        return pb.ListListsReply(lists=[_info(info) for info in await self._lists.lists()])

    async def ShowList(self, request: pb.ShowListRequest, context: Any) -> pb.ShowListReply:  # noqa: N802
        info, entries = await self._lists.show(_short(request.name), _short(request.after), request.page_size)
        return pb.ShowListReply(
            list=_info(info), entries=[pb.ListEntry(pattern=entry.pattern, note=entry.note) for entry in entries]
        )

    async def DeleteList(self, request: pb.DeleteListRequest, context: Any) -> pb.DeleteListReply:  # noqa: N802
        return pb.DeleteListReply(deleted=await self._lists.delete(_short(request.name)))

    async def CheckNumber(self, request: pb.CheckNumberRequest, context: Any) -> pb.CheckNumberReply:  # noqa: N802
        found, listed = await self._lists.check(_short(request.number))
        return pb.CheckNumberReply(
            hits=[
                pb.ListHit(
                    list=one.hit.list,
                    kind=one.hit.kind.value,
                    side=one.side.value,
                    pattern=one.hit.pattern,
                    note=one.note,
                )
                for one in found
            ],
            listed=[listed_message(one) for one in listed],
        )

    async def ListListed(self, request: pb.ListListedRequest, context: Any) -> pb.ListListedReply:  # noqa: N802
        return pb.ListListedReply(numbers=[listed_message(one) for one in self._lists.listed()])

    async def RemoveListed(self, request: pb.RemoveListedRequest, context: Any) -> pb.RemoveListedReply:  # noqa: N802
        if bool(request.number) is request.all:
            raise Invalid("name one number, or all", field="number")
        lifted = await self._lists.lift(_short(request.number))
        return pb.RemoveListedReply(removed=[listed_message(one) for one in lifted])


def _choice(kind: type[Choice], text: str, field: str) -> Choice:
    try:
        return kind(text)
    except ValueError as error:
        raise Invalid(f"must be one of {', '.join(one.value for one in kind)}", field=field) from error


def _short(text: str) -> str:
    """PostgreSQL holds no NUL in text, and a protobuf string may have one."""
    if len(text) > TEXT_CHARS_MAX or "\0" in text:
        raise Invalid(f"is longer than {TEXT_CHARS_MAX} characters, or has a NUL in it")
    return text


def _info(info: ListInfo) -> pb.NumberList:
    head = info.head
    return pb.NumberList(
        name=head.name,
        version=head.version,
        kind=head.kind.value,
        side=head.side.value,
        description=head.description,
        entries=head.entries,
        source=head.source,
        updated_at_s=head.updated_at_s,
        loaded=info.loaded,
        trunks=head.trunks,
    )


def listed_message(listed: Listed) -> pb.ListedNumber:
    return pb.ListedNumber(
        list=listed.list,
        realm=listed.realm,
        side=listed.side.value,
        number=listed.number,
        account_id=str(listed.account_id or ""),
        reason=listed.reason,
        evidence=listed.evidence,
        since_s=listed.since_s,
        until_s=listed.until_s,
    )
