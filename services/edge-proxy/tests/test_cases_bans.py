"""Cases: nobody is shut out by what somebody else could have sent in his name, nor by what isn't an attack."""

import pytest
from edge_world import REALM, Agent, EdgeWorld, policy

from callwarden.edge_proxy.core.counters import WIDE_SHARE, EdgeAddressReport, EdgeCounters, EdgeExcess
from callwarden.edge_proxy.core.effects import CallerIdentity, ScannerSeen
from callwarden.edge_proxy.core.keepalive import is_keepalive
from callwarden.edge_proxy.core.rules import Rules
from callwarden.edge_proxy.core.source_filter import Drop
from callwarden.kernel.clock import MonoS

pytestmark = pytest.mark.cases

NUMBER = "+49301234567"
STUN = bytes.fromhex("000100002112a442") + b"callwarden12"
KEEPALIVES = {
    "CRLFCRLF": b"\r\n\r\n",
    "CRLF": b"\r\n",
    "empty": b"",
    "CRLF NUL": b"\r\n\0",
    "CRLFCRLF NUL": b"\r\n\r\n\0",
    "four NULs": b"\0" * 4,
    "eight NULs": b"\0" * 8,
    "LF": b"\n",
    "three CRLF": b"\r\n" * 3,
    "STUN request": STUN,
    "STUN answer": b"\1\1" + STUN[2:],
    "STUN with an attribute": b"\0\1\0\x08" + STUN[4:] + b"\x80\x22\0\4abcd",
    "Kapanga": b"jaK",
}
FEW_WRONG: dict[str, object] = {
    "messages": {"perAddress": {"max": 40_000, "period": "60s"}, "wrongPerAddress": {"max": 10, "period": "1h"}}
}


def is_served(agent: Agent) -> bool:
    agent.inbox.clear()
    agent.send(agent.request("OPTIONS", f"sip:{REALM}"))
    return len(agent.inbox) == 1


def report_of(world: EdgeWorld, host: str) -> EdgeAddressReport:
    (found,) = [report for report in world.edge.counters.take_report(world.mono_s) if report.host == host]
    return found


@pytest.mark.parametrize("data", KEEPALIVES.values(), ids=KEEPALIVES.keys())
def test_28_phones_behind_one_nat_keep_it_open(data: bytes) -> None:
    world = EdgeWorld({"messages": {"perAddress": {"max": 30, "period": "1h"}, "wrongPerAddress": {"max": 1}}})
    phones = [world.agent("192.0.2.1", 20_000 + number, "x") for number in range(28)]
    for _ in range(10):
        for phone in phones:
            phone.send(data)
    assert all(map(is_served, phones))
    report = report_of(world, "192.0.2.1")
    assert (report.messages, report.wrong) == (28, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"jaKx",
        b"INVITE",
        STUN[:-1],
        STUN + b"x",
        b"\0" * 200,
        b"\x40" + STUN[1:],
        b"\x80\0\0\1" + b"\0" * 168,
        b"\r\nx",
    ],
)
def test_what_only_looks_like_it_is_none(data: bytes) -> None:
    assert not is_keepalive(data)


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE"])
def test_one_datagram_with_a_carriers_address_and_a_scanners_name_bans_nobody(method: str) -> None:
    world = EdgeWorld()
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    carrier.send(carrier.request(method, f"sip:{REALM}", headers=[("User-Agent", "friendly-scanner")]))
    assert not world.events_of(ScannerSeen)
    world.talk(alice, carrier, NUMBER)
    assert len(world.started) == 1


@pytest.mark.parametrize("who", ["registered phone", "phone that starts", "carrier", "trunk", "ourselves"])
def test_4_200_malformed_datagrams_in_its_name_leave_it_served(who: str) -> None:
    world = EdgeWorld(FEW_WRONG)
    alice, carrier = world.registered("alice", "192.0.2.1"), world.carrier()
    world.talk(alice, carrier, NUMBER)
    world.trunks["192.0.2.99"] = CallerIdentity("account-pbx", "traffic-sender", (), "", 60, "trunk")
    trunk = world.agent("192.0.2.99", user="pbx")
    trunk.send(trunk.request("INVITE", f"sip:{NUMBER}@{REALM}"))
    victim = {
        "registered phone": alice,
        "phone that starts": world.user("bob", "192.0.2.2"),
        "carrier": carrier,
        "trunk": trunk,
        "ourselves": world.agent("192.0.2.10", 5060, "edge"),
    }[who]
    forger = Agent(world, victim.host, 9)
    for number in range(4_200):
        forger.send(b"OPTIONS sip:x SIP/2.0\r\nVia: bad\r\n\r\n")
        if number % 100 == 0:
            world.advance(1)
    world.advance(1)
    assert is_served(victim)
    assert not report_of(world, victim.host).verified or victim is alice
    assert not world.events_of(ScannerSeen)


def test_garbage_as_credentials_in_a_phones_name_is_no_failure_of_it() -> None:
    world = EdgeWorld({"authFailures": {"perAddress": {"max": 5}, "period": "1h"}})
    alice = world.registered("alice", "192.0.2.1")
    forger = Agent(world, "192.0.2.1", 9, "alice")
    foreign = 'Digest username="alice", realm="callwarden.local", nonce="x", uri="sip:x", response="' + "0" * 32 + '"'
    for value in ("Digest garbage", foreign) * 450:
        forger.send(forger.request("REGISTER", f"sip:{REALM}", headers=[("Authorization", value)]))
    report = report_of(world, "192.0.2.1")
    assert sum(sums.failures for *_, sums in report.endpoints) == 0
    assert is_served(alice)


def test_the_first_register_of_an_ims_phone_and_stale_nonces_count_as_nothing() -> None:
    world = EdgeWorld()
    phone = world.agent("192.0.2.1", user="bob")
    empty = f'Digest username="bob", realm="{REALM}", nonce="", uri="sip:{REALM}", response=""'
    request = phone.request("REGISTER", f"sip:{REALM}")
    phone.send(request)
    stale = phone.with_credentials(request, phone.response(401))
    world.advance(100_000)
    phone.send(stale)
    phone.response(401)
    for _ in range(50):
        phone.send(phone.request("REGISTER", f"sip:{REALM}", headers=[("Authorization", empty)]))
        phone.response(401)
    report = report_of(world, "192.0.2.1")
    assert (report.wrong, sum(sums.failures for *_, sums in report.endpoints)) == (0, 0)
    assert not report.verified


def test_who_guesses_with_our_nonces_is_verified_and_counted() -> None:
    world = EdgeWorld()
    world.user("alice", "192.0.2.1")
    guesser = world.agent("203.0.113.66", user="alice")
    request = guesser.request("REGISTER", f"sip:{REALM}")
    guesser.send(request)
    guesser.send(guesser.with_credentials(request, guesser.response(401), "wrong"))
    guesser.response(401)
    report = report_of(world, "203.0.113.66")
    assert report.verified
    assert sum(sums.failures for *_, sums in report.endpoints) == 1
    # It can be held against it now, and against nobody who only shares a wire with it.
    nonce = guesser.request("REGISTER", f"sip:{REALM}", call_id="b")
    guesser.send(nonce)
    guess = guesser.with_credentials(nonce, guesser.response(401), "wrong")
    guess.add("User-Agent", "sipvicious")
    guesser.send(guess)
    assert [seen.source for seen in world.events_of(ScannerSeen)] == ["203.0.113.66"]


def test_a_nonce_that_was_given_to_another_address_proves_nothing() -> None:
    world = EdgeWorld()
    mallory, victim = world.agent("203.0.113.66", user="m"), world.agent("192.0.2.1", user="m")
    request = mallory.request("REGISTER", f"sip:{REALM}")
    mallory.send(request)
    forged = victim.with_credentials(request, mallory.response(401), "wrong")
    forged.add("User-Agent", "sipvicious")
    victim.send(forged)
    assert not world.events_of(ScannerSeen)
    assert not report_of(world, "192.0.2.1").verified


@pytest.mark.parametrize(
    ("what", "spec", "served"),
    [
        ("messages", {"messages": {"perAddress": {"max": 20, "period": "1h"}}}, 20),
        ("failures", {"authFailures": {"perAddress": {"max": 20}, "period": "1h"}}, 21),
        ("wrong", {"messages": {"wrongPerAddress": {"max": 20, "period": "1h"}}}, 21),
    ],
)
def test_a_64_is_held_to_the_limits_of_one_address(what: str, spec: dict[str, object], served: int) -> None:
    counters = EdgeCounters(Rules.compile(policy(spec).for_realm(REALM), 1))
    mono_s = MonoS(1_000.0)
    passed = 0
    for number in range(1, 61):
        host = f"2001:db8:0:7::{number:x}"
        passed += counters.message(host, mono_s) is None
        if what == "failures":
            counters.failed(host, 5060, "alice", mono_s)
        elif what == "wrong":
            counters.wrong(host, mono_s)
    assert passed == served
    assert counters.message("2001:db8:0:8::1", mono_s) is None
    # Who is known there is served all the same.
    counters.succeeded("2001:db8:0:7::1", 5060, "bob", mono_s)
    assert counters.may_exceed("2001:db8:0:7::1", EdgeExcess.RATE, mono_s, known=False)
    assert {report.host for report in counters.take_report(mono_s)} == {"2001:db8:0:7::/64", "2001:db8:0:8::/64"}


@pytest.mark.parametrize("what", ["messages", "failures", "wrong"])
def test_the_64s_of_a_48_are_not_as_many_sources(what: str) -> None:
    spec: dict[str, object] = {
        "messages": {
            "perAddress": {"max": 20 if what == "messages" else 100_000, "period": "1h"},
            "wrongPerAddress": {"max": 20, "period": "1h"},
        },
        "authFailures": {"perAddress": {"max": 20}, "period": "1h"},
    }
    counters = EdgeCounters(Rules.compile(policy(spec).for_realm(REALM), 1))
    mono_s = MonoS(1_000.0)
    served = 0
    for number in range(1, 20 * WIDE_SHARE + 100):
        host = f"2001:db8:7:{number:x}::1"
        served += counters.message(host, mono_s) is None
        if what == "failures":
            counters.failed(host, 5060, "alice", mono_s)
        elif what == "wrong":
            counters.wrong(host, mono_s)
    assert served == 20 * WIDE_SHARE + (what != "messages")
    assert counters.message("2001:db8:8::1", mono_s) is None  # the next customer


def test_a_ban_on_a_64_drops_all_of_it_and_its_lifting_none() -> None:
    world = EdgeWorld()
    source_filter = world.edge.source_filter
    source_filter.ban("2001:db8:0:7::", None, 0.0)
    for host, drop in (("2001:db8:0:7::1", True), ("2001:db8:0:7:ffff::9", True), ("2001:db8:0:8::1", False)):
        assert (source_filter.judge_address(host, 5060, world.mono_s) is Drop.BANNED) is drop
    source_filter.unban("2001:db8:0:7::", None)
    assert source_filter.judge_address("2001:db8:0:7::1", 5060, world.mono_s) is None
    source_filter.ban("2001:db8:0:7::1", 5060, 0.0)  # one phone of an office
    assert source_filter.judge_address("2001:db8:0:7::1", 5060, world.mono_s) is Drop.BANNED
    assert source_filter.judge_address("2001:db8:0:7::2", 5060, world.mono_s) is None
