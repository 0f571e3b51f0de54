"""`callwarden audit` of a running system: its doors, files, database role, trunks, and the policies that hold."""

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from callwarden.cli.audit import local
from callwarden.cli.audit.finding import AuditPlace, AuditSeverity
from callwarden.cli.audit.local import AuditTrunk, DatabaseRole, Listener, LocalFacts, SecretFile
from callwarden.cli.audit.sources.running import database_role
from callwarden.cli.main import run
from callwarden.common.sql import Database
from callwarden.local.system import LocalSystem

NOBODY = DatabaseRole("rating", may_delete_ledger=False)


def ids(facts: LocalFacts) -> list[str]:
    return [one.rule.id for one in local.findings(facts)]


@pytest.mark.setting("audit-checklist")
@pytest.mark.parametrize(
    ("address", "is_near"),
    [
        ("127.0.0.1:9000", True),
        ("[::1]:9000", True),
        ("localhost:9000", True),
        ("0.0.0.0:9000", False),
        ("[::]:9000", False),
        ("192.0.2.1:9000", False),
        ("db.example:5432", False),
    ],
)
def test_a_door_that_others_reach_without_tls_is_found(address: str, is_near: bool) -> None:
    assert ids(LocalFacts(listeners=(Listener("rating-0", address),))) == ([] if is_near else ["local/listen"])
    assert ids(LocalFacts(listeners=(Listener("rating-0", address, has_tls=True),))) == []
    assert ids(LocalFacts(database_address=address)) == ([] if is_near else ["local/database-tls"])
    assert ids(LocalFacts(database_address=address, database_has_tls=True)) == []


@pytest.mark.setting("audit-checklist")
@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o700, False), (0o640, True), (0o604, True)])
def test_a_file_of_secrets_that_others_may_read_is_found(mode: int, is_open: bool) -> None:
    assert ids(LocalFacts(files=(SecretFile("keys.json", mode),))) == (["local/secret-files"] if is_open else [])


@pytest.mark.setting("audit-checklist")
def test_a_database_role_with_more_than_it_needs_is_found() -> None:
    owner = DatabaseRole("callwarden", may_delete_ledger=True)
    (near,) = local.findings(LocalFacts(roles=(owner,), database_address="127.0.0.1:5432"))
    (far,) = local.findings(LocalFacts(roles=(owner,), database_address="db.example:5432", database_has_tls=True))
    assert (near.severity, far.severity) == (AuditSeverity.LOW, AuditSeverity.MEDIUM)
    assert "ledger" in near.what
    assert ids(LocalFacts(roles=(NOBODY,), database_address="127.0.0.1:5432")) == []


@pytest.mark.setting("spoofing")
def test_a_trunk_without_a_tech_prefix_is_told_with_the_command() -> None:
    (finding,) = local.of_trunks(
        (AuditTrunk("pbx", "", AuditPlace("trunk pbx"), False), AuditTrunk("b", "77", AuditPlace("b"), False))
    )
    assert finding.how.startswith(f"callwarden trunk set pbx --tech-prefix {local.tech_prefix('pbx')}")
    assert local.tech_prefix("pbx") != local.tech_prefix("b")


async def test_the_rights_are_those_of_the_role(database_url: str) -> None:
    async with Database(database_url) as database:
        assert await database_role(database) == DatabaseRole("callwarden", may_delete_ledger=True)


@pytest.mark.integration
@pytest.mark.timeout(180)
@pytest.mark.setting("audit-checklist")
async def test_a_running_system_is_audited_and_what_its_lines_say_closes_it(
    local_system: Callable[..., Awaitable[LocalSystem]],
    state_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in os.environ if name.startswith("CALLWARDEN_")]:
        monkeypatch.delenv(name)
    folder = state_dir / "audited"
    await local_system(
        state_dir=folder, services={"call-admission", "administration", "rating", "auth", "payment", "rate-guard"}
    )

    async def command(line: str) -> tuple[int, str]:
        code = await asyncio.to_thread(run, ["--state-dir", str(folder), *line.split()])
        return code, capsys.readouterr().out

    async def open_now() -> dict[str, dict[str, Any]]:
        _, said = await command("audit --output json --fail-on critical")
        report = json.loads(said)
        assert report["notes"] == []
        return {one["rule"]: one for one in report["findings"] if one["severity"] != "info"}

    assert (await command("trunk add pbx --address 127.0.0.1:5998 --direction traffic-sender"))[0] == 0
    before = await open_now()
    assert {"policy/maxwrongauthfromip", "trunk/address-alone"} <= before.keys()
    assert not [rule for rule in before if rule.startswith("local/")]

    keys = folder / "keys.json"
    keys.chmod(0o644)
    leaked = (await open_now())["local/secret-files"]
    assert leaked["place"] == str(keys)
    keys.chmod(stat.S_IMODE(keys.stat().st_mode) & ~0o077)

    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {name: main}\nspec: {profile: Hardened}\n"
    )
    assert (await command(f"policy apply -f {policy}"))[0] == 0
    told = before["trunk/address-alone"]["how"].removeprefix("callwarden ").partition(",")[0]
    assert (await command(told))[0] == 0
    assert await open_now() == {}
    assert (await command("audit"))[0] == 0
