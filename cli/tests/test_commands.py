"""Every command against a running system: what it does, what it says, how it ends."""

import asyncio
import csv
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from callwarden.cli import state
from callwarden.cli.main import run
from callwarden.local.system import LocalSystem
from callwarden.testing import databases
from callwarden.testing.edges import Edges, TrackedCall
from callwarden.testing.waiting import eventually

Command = Callable[[str], Awaitable[tuple[int, str, str]]]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

RATES = "prefix,description,rate\n4930,Berlin,0.60\n44,United Kingdom,0.30\n"
STEPS = (
    "prefix,rate,unit_s,steps,rate.sat,steps.sat,maximum,at_maximum\n"
    "4930,0.10,1,2:0.01,0.01,none,0.50,free\n44,0.30,60,,,,0.40,cut\n"
)
POLICY = "apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {name: p}\nspec: {lines: {max: 7}}\n"
ACCOUNTS = "name,parent,lines,daily\nnora,north,2,5\nnils,north,3,\n"
EXAMPLE = Path(__file__).parents[2] / "deploy/examples/accounts.csv"
BAD_ACCOUNTS = f"{ACCOUNTS}nele,north,many,\n"
# In this order; exit code, and what is said then (on standard output for 0, on standard error otherwise).
STORY: list[tuple[str, int, str]] = [
    ("account list", 0, "no accounts"),
    ("account show alice", 1, "no account alice"),
    ("account create alice --password secret123 --credit 5 --number +442079460101 --lines 3", 0, "5.00 EUR"),
    ("account create alice --password secret123", 1, "already"),
    ("account create bob --no-password --number +442079460101", 1, "another account's"),
    ("account create al!ce --no-password", 1, "name"),
    ("account create carol --password x", 1, "callwarden account passwd carol"),
    ("account passwd carol --password secret123", 0, "password of carol@callwarden.local set"),
    ("account passwd nobody --password secret123", 1, "no account nobody"),
    ("account set alice --lines none --daily 10 --add-number +442079460109", 0, "+442079460109"),
    ("account set alice --remove-number +442079460109 --deck retail", 0, "retail"),
    ("account set alice --status sleeping", 1, "active or disabled"),
    ("account list --limit 1", 0, "more with --after alice"),
    ("account create north --type reseller --no-password --monthly 500 --monthly-increment 50", 0, "north"),
    ("account create yuki --no-password --currency JPY --credit 500", 0, "500 JPY"),
    ("account create omar --no-password --currency KWD --credit 1.125", 0, "1.125 KWD"),
    ("account create paul --no-password --parent alice", 1, "reseller"),
    ("account create paul --no-password --parent north --currency USD", 1, "pays in EUR"),
    ("account create paul --no-password --talk-day soon", 2, "--talk-day"),
    ("account set yuki --country JP --phone +81312345678 --phone-verified --talk-day 90m", 0, "yuki"),
    ("account set yuki --currency EUR", 1, "currency"),
    ("account import bad-accounts.csv", 1, "bad-accounts.csv:4: lines:"),
    ("account import accounts.csv --dry-run", 0, "2 accounts would be created"),
    ("account show nora", 1, "no account nora"),
    ("account import bad-accounts.csv --keep-going", 1, "1 bad line; 2 accounts created"),
    ("account list --parent north", 0, "nora"),
    ("account show nora", 0, "its reseller's (north)"),
    ("account show yuki", 0, "+81312345678 (verified)"),
    ("account show yuki", 0, "1:30:00"),
    ("account set yuki --monthly 90000 --shards 4 --add-list friends", 0, "90000 JPY"),
    ("account show yuki", 0, "friends"),
    (f"account import {EXAMPLE} --dry-run --realm south.example", 0, "4 accounts would be created"),
    ("account export --parent north", 0, "nora,callwarden.local,enduser,active,EUR"),
    ("account export --parent nobody", 1, "nobody"),
    ("topup alice 1.50 --key k1 --note thanks", 0, "6.50 EUR"),
    ("topup alice 1.50 --key k1", 0, "credited before"),
    ("topup alice 2 --key k1", 1, "another payment"),
    ("topup alice 1 --currency USD", 1, "EUR"),
    ("topup nobody 1", 1, "no account nobody"),
    ("trunk list", 0, "no trunks"),
    ("trunk add berlin --address nonsense", 1, "host:port"),
    ("trunk add berlin --address 127.0.0.1:5999", 0, "berlin"),
    ("trunk set berlin", 2, "nothing to change"),
    ("trunk add pbx --address 127.0.0.1:5998 --direction traffic-sender --only-local", 0, "local only"),
    ("trunk set pbx --all-numbers --block-prefix 4990", 0, "never to 4990"),
    ("trunk remove pbx", 0, "removed"),
    ("trunk add alice --address 127.0.0.1:5999", 1, "--account"),
    ("trunk list", 0, "127.0.0.1:5999"),
    ("route list", 0, "no routes"),
    ("route set 49 nowhere", 1, "`callwarden trunk list`"),
    ("route set all berlin", 0, "calls to all numbers go to berlin"),
    ("route set +49 berlin --priority 2", 0, "calls to +49 go to berlin"),
    ("route list", 0, "berlin"),
    ("trunk remove berlin", 1, "`callwarden route remove`"),
    ("route remove 49 berlin", 0, "calls to +49 no longer go to berlin"),
    ("route remove 49 berlin", 1, "`callwarden route list` shows them"),
    ("rates list", 0, "no decks"),
    ("rates import retail bad.csv", 1, "1 bad line: nothing was imported"),
    ("rates list", 0, "no decks"),
    ("rates import retail rates.csv", 0, "2 rates imported, version 1"),
    ("rates import retail missing.csv", 1, "No such file"),
    ("rates list", 0, "retail"),
    ("rates simulate retail +493023125042 90s", 0, "0.90 EUR"),
    ("rates simulate retail +13023125042 90s", 1, "no-rate"),
    ("rates import hours steps.csv --window sat", 2, "saturday=Sat 09:00-13:00"),
    ("rates import hours steps.csv --window sat=noon", 1, "windows"),
    ("rates import hours steps.csv --window sat=Sat_09:00-13:00", 0, "2 rates imported, version 1"),
    ("rates simulate hours +493023125042 5s --at 2026-01-05T12:00+00:00", 0, "0.23 EUR"),
    ("rates simulate hours +493023125042 5s --at 2026-01-10T12:00+00:00", 0, "0.05 EUR"),
    ("rates simulate hours +493023125042 1h --at 2026-01-10T12:00+00:00", 0, "0.50 EUR, free beyond it"),
    ("rates simulate hours +4420794601 1h", 0, "0.40 EUR, the call is cut"),
    ("policy status", 0, "revision 0"),
    ("policy diff policy.yaml", 0, "lines.max"),
    ("policy diff policy.yaml --exit-code", 1, "1 setting would change"),
    ("policy apply -f policy.yaml", 0, "revision 1"),
    ("policy diff policy.yaml", 0, "nothing would change"),
    ("policy delete p --cluster", 1, "no ClusterSecurityPolicy is called p"),
    ("policy apply -f policy.yaml", 0, "policy p unchanged"),
    ("policy status", 0, "revision 1"),
    ("policy show", 0, "max: 7"),
    ("policy delete p", 0, "revision 2"),
    ("ban list", 0, "no address is banned"),
    ("ban add 192.0.2.66 --for 1h --reason guessing", 0, "guessing"),
    ("ban list", 0, "192.0.2.66"),
    ("ban remove 192.0.2.67", 1, "not banned"),
    ("ban remove 192.0.2.66", 0, "no longer banned"),
    ("ban list", 0, "no address is banned"),
    ("ban remove --all", 0, "no address was banned"),
    ("call list", 0, "no calls"),
    ("call export", 0, "call_id"),
    ("call export --output jsonl --to calls.jsonl", 0, ""),
    ("call export --to missing/calls.csv", 1, "No such file"),
    ("ledger correct nonsense 0 --reason because", 1, "hold_id"),
    ("ledger reverse 7f3b3c52-6d5a-4e0c-9d3c-4b2d1a0f9e8d --reason because", 1, "no "),
    ("call list --running", 0, "no calls are running"),
    ("explain 3c26a7b0e1d94f6a@192.0.2.7", 1, "nothing is known"),
    ("ledger list alice", 0, "thanks"),
    ("ledger list alice --since 1h --limit 1", 0, "more with --limit"),
    ("ledger list yuki", 0, "first credit"),
    ("ledger list nobody", 1, "no account nobody"),
    ("ledger check", 0, "The books are right"),
    ("ledger check --since 2026-01-01", 0, "Every charge is what its price"),
    ("ledger check --since 30d --output csv", 0, "kind,hold_id,call_id"),
    ("ledger check --since soon", 2, "--since"),
    ("ledger check --since 2026-13-01", 2, "neither a duration nor a day"),
    ("ledger check nobody", 1, "no account nobody"),
    ("trunk remove berlin", 1, "route"),
]
LISTS = ["account list", "trunk list", "rates list", "route list", "ban list", "call list"]


@pytest.mark.cases
async def test_a_day_of_an_operator(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CALLWARDEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    for file, text in (
        ("rates.csv", RATES),
        ("accounts.csv", ACCOUNTS),
        ("bad-accounts.csv", BAD_ACCOUNTS),
        ("steps.csv", STEPS),
        ("bad.csv", f"{RATES}49,Germany,dear\n"),
        ("policy.yaml", POLICY),
    ):
        await asyncio.to_thread((tmp_path / file).write_text, text)
    async with LocalSystem(state_dir) as system:

        async def command(line: str) -> tuple[int, str, str]:
            code = await asyncio.to_thread(
                run, ["--state-dir", str(state_dir), *(part.replace("_", " ") for part in line.split())]
            )
            shown = capsys.readouterr()
            return code, shown.out, shown.err

        for line, expected_code, expected in STORY:
            code, out, err = await command(line)
            assert code == expected_code, (line, out, err)
            assert expected in (out if code == 0 else err), (line, out, err)
            assert "Traceback" not in err
        for line in LISTS:
            code, out, _ = await command(f"{line} --output json")
            assert code == 0
            records = json.loads(out)
            assert isinstance(records, list), line
            code, out, _ = await command(f"{line} --output csv")
            rows = list(csv.DictReader(out.splitlines()))
            assert (code, len(rows)) == (0, len(records)), line
            for row, record in zip(rows, records, strict=True):
                assert {name for name in record if not isinstance(record[name], dict | list)} - set(row) <= {
                    name for name in record if name.endswith("_micros")
                }, line
        _, out, _ = await command("account show alice -o json")
        alice = json.loads(out)
        assert (alice["name"], alice["balance_micros"], alice["deck"]) == ("alice", 6_500_000, "retail")
        assert {name: limit for name, limit in alice["limits"].items() if limit is not None} == {
            "daily": "10.00",
            "daily_micros": 10_000_000,
        }
        _, out, _ = await command("policy status -o json")
        services = {one["service"] for one in json.loads(out)["running"]}
        assert services == {"edge-proxy", "auth", "rate-guard", "call-admission", "administration", "rating", "payment"}
        await a_payment_is_repeated(command)
        hold_id = await a_call_is_corrected(system, command, alice["id"])
        await what_is_tampered_with_is_found(system, command, alice["id"], hold_id)
        _, out, _ = await command("ledger check -o json")
        assert json.loads(out)["right"] is True
        _, out, _ = await command("rates simulate retail +493023125042 90s -o json")
        assert json.loads(out)["simulation"]["cost_micros"] == 900_000
    state.choose(None)


async def a_payment_is_repeated(command: Command) -> None:
    """Without a key the command makes one, shows it, and books nothing more when it is used again."""
    code, out, _ = await command("topup carol 1")
    (key,) = re.findall(r"^key: (\S+) ", out, re.MULTILINE)
    assert (code, "1.00 EUR added. Credit: 1.00 EUR" in out) == (0, True), out
    code, out, _ = await command(f"topup carol 1 --key {key}")
    assert (code, "credited before" in out, "Credit: 1.00 EUR" in out, "key:" in out) == (0, True, True, False), out
    _, out, _ = await command("topup carol 0.25 -o json")
    made = json.loads(out)
    assert (made["balance"], made["duplicate"]) == ("1.25", False)
    _, out, _ = await command(f"topup carol 0.25 -o csv --key {made['key']}")
    (row,) = csv.DictReader(out.splitlines())
    assert (row["balance"], row["duplicate"], row["key"]) == ("1.25", "true", made["key"])
    _, out, _ = await command(f"ledger reverse {made['entry_id']} --reason test")
    assert "Credit: 1.00 EUR" in out
    assert "key: " in out


async def a_call_is_corrected(system: LocalSystem, command: Command, account_id: str) -> str:
    """Half a minute at 0.60, settled; then it costs 0.10, once, and a payment is taken back. The call's hold id."""
    async with Edges(system) as edges:
        call = TrackedCall(account_id, "493023125042", at_s=time.time() - 50)
        await edges.admit(call, 0)
        assert call.is_admitted, call.refused
        call.answered_at_s, call.ended_at_s = call.at_s, call.at_s + 30
        edges.ended(call)

        async def settled() -> dict[str, Any] | None:
            _, out, _ = await command("call list --account alice -o json")
            return next((one for one in json.loads(out) if one["state"] == "settled"), None)

        record = await eventually(settled)
    code, out, err = await command(f"ledger correct {record['hold_id']} 0.10 --reason noise --key c1")
    assert (code, "0.20 EUR booked. Credit: 6.40 EUR" in out) == (0, True), (out, err)
    code, out, err = await command(f"ledger correct {record['hold_id']} 0.10 --reason noise --key c1")
    assert (code, "was made before" in out) == (0, True), (out, err)
    _, out, _ = await command("topup alice 2 -o json")
    entry = json.loads(out)["entry_id"]
    code, out, err = await command(f"ledger reverse {entry} --reason twice")
    assert (code, "-2.00 EUR booked. Credit: 6.40 EUR" in out) == (0, True), (out, err)
    code, out, err = await command(f"ledger reverse {entry} --reason twice")
    assert (code, "nothing had to change" in out) == (0, True), (out, err)
    _, out, _ = await command("ledger list alice -o json")
    booked = [(one["kind"], one["amount_micros"]) for one in json.loads(out)]
    assert booked[:5] == [
        ("reversal", 0),
        ("reversal", -2_000_000),
        ("top-up", 2_000_000),
        ("reversal", 200_000),
        ("call", -300_000),
    ]
    return str(record["hold_id"])


# What is done to the call $1 in the database, what puts it right again, and what the check then finds.
TAMPERING = [
    (
        "UPDATE cdr SET price_micros = price_micros - 1 WHERE id = $1",
        "UPDATE cdr SET price_micros = price_micros + 1 WHERE id = $1",
        ["undercharged", "entry-differs"],
    ),
    (
        "DELETE FROM ledger_entry WHERE id = $1",
        "INSERT INTO ledger_entry SELECT * FROM kept_entry WHERE id = $1",
        ["entry-missing"],
    ),
    ("DELETE FROM cdr WHERE id = $1", "INSERT INTO cdr SELECT * FROM kept_cdr WHERE id = $1", ["record-missing"]),
]


async def what_is_tampered_with_is_found(system: LocalSystem, command: Command, account_id: str, hold_id: str) -> None:
    """By the exit code, as a table and as CSV; and a call that no edge has written down."""

    async def found(expected_code: int) -> list[str]:
        code, out, err = await command("ledger check alice -o json")
        checked = json.loads(out)
        assert (code, checked["right"], bool(err)) == (expected_code, not expected_code, bool(expected_code)), out
        assert checked["charges"]["edges_asked"]
        return [one["kind"] for one in checked["findings"]]

    connection = await databases.connect(system.database_url)
    try:
        await connection.execute("CREATE TEMPORARY TABLE kept_entry AS SELECT * FROM ledger_entry")
        await connection.execute("CREATE TEMPORARY TABLE kept_cdr AS SELECT * FROM cdr")
        assert await found(0) == []
        for tampering, remedy, expected in TAMPERING:
            await connection.execute(tampering, UUID(hold_id))
            assert await found(1) == expected
            code, out, err = await command("ledger check alice")
            assert (code, expected[0] in out, "the books are wrong" in err) == (1, True, True), (out, err)
            _, out, _ = await command("ledger check alice -o csv")
            assert [row["kind"] for row in csv.DictReader(out.splitlines())] == expected
            await connection.execute(remedy, UUID(hold_id))
            assert await found(0) == []
        async with Edges(system) as edges:
            call = TrackedCall(account_id, "493023125042", at_s=time.time())
            await edges.admit(call, 0)
            assert await found(0) == []
            await connection.execute("UPDATE hold SET created_at = created_at - interval '10 minutes'")
            assert await found(1) == ["call-unknown"]
            edges.ended(call)

            async def is_settled() -> bool:
                return not await connection.fetchval("SELECT count(*) FROM hold")

            await eventually(is_settled)
        assert await found(0) == []
    finally:
        await connection.close()
