"""A service's name and the addresses behind it, which change: pods come and go behind one name.

In: which targets are names, what they stand for now. Out: when that is asked, and what is done with it (stream.pool).
A name here is whatever the machine's resolver knows; in Kubernetes that of a headless Service, which has the address of
each pod that is ready.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from callwarden.common.settings import split_listen
from callwarden.kernel.errors import Invalid

ADDRESSES_MAX: Final = (
    64  # of one name; each is a connection of every process that asks. An autoscaler stops at a dozen.
)

# A host to its addresses, as text. OSError if it has none or the resolver fails.
Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]


async def addresses(host: str) -> Sequence[str]:
    """The answer of the machine's resolver: the IPv4 addresses or, if there are none, the IPv6 addresses.

    One family: both are the same pods, and our servers listen on IPv4 unless there is only IPv6. Takes as long as the
    resolver does, which gives up by itself.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # nothing that DNS could hold
        raise OSError(f"{host!r} is no name of a host") from error
    for wanted in (socket.AF_INET, socket.AF_INET6):
        if those := [str(address[0]) for family, *_, address in found if family == wanted]:
            return those
    raise OSError(f"{host} has no address")


def is_name(target: str) -> bool:
    """Whether the host of host:port is a name rather than an address. Invalid if it is no host:port."""
    try:
        host, _ = split_listen(target)
    except ValueError as error:
        raise Invalid(f"{target!r} is no host:port") from error
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


async def targets(name: str, resolve: Resolve) -> tuple[str, ...]:
    """host:port as address:port for each address that `resolve` finds, in order, at most ADDRESSES_MAX."""
    host, port = split_listen(name)
    # Sorted, so that all processes leave out the same ones.
    found = sorted({ipaddress.ip_address(address) for address in await resolve(host)}, key=lambda it: (it.version, it))
    return tuple(f"[{it}]:{port}" if it.version == 6 else f"{it}:{port}" for it in found[:ADDRESSES_MAX])
