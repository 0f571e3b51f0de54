"""Addresses are read once: one spelling each, and a name is never one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.sip.address import (
    BadAddress,
    HostName,
    SocketAddress,
    canonical_ip,
    endpoint,
    parse_address,
    parse_endpoint,
)
from callwarden.sip.malformed import Malformed
from callwarden.sip.uri import parse_uri


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_every_spelling_of_an_address_is_the_same_address(host: str, canonical: str) -> None:
    assert SocketAddress(host, 5060) == SocketAddress(canonical, 5060)
    assert SocketAddress(host, 5060).host == canonical_ip(host) == canonical


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_an_address_is_read_back_as_it_was_written(ip: object, port: int) -> None:
    address = SocketAddress(str(ip), port)
    assert parse_endpoint(str(address), 1) == address
    assert parse_address(str(address)) == address
    assert type(endpoint(address.uri_host, port)) is SocketAddress


def test_ipv6_stands_in_brackets_only_where_it_is_written() -> None:
    address = SocketAddress("2001:db8::1", 5080)
    assert (str(address), address.uri_host, address.host) == ("[2001:db8::1]:5080", "[2001:db8::1]", "2001:db8::1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("198.51.100.1:5080", SocketAddress("198.51.100.1", 5080)),
        ("198.51.100.1", SocketAddress("198.51.100.1", 5060)),
        ("[2001:db8::1]:5080", SocketAddress("2001:db8::1", 5080)),
        ("[2001:db8::1]", SocketAddress("2001:db8::1", 5060)),
        ("2001:db8::1", SocketAddress("2001:db8::1", 5060)),
        ("Sip.Example.org.", HostName("sip.example.org", 5060)),
        ("localhost:5080", HostName("localhost", 5080)),
    ],
)
def test_endpoints_of_settings_and_routes(text: str, found: SocketAddress | HostName) -> None:
    assert parse_endpoint(text, 5060) == found
    assert type(parse_endpoint(text, 5060)) is type(found)


# What resolvers and sockets take for an IPv4 address, or for nothing at all.
NEITHER = ["192.0.2.7.5", "1", "127.1", "0x7f.1", "0x7f000001", "host.5", "256.1.1.1", "", "a b", "-a", "a..b", "a%41"]


@pytest.mark.parametrize("host", NEITHER)
def test_what_is_neither_an_address_nor_a_name_is_refused(host: str) -> None:
    for read in (SocketAddress, HostName, endpoint):
        with pytest.raises(BadAddress):
            read(host, 5060)


@pytest.mark.parametrize("host", ["192.0.2.1", "::1", "[::1]"])
def test_an_address_is_never_a_name_nor_a_name_an_address(host: str) -> None:
    with pytest.raises(BadAddress):
        HostName(host, 5060)
    with pytest.raises(BadAddress):
        SocketAddress("sip.example.org", 5060)


@pytest.mark.parametrize("text", ["192.0.2.1:", "192.0.2.1:x", "192.0.2.1:65536", "[::1", "[::1]5060", "[::1]:"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_endpoint(text, 5060)


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("sip:a@192.0.2.1", SocketAddress("192.0.2.1", 5060)),
        ("sips:a@192.0.2.1", SocketAddress("192.0.2.1", 5061)),
        ("sip:a@[::ffff:192.0.2.1]:5080", SocketAddress("192.0.2.1", 5080)),
        ("sip:Gw.Example.org;lr", HostName("gw.example.org", 5060)),
    ],
)
def test_a_uri_says_where_it_leads(uri: str, found: SocketAddress | HostName) -> None:
    assert parse_uri(uri).endpoint == found


@pytest.mark.parametrize("uri", ["tel:+4930", "sip:a@192.0.2.7.5", "urn:x:y"])
def test_a_uri_that_leads_nowhere_is_malformed(uri: str) -> None:
    with pytest.raises(Malformed):
        _ = parse_uri(uri).endpoint
