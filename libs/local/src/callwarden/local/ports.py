"""Free ports that stay ours: chosen, reserved against other launchers of this machine, given back.

A port must be known before its process starts (peers are told it) and must still be free when a killed process comes
back. So it is taken from below the range the kernel gives to outgoing connections, and the reservation is a name, not
the port itself.
"""

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST = 15_000  # Below are the well-known ones: SIP, NATS, PostgreSQL, development servers.
_EPHEMERAL_DEFAULT = 32_768  # Linux's own default of ip_local_port_range.
_ATTEMPTS_MAX = 500  # Of ~17,000 ports; a machine where this fails has no ports left.


class NoFreePort(Exception):
    """No port could be reserved."""


class Port:
    """A reserved port. Reserved until `release`, or until this process ends."""

    def __init__(self, number: int, name: socket.socket) -> None:
        self.number = number
        self._name = name

    def __int__(self) -> int:
        return self.number

    def release(self) -> None:
        self._name.close()


def _ephemeral_start() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_DEFAULT


def _candidates() -> Iterator[int]:
    top = _ephemeral_start()
    low, high = (_LOWEST, top) if top - _LOWEST > _ATTEMPTS_MAX else (_EPHEMERAL_DEFAULT, 61_000)
    for _ in range(_ATTEMPTS_MAX):
        yield random.randrange(low, high)  # noqa: S311  Spreads launchers apart; hides nothing.


def is_free(number: int) -> bool:
    """Free for TCP and for UDP, since a SIP listener may want both."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # What servers do: TIME_WAIT is no obstacle.
            try:
                probe.bind((LOOPBACK, number))
            except OSError:
                return False
    return True


def reserve() -> Port:
    """Reserve a port free for TCP and UDP on the loopback. NoFreePort if there is none.

    The reservation is an abstract Unix socket's name: it lives in the same network namespace as the port, every user
    sees it, and the kernel drops it with the process. Only launchers of ours respect it.
    """
    for number in _candidates():
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0callwarden.port.{number}")
        except OSError:
            name.close()
            continue
        if is_free(number):
            return Port(number, name)
        name.close()
    raise NoFreePort(f"no free port on {LOOPBACK} after {_ATTEMPTS_MAX} attempts")


@contextlib.contextmanager
def reserved() -> Iterator[int]:
    """A port for the length of a block."""
    port = reserve()
    try:
        yield port.number
    finally:
        port.release()
