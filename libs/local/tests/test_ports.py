"""Ports stay reserved against everyone who asks."""

import socket
import subprocess
import sys
from pathlib import Path

from callwarden.local import ports


def test_two_reservations_are_two_ports() -> None:
    taken = [ports.reserve() for _ in range(50)]
    assert len({port.number for port in taken}) == 50
    for port in taken:
        port.release()


def test_a_reserved_port_can_be_bound_for_tcp_and_udp() -> None:
    with ports.reserved() as number:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as listener:
                listener.bind((ports.LOOPBACK, number))


def test_a_port_used_for_either_protocol_is_not_free() -> None:
    with ports.reserved() as number:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert ports.is_free(number)
            with socket.socket(socket.AF_INET, kind) as listener:
                listener.bind((ports.LOOPBACK, number))
                if kind == socket.SOCK_STREAM:
                    listener.listen()
                assert not ports.is_free(number)


def test_outgoing_connections_are_never_given_a_reserved_port() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with ports.reserved() as number:
        assert number < lowest


def test_another_process_sees_the_reservation_until_it_is_released() -> None:
    # Its random numbers are led to the reserved port: it must take the second one.
    program = """
import sys
from callwarden.local import ports
ports._candidates = lambda: iter([int(sys.argv[1]), int(sys.argv[2])])
print(ports.reserve().number)
"""

    def other_process(first: int, second: int) -> int:
        command = [sys.executable, "-c", program, str(first), str(second)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)

    mine, spare = ports.reserve(), ports.reserve()
    spare.release()
    assert other_process(mine.number, spare.number) == spare.number
    mine.release()
    assert other_process(mine.number, spare.number) == mine.number
