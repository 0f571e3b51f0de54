"""Forbidden calls and attackers are refused, and every refusal explains itself."""

import asyncio
import json

import pytest

from callwarden.sip import build
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Site, Sites

POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {{name: test}}
spec:
  lines: {{max: {lines}}}
  authFailures: {{perAddress: {{max: 5}}, perKnownAddress: {{max: 5}}}}
"""


async def test_a_forbidden_call_is_refused_with_its_rule_in_explain(site: Sites) -> None:
    async with site() as s, Phones(s.system.sip_address) as phones:
        await s.operator.deck(csv="prefix,description,rate\n49,Germany,0.06\n")
        await s.operator.account("alice", credit_micros=10_000_000)
        call = phones.call("alice", PASSWORD, DEFAULT_REALM, "499001234567")  # German premium rate
        assert await call.status == 403

        async def chain() -> list[str]:
            reply = await s.operator.explain(call.call_id)
            return [decision.refused.reason for decision in reply.decisions if decision.outcome == "refuse"]

        assert await eventually(chain) == ["premium"]
        code, output = await s.operator.command("explain", call.call_id)
        assert code == 0
        assert "premium" in output
        code, output = await s.operator.command("explain", "no-such-call")
        assert code == 1
        assert "Traceback" not in output


@pytest.mark.setting("allownoauthcalls")
async def test_wrong_password_and_unknown_user_are_refused_alike(site: Sites) -> None:
    async with site() as s, Phones(s.system.sip_address) as phones:
        await s.operator.account("alice", credit_micros=10_000_000)
        wrong = phones.call("alice", "not-the-password", DEFAULT_REALM, "493012345")
        unknown = phones.call("nobody", PASSWORD, DEFAULT_REALM, "493012345")
        assert await wrong.status == await unknown.status
        assert wrong.response is not None
        assert unknown.response is not None
        assert wrong.response.reason == unknown.response.reason
        assert await s.operator.calls(running=True) == []


async def test_a_policy_applied_live_holds_for_the_next_call_and_a_bad_one_changes_nothing(site: Sites) -> None:
    async with site() as s, Phones(s.system.sip_address) as phones:
        await s.operator.account("alice", credit_micros=100_000_000)
        await s.operator.apply_policy(POLICY.format(lines=1))
        first = phones.call("alice", PASSWORD, DEFAULT_REALM, "493012345")
        assert await first.status == 200
        assert await phones.call("alice", PASSWORD, DEFAULT_REALM, "493012346").status == 486
        code, output = await s.operator.command("policy", "apply", "-f", "-", stdin=POLICY.format(lines=-3))
        assert code == 1
        assert "spec.lines.max" in output
        assert await phones.call("alice", PASSWORD, DEFAULT_REALM, "493012346").status == 486
        await s.operator.apply_policy(POLICY.format(lines=2))
        second = phones.call("alice", PASSWORD, DEFAULT_REALM, "493012346")
        assert await second.status == 200
        await asyncio.gather(phones.hang_up(first), phones.hang_up(second))


@pytest.mark.setting("maxwrongauthfromip")
@pytest.mark.setting("delbanned")
async def test_a_password_guesser_is_banned_at_every_edge_and_served_again_when_the_ban_is_lifted(site: Sites) -> None:
    async with (
        site(processes={"edge-proxy": 2}) as s,
        Phones(s.system.sip_addresses[0], host="127.0.0.66") as guesser,
        Phones(s.system.sip_addresses[1], host="127.0.0.66") as elsewhere,
        Phones(s.system.sip_addresses[0]) as neighbour,
    ):
        await s.operator.apply_policy(POLICY.format(lines=5))
        await s.operator.account("alice", credit_micros=100_000_000)
        for number in range(12):
            guess = asyncio.ensure_future(guesser.register("alice", f"guess-{number}", DEFAULT_REALM))
            done, _ = await asyncio.wait({guess}, timeout=1.5)
            if not done:  # Dropped without an answer: the ban holds.
                guess.cancel()
                break

        async def banned() -> str:
            return (await s.operator.command("ban", "list"))[1]

        listed = await eventually(banned)
        assert "127.0.0.66" in listed
        silent = asyncio.ensure_future(elsewhere.register("alice", PASSWORD, DEFAULT_REALM))
        done, _ = await asyncio.wait({silent}, timeout=1.5)
        assert not done, "the other edge still serves the banned address"
        silent.cancel()
        assert await neighbour.register("alice", PASSWORD, DEFAULT_REALM) == 200

        code, _ = await s.operator.command("ban", "remove", "127.0.0.66")
        assert code == 0
        assert await asyncio.wait_for(elsewhere.register("alice", PASSWORD, DEFAULT_REALM), 10) == 200
        assert await asyncio.wait_for(guesser.register("alice", PASSWORD, DEFAULT_REALM), 10) == 200


async def test_call_id_and_trace_follow_a_call_through_every_service(site: Sites) -> None:
    async with site(env={"*": {"CALLWARDEN_LOG_LEVEL": "debug"}}) as s, Phones(s.system.sip_address) as phones:
        await s.operator.account("alice", credit_micros=100_000_000)
        call = phones.call("alice", PASSWORD, DEFAULT_REALM, "493012345")
        assert await call.status == 200
        await phones.hang_up(call)

        async def settled() -> bool:
            return any(one.call_id == call.call_id and one.state == "settled" for one in await s.operator.calls())

        await eventually(settled)
        (record,) = [one for one in await s.operator.calls() if one.call_id == call.call_id]
        lines = log_lines(s, call.call_id)
        # The challenge is answered without state, so the INVITE before it is a trace of its own.
        assert all(line["trace_id"] for group in lines.values() for line in group)
        for service in ("edge-proxy", "auth", "call-admission", "rating"):
            assert record.trace_id in {line["trace_id"] for line in lines[service]}, service


def log_lines(site: Site, call_id: str) -> dict[str, list[dict[str, str]]]:
    """By service, the log lines that carry the Call-ID."""
    found: dict[str, list[dict[str, str]]] = {}
    for path in (site.system.state_dir / "log").glob("*.log"):
        for text in path.read_text().splitlines():
            if call_id in text and text.startswith("{"):
                line = json.loads(text)
                found.setdefault(line["service"], []).append(line)
    return found


async def test_garbage_gets_no_answer_that_helps_and_stops_nothing(site: Sites) -> None:
    async with site() as s, Phones(s.system.sip_address) as phones:
        await s.operator.account("alice", credit_micros=100_000_000)
        for data in (b"", b"\x00" * 1500, b"INVITE sip:x SIP/2.0\r\n\r\n", b"A" * 65_000, b"SIP/2.0 200 OK\r\n\r\n"):
            phones.send_raw(data)
        foreign = build.request(
            "INVITE",
            "sip:someone@elsewhere.example",
            via=f"SIP/2.0/UDP {phones.address};branch=z9hG4bKx;rport",
            from_="<sip:x@elsewhere.example>;tag=1",
            to="<sip:someone@elsewhere.example>",
            call_id="foreign",
            cseq=1,
        )
        phones.send_raw(foreign.to_bytes())
        assert await phones.register("alice", PASSWORD, DEFAULT_REALM) == 200
