"""A call on two running edges whose caller and carrier are sockets: the first sets it up, the second hears the ACK.

In: the way to the answer, what each side then sends, and the call's record. Out: what comes of it (test_cases_dialogs,
test_cases_ends).
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.testing.operator import DEFAULT_REALM
from callwarden.testing.waiting import eventually
from tests.integration.two_edges import TwoEdges
from tests.integration.wire import SDP, Datagram, WireCall, message, reply, token

CREDIT_MICROS: Final = 10_000_000
RECORDED_S: Final = 4.0  # after the answer, the second edge can know of the call
POLICY: Final = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: cases}
spec:
  fraud: {dynamicList: {enabled: false}, smartList: {enabled: false}}
  firewall: {allow: [127.0.0.0/8]}
"""


@dataclass(frozen=True, slots=True)
class AnsweredDialog:
    """A call that was answered, and acknowledged by the second edge."""

    site: TwoEdges
    call: WireCall
    invite: Datagram
    """As it came to the carrier."""
    tag: str

    def at_carrier(self, method: str) -> list[Datagram]:
        return [
            got for got in self.site.carrier.got if got.method == method and got.get("call-id") == self.call.call_id
        ]

    def at_caller(self, method: str) -> list[Datagram]:
        return [got for got in self.site.caller.got if got.method == method and got.get("call-id") == self.call.call_id]

    async def carrier_answers(self, method: str, status: int) -> Datagram:
        """The next request of that method, once it has come."""
        came = await self.site.carrier.until(
            lambda got: got.method == method and got.get("call-id") == self.call.call_id, f"{method} at the carrier"
        )
        self.site.carrier.send(reply(came, status), came.source)
        return came

    def from_carrier(self, method: str, edge: str, cseq: int = 1, uri: str = "", *, routes: bool = True) -> str:
        lines = [
            f"Via: SIP/2.0/UDP {self.site.carrier.address};branch=z9hG4bK{token()}",
            "Max-Forwards: 70",
            *(f"Route: {route.replace(self.site.first, edge)}" for route in self.invite.all("record-route") if routes),
            f"From: {self.call.to}",
            f"To: {self.invite.get('from')}",
            f"Call-ID: {self.call.call_id}",
            f"CSeq: {cseq} {method}",
        ]
        return message(f"{method} {uri or f'sip:any@{self.site.caller.address}'} SIP/2.0", lines)

    async def hang_up(self, edge: str) -> None:
        asking = asyncio.ensure_future(self.call.ask("BYE", edge))
        await self.carrier_answers("BYE", 200)
        assert await asking == 200

    async def record(self) -> pb.Call:
        async def settled() -> pb.Call | None:
            found = [one for one in await self.site.operator.calls(self.call.user) if one.state == "settled"]
            return found[0] if found else None

        found = await eventually(settled, timeout_s=40, what="the call is settled")
        assert found is not None
        account = await self.site.operator.get(self.call.user)
        assert (account.lines_in_use, account.held_micros) == (0, 0)
        return found


async def invited(
    site: TwoEdges, user: str, *, credit_micros: int = CREDIT_MICROS, deck: str = "retail", **odd: str
) -> AnsweredDialog:
    """The INVITE has come to the carrier; `odd` is what `WireCall` takes."""
    await site.operator.account(user, credit_micros=credit_micros, deck=deck)
    call = WireCall(site.caller, site.first, user, user, **odd)
    site.caller.send(await call.start(), site.first)
    came = await site.carrier.until(
        lambda got: got.method == "INVITE" and got.get("call-id") == call.call_id, "the INVITE"
    )
    return AnsweredDialog(site, call, came, token())


async def answered(talk: AnsweredDialog, *, contact: bool = True) -> AnsweredDialog:
    site, call = talk.site, talk.call
    more = [f"Contact: <sip:gw@{site.carrier.address}>"] if contact else []
    site.carrier.send(
        reply(talk.invite, 200, talk.tag, [*more, "Content-Type: application/sdp"], SDP), talk.invite.source
    )
    ok = await site.caller.until(
        lambda got: got.status == 200 and got.get("call-id") == call.call_id and "INVITE" in got.get("cseq"), "the 200"
    )
    call.learn(ok)
    call.target = call.target or f"sip:gw@{site.carrier.address}"
    site.caller.send(call.inside("ACK", site.second), site.second)
    await site.carrier.until(
        lambda got: got.method == "ACK" and got.get("call-id") == call.call_id, "the ACK by the second edge"
    )
    return talk


async def is_served(site: TwoEdges, edge: str) -> bool:
    """Whether that edge answers others."""
    options = WireCall(site.caller, edge, "ping", "somebody", uri=f"sip:{DEFAULT_REALM}")
    ping = message(f"OPTIONS {options.uri} SIP/2.0", options.lines("OPTIONS"))
    return (await site.caller.ask(ping, edge, options.is_answer)).status == 200
