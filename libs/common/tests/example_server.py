"""A server of our own in this process, with a service whose handlers the test gives."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.rpc.server import Server
from callwarden.common.rpc.stream import Handler, StreamServicer

REQUEST_TYPES = {"Count": pb.CountRequest, "ListBans": pb.ListBansRequest, "AddBan": pb.AddBanRequest}


class ExampleServicer(StreamServicer, rateguard_pb2_grpc.RateGuardServiceServicer):
    """Any handlers behind the real generated service, on the stream and unary."""

    def __init__(self, handlers: Mapping[str, Handler], **options: Any) -> None:
        super().__init__({name: (REQUEST_TYPES[name], handler) for name, handler in handlers.items()}, **options)
        self._by_name = handlers

    async def _unary(self, name: str, request: Any) -> Any:
        result = self._by_name[name](request)
        return await result if isinstance(result, Awaitable) else result

    async def Count(self, request: Any, context: Any) -> Any:
        return await self._unary("Count", request)

    async def ListBans(self, request: Any, context: Any) -> Any:
        return await self._unary("ListBans", request)

    async def AddBan(self, request: Any, context: Any) -> Any:
        return await self._unary("AddBan", request)

    async def RemoveBans(self, request: Any, context: Any) -> Any:
        return pb.RemoveBansReply()


class Served:
    """A running server: where it is and what it counts."""

    def __init__(self, server: Server, servicer: ExampleServicer, host: str) -> None:
        self.server = server
        self.servicer = servicer
        self.target = f"{host}:{server.port}"
        self.metrics = server.serving.metrics

    async def stop(self) -> None:
        """As if the process had died, as far as a peer can tell: what runs is cut off."""
        await self.server.stop(0)


Serve = Callable[..., Awaitable[Served]]
