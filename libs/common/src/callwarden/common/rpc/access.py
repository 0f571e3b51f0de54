"""Who may call what: the roles, and for each gRPC method those that may call it.

In: the table. Our own methods say it in their .proto file, beside the rpc (`option (access.v1.callers)`); those of
others, which every server registers, say it here. A method that says nothing can be called by nobody. Out: how a caller
proves its role (`gate`, `tokens`).
"""

from functools import lru_cache
from typing import Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from callwarden.api.access.v1 import access_pb2

METHODS_MAX: Final = 1_024  # that are remembered; we have a hundred, and a caller of others isn't ours


def _name(role: int) -> str:
    return access_pb2.Role.Name(access_pb2.Role.ValueType(role)).removeprefix("ROLE_").lower().replace("_", "-")


ADMIN: Final = _name(access_pb2.ROLE_ADMIN)
MONITOR: Final = _name(access_pb2.ROLE_MONITOR)
ROLES: Final = frozenset(_name(role) for role in access_pb2.Role.values() if role != access_pb2.ROLE_UNSPECIFIED)
"""By the names that certificates and tokens prove: those of the services (`edge-proxy`), `admin`, `monitor`."""

# gRPC's own services. Health says nothing but whether a service serves; reflection shows every method and message.
OTHERS: Final = {
    "/grpc.health.v1.Health/Check": ROLES,
    "/grpc.health.v1.Health/List": ROLES,
    "/grpc.health.v1.Health/Watch": ROLES,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": frozenset({ADMIN}),
}


@lru_cache(maxsize=METHODS_MAX)
def callers_of(method: str) -> frozenset[str]:
    """The roles that may call `/package.Service/Method`; empty for one that says nothing, or isn't known."""
    if method in OTHERS:
        return OTHERS[method]
    service, _, name = method.removeprefix("/").rpartition("/")
    try:
        found: MethodDescriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    except KeyError:
        return frozenset()
    return frozenset(_name(role) for role in found.GetOptions().Extensions[access_pb2.callers])
