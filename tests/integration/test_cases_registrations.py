"""Cases of what phones register, on two running edges of which one's clock is 5 s ahead: what one was told, both do.

A phone here is a socket; the phones that people have are in test_cases_phones.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.waiting import eventually
from callwarden.testing.wall_clocks import WallClock, needs_wall_clocks
from tests.integration.answered_dialogs import POLICY
from tests.integration.two_edges import TwoEdges, two_edges
from tests.integration.wire import Datagram, Wire, WireCall, credentials, message, reply, token

pytestmark = [
    pytest.mark.cases,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(400),
    needs_wall_clocks,
]

AHEAD_S = 5.0
GUESSES = 12
HOST = "127.0.11.3"
URI = f"sip:{DEFAULT_REALM}"
INSTANCE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>"'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwoEdges]:
    clock = WallClock(Path(tmp_path_factory.mktemp("clock")) / "clock", AHEAD_S)
    async with two_edges("127.0.11.1", "127.0.11.2", POLICY, {"edge-proxy-1": clock.environment}) as running:
        await running.operator.account("alice", lines=20)
        yield running


async def register(
    phone: Wire,
    user: str,
    edge: str,
    *contacts: str,
    more: Sequence[str] = (),
    asks: str = "",
    username: str = "",
    password: str = PASSWORD,
) -> Datagram:
    """The answer to a REGISTER with credentials; the nonce is of the edge `asks`, or of the same."""
    call_id, branch = token(), ""

    def request(cseq: int, *lines: str) -> str:
        nonlocal branch
        branch = token()
        head = [
            f"Via: SIP/2.0/UDP {phone.address};rport;branch=z9hG4bK{branch}",
            "Max-Forwards: 70",
            f"From: <sip:{user}@{DEFAULT_REALM}>;tag=1",
            f"To: <sip:{user}@{DEFAULT_REALM}>",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} REGISTER",
            *(f"Contact: {contact}" for contact in contacts),
        ]
        return message(f"REGISTER {URI} SIP/2.0", [*head, *lines, *more])

    def is_answer(got: Datagram) -> bool:
        return branch in got.text

    challenged = await phone.ask(request(1), asks or edge, is_answer)
    assert challenged.status == 401
    given = credentials(challenged, username or user, "REGISTER", URI, password=password)
    return await phone.ask(request(2, f"Authorization: {given}"), edge, is_answer)


async def is_known(phone: Wire, user: str, edge: str, bindings: int) -> None:
    """Returns when that edge knows so many phones of the user."""

    async def known() -> bool:
        return len((await register(phone, user, edge)).all("contact")) == bindings

    await eventually(known, what=f"{edge} knows {bindings} phones of {user}")


async def called(site: TwoEdges, user: str, edge: str, phones: Sequence[Wire]) -> None:
    """A call to the user goes to these phones, one after the other; the last one is busy, too."""
    call = WireCall(site.caller, edge, f"to-{user}", "alice", uri=f"sip:{user}@{DEFAULT_REALM}")
    site.caller.send(await call.start(), edge)
    for phone in phones:
        came = await phone.until(
            lambda got: got.method == "INVITE" and got.get("call-id") == call.call_id, f"the INVITE at {phone.address}"
        )
        phone.send(reply(came, 486, "busy"), came.source)
    busy = await site.caller.until(lambda got: got.status == 486 and got.get("call-id") == call.call_id, "486")
    call.acknowledge_failure(busy)


EDGES = pytest.mark.parametrize(("told", "other"), [(0, 1), (1, 0)])


@EDGES
async def test_the_preferred_phone_rings_first_at_the_other_edge(site: TwoEdges, told: int, other: int) -> None:
    user = f"q{told}"
    await site.operator.account(user)
    async with Wire(HOST) as low, Wire(HOST) as high:
        contacts = f"<sip:{user}@{low.address}>;q=0.2, <sip:{user}@{high.address}>;q=0.9"
        assert (await register(low, user, site.edge(told), contacts)).text.count("q=0.") == 2
        await is_known(low, user, site.edge(other), 2)
        await called(site, user, site.edge(other), [high, low])


@EDGES
async def test_a_call_goes_where_the_contact_says_and_not_where_the_register_came_from(
    site: TwoEdges, told: int, other: int
) -> None:
    user = f"port{told}"
    await site.operator.account(user)
    async with Wire(HOST) as sends, Wire(HOST) as listens:
        assert (await register(sends, user, site.edge(told), f"<sip:{user}@{listens.address}>")).status == 200
        await is_known(sends, user, site.edge(other), 1)
        await called(site, user, site.edge(other), [listens])
        assert not [got for got in sends.got if got.method == "INVITE"]


@EDGES
@pytest.mark.parametrize(
    ("flows", "left"), [(("", ""), 1), ((";reg-id=1", ";reg-id=1"), 1), ((";reg-id=1", ";reg-id=2"), 2)]
)
async def test_a_restarted_phone_replaces_at_one_edge_what_it_told_the_other(
    site: TwoEdges, told: int, other: int, flows: tuple[str, str], left: int
) -> None:
    user = f"flow{told}{left}{len(flows[0])}"
    await site.operator.account(user)
    async with Wire(HOST) as before, Wire(HOST) as after:
        contact = f"<sip:{user}@{before.address}>;{INSTANCE}{flows[0]}"
        assert (await register(before, user, site.edge(told), contact)).status == 200
        await is_known(before, user, site.edge(other), 1)
        contact = f"<sip:{user}@{after.address}>;{INSTANCE}{flows[1]}"
        answer = await register(after, user, site.edge(other), contact)
        assert len(answer.all("contact")) == left
        await called(site, user, site.edge(other), [after] if left == 1 else [after, before])


def bounded(expires_s: int) -> Callable[[Datagram], bool]:
    return lambda answer: answer.status == 200 and f"expires={expires_s}" in answer.get("contact")


def unsupported(options: str) -> Callable[[Datagram], bool]:
    return lambda answer: answer.status == 420 and answer.get("unsupported") == options


ODD: list[tuple[str, list[str], Callable[[Datagram], bool]]] = [
    ("path", ["Require: path", "Path: <sip:e.example;lr>"], unsupported("path")),
    ("flows", ["Require: outbound, gruu"], unsupported("outbound, gruu")),
    ("ages", ["Expires: 99999999999999999999"], bounded(7_200)),
    ("word", ["Expires: soon"], bounded(3_600)),
    ("brief", ["Expires: 5"], lambda got: (got.status, got.get("min-expires")) == (423, "60")),
]


@pytest.mark.parametrize("crossed", [False, True], ids=["its own nonce", "the other edge's nonce"])
@pytest.mark.parametrize("edge", [0, 1])
async def test_what_is_odd_in_a_registration_has_its_answer_at_each_edge_and_by_nonces_of_both(
    site: TwoEdges, edge: int, crossed: bool
) -> None:
    async with Wire(HOST) as phone:
        for name, more, is_right in ODD:
            user = f"{name}{edge}{crossed:d}"
            await site.operator.account(user)
            answer = await register(
                phone, user, site.edge(edge), f"<sip:{user}@{phone.address}>", more=more,
                asks=site.edge(edge + crossed), username=f"{user}@{DEFAULT_REALM}",
            )  # fmt: skip
            assert is_right(answer), (name, answer.text)


async def test_a_user_who_is_guessed_from_address_after_address_is_at_home_where_he_was(site: TwoEdges) -> None:
    """Line 10: at both edges, though no address fails more than once."""
    await site.operator.account("guessed")
    await site.operator.apply_policy(f"{POLICY}  authFailures: {{perUser: {{max: {GUESSES}}}}}\n")
    async with Wire(HOST) as home:
        contact = f"<sip:guessed@{home.address}>"
        assert (await register(home, "guessed", site.first, contact)).status == 200
        for number in range(GUESSES + 1):
            async with Wire(f"127.0.12.{number + 1}") as guesser:
                answer = await register(guesser, "guessed", site.edge(number), password="wrong")
                assert answer.status == 401
        for edge in (site.first, site.second):
            async with Wire("127.0.12.200") as elsewhere:
                assert (await register(elsewhere, "guessed", edge)).status == 401
            assert (await register(home, "guessed", edge, contact)).status == 200
