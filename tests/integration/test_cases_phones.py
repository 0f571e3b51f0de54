"""Cases: phones that people have register and call with the policies that come with Callwarden.

Each registers, calls, is answered and hangs up, and is refused with a wrong password; then the same under profile
Hardened, which wants SHA-256.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from callwarden.testing import sipp
from callwarden.testing.foreign_phones import (
    PJSUA_PYTHON,
    DebiansBaresip,
    ForeignPhone,
    Linphone,
    PhoneSetup,
    Pjsua,
    RunningPhone,
)
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.programs import needs_program
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Site, Sites

pytestmark = [pytest.mark.cases, pytest.mark.timeout(300)]

USER: Final = "bob"
NUMBER: Final = "4930123456"
HARDENED: Final = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: main}
spec: {profile: Hardened}
"""


class Shop:
    """Sells phones of one kind, each with a folder and ports of its own."""

    def __init__(self, kind: str, site: Site, folder: Path, free_port: Callable[[], int]) -> None:
        self._kind, self._site, self._folder, self._free_port = kind, site, folder, free_port
        self._sold = 0

    def phone(self, password: str = PASSWORD) -> RunningPhone:
        self._sold += 1
        folder = self._folder / f"phone-{self._sold}"
        folder.mkdir()
        sip_address = self._site.system.sip_address
        setup = PhoneSetup(USER, password, DEFAULT_REALM, sip_address, self._free_port(), folder)
        control = next(port for port in iter(self._free_port, 0) if port != setup.port + 1)  # baresip's port for TLS
        match self._kind:
            case "linphone":
                return Linphone(setup)
            case "pjsua":
                return Pjsua(setup)
            case _:
                return DebiansBaresip(setup, control)


async def refused_registrations(site: Site) -> list[str]:
    """What `callwarden explain` says of each, found as an operator finds them: by the Call-ID in the edge's log."""
    found = []
    for text in (site.system.state_dir / "log").joinpath("edge-proxy-0.log").read_text().splitlines():
        line = json.loads(text) if "request.refused" in text else {}
        if line.get("method") == "REGISTER":
            found.append((await site.operator.command("explain", line["call_id"]))[1])
    return found


async def calls_and_hangs_up(site: Site, phone: ForeignPhone) -> None:
    """One call, and its record."""
    before = {call.call_id for call in await site.operator.calls()}
    assert await phone.is_answered(f"+{NUMBER}")
    await phone.hang_up()

    async def records() -> list[tuple[str, str, str, bool]]:
        new = [call for call in await site.operator.calls() if call.call_id not in before]
        return [
            (call.state, call.destination, call.reason, call.billed_s > 0) for call in new if call.state != "running"
        ]

    assert await eventually(records, timeout_s=60) == [("settled", NUMBER, "caller-bye", True)]


@pytest.mark.parametrize(
    ("kind", "knows_sha_256"),
    [
        pytest.param("linphone", True, marks=needs_program("linphonec", "linphone-cli")),
        pytest.param("baresip", False, marks=needs_program("baresip", "baresip-core")),
        pytest.param(
            "pjsua", True, marks=pytest.mark.skipif(not PJSUA_PYTHON.exists(), reason="needs pjsua2: make pjsua")
        ),
    ],
)
async def test_a_phone_registers_and_calls_by_default_and_hardened_if_it_knows_sha_256(
    kind: str, knows_sha_256: bool, site: Sites, tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    async with site() as s:
        await s.operator.account(USER, lines=2, credit_micros=1_000_000)
        shop = Shop(kind, s, tmp_path, free_udp_port)
        async with shop.phone() as phone:
            assert await phone.is_registered()
            await calls_and_hangs_up(s, phone)
        async with shop.phone("not-the-password") as phone:
            assert not await phone.is_registered()
        assert "wrong credentials" in (await refused_registrations(s))[-1]
        await s.operator.apply_policy(HARDENED)
        async with shop.phone() as phone:
            assert await phone.is_registered() is knows_sha_256
            if knows_sha_256:
                await calls_and_hangs_up(s, phone)
            else:
                explained = (await refused_registrations(s))[-1]
                assert "knows MD5 only" in explained
                assert "SHA-256" in explained


@needs_program("sipp")
async def test_sipp_registers_and_calls_by_default_and_not_where_only_sha_256_is_good_enough(
    site: Sites, tmp_path: Path, free_udp_port: Callable[[], int]
) -> None:
    """SIPp 3.6 answers the first challenge of a response, and only with MD5."""
    async with site() as s:
        await s.operator.account(USER, lines=2, credit_micros=1_000_000)

        async def registers(password: str) -> bool:
            return await sipp.registers(
                s.system.sip_address,
                folder=tmp_path / "registration",
                local_port=free_udp_port(),
                user=USER,
                password=password,
                realm=DEFAULT_REALM,
            )

        async def calls(password: str) -> sipp.Result:
            folder = tmp_path / "caller"
            folder.mkdir(exist_ok=True)
            return await sipp.run(
                "caller.xml",
                s.system.sip_address,
                folder=folder,
                local_port=free_udp_port(),
                injection=sipp.users_file(folder / "users.csv", [(USER, password)]),
                called=NUMBER,
                realm=DEFAULT_REALM,
                calls=1,
                rate=1,
                hold_ms=500,
            )

        assert await registers(PASSWORD)
        assert (await calls(PASSWORD)).successful == 1
        assert not await registers("not-the-password")
        assert (await calls("not-the-password")).failed == 1
        assert "wrong credentials" in (await refused_registrations(s))[-1]
        (call,) = [call for call in await s.operator.calls() if call.state != "refused"]
        assert (call.state, call.destination, call.reason) == ("settled", NUMBER, "caller-bye")
        await s.operator.apply_policy(HARDENED)
        assert not await registers(PASSWORD)
