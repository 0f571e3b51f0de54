"""Cases: phones that people have register and call with the policy that comes with Callwarden."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import Phones
from callwarden.testing.programs import needs_program
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Sites

pytestmark = pytest.mark.cases

REGISTRATION = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="registration">
  <send retrans="500"><![CDATA[
REGISTER sip:{realm} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
Max-Forwards: 70
From: <sip:bob@{realm}>;tag=[call_number]
To: <sip:bob@{realm}>
Call-ID: [call_id]
CSeq: 1 REGISTER
Contact: <sip:bob@[local_ip]:[local_port]>
Expires: 3600
Content-Length: 0

]]></send>
  <recv response="401" auth="true"/>
  <send retrans="500"><![CDATA[
REGISTER sip:{realm} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
Max-Forwards: 70
From: <sip:bob@{realm}>;tag=[call_number]
To: <sip:bob@{realm}>
Call-ID: [call_id]
CSeq: 2 REGISTER
Contact: <sip:bob@[local_ip]:[local_port]>
[authentication username=bob password={password}]
Expires: 3600
Content-Length: 0

]]></send>
  <recv response="200"/>
</scenario>
"""
HARDENED = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: main}
spec: {authentication: {digest: {algorithms: 2}}}
"""


async def sipp_registers(folder: Path, sip_address: str, port: int) -> bool:
    """Whether SIPp, which answers the first challenge and only with MD5, gets a 200."""
    scenario = folder / "registration.xml"
    scenario.write_text(REGISTRATION.format(realm=DEFAULT_REALM, password=PASSWORD))
    command = ["sipp", sip_address, "-sf", str(scenario), "-m", "1", "-i", "127.0.0.1", "-p", str(port), "-nostdin"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(30):
        return await process.wait() == 0


@needs_program("sipp", "sip-tester")
async def test_sipp_registers_by_default_and_not_where_only_sha_256_is_good_enough(
    site: Sites, tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    async with site() as s:
        await s.operator.account("bob", lines=2, credit_micros=1_000_000)
        assert await sipp_registers(tmp_path, s.system.sip_address, free_udp_port())
        await s.operator.apply_policy(HARDENED)
        assert not await sipp_registers(tmp_path, s.system.sip_address, free_udp_port())


@needs_program("baresip", "baresip-core")
async def test_debians_baresip_registers_by_default_and_is_called(
    site: Sites, tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    async with site() as s:
        await s.operator.account("bob", lines=2, credit_micros=1_000_000)
        await s.operator.account("alice", lines=2, credit_micros=1_000_000)
        (tmp_path / "config").write_text(
            f"sip_listen 127.0.0.1:{free_udp_port()}\nmodule_path /usr/lib/baresip/modules\n"
            "module g711.so\nmodule_app account.so\n"
        )
        (tmp_path / "accounts").write_text(
            f"<sip:bob@{DEFAULT_REALM};transport=udp>;auth_user=bob;auth_pass={PASSWORD};answermode=auto;"
            f'regint=600;outbound="sip:{s.system.sip_address};transport=udp"\n'
        )
        process = await asyncio.create_subprocess_exec(
            "baresip", "-f", str(tmp_path), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with Phones(s.system.sip_address) as phones:

                async def is_reached() -> bool:
                    call = phones.call("alice", PASSWORD, DEFAULT_REALM, "bob")
                    # Whatever it makes of our SDP without a sound card: it was there.
                    return await call.status not in (403, 404, 408, 480)

                await eventually(is_reached, timeout_s=30, what="bob's baresip is called")
        finally:
            process.terminate()
            await process.wait()
