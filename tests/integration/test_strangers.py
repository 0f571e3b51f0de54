"""Who gets what from a running system: a stranger of this machine nothing, each service what its role allows.

Every method that the processes serve is tried, as they themselves list it.
"""

import asyncio
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from callwarden.api.admission.v1 import lists_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2
from callwarden.common.rpc.access import ROLES, callers_of
from callwarden.common.rpc.client import channel
from callwarden.local.run_file import token_path
from callwarden.local.services import SERVICES
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Sites

if TYPE_CHECKING:
    from callwarden.testing.plugin import StartSystem

pytestmark = [pytest.mark.integration, pytest.mark.cases, pytest.mark.timeout(180)]

UNKNOWN, FORBIDDEN = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
ANSWER_S = 30.0
DESCRIBED = (lists_pb2, rateguard_pb2)  # services that nothing else here imports

POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: test}
spec:
  lines: {max: 3}
"""

# What a program of another user does that knows all of the protocol and has no file of ours.
THIEF = """
import sys, grpc
from callwarden.api.payment.v1 import payment_pb2 as pb, payment_pb2_grpc
stub = payment_pb2_grpc.PaymentServiceStub(grpc.insecure_channel(sys.argv[1]))
try:
    stub.TopUp(pb.TopUpRequest(account=sys.argv[2], amount_micros=999_000_000, currency="EUR", key="k"), timeout=20)
except grpc.RpcError as error:
    print(error.code().name)
"""


async def served(system: LocalSystem, target: str) -> list[str]:
    """All methods of one process, by its own reflection."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub  # grpc's types know its synchronous half
    async with channel(target, system.credentials("admin")) as opened:
        call = stub(opened).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = [each.name for each in (await call.read()).list_services_response.service]
        call.cancel()
    found = descriptor_pool.Default().FindServiceByName
    return [f"/{name}/{method.name}" for name in names for method in found(name).methods]


async def code_of(opened: grpc.aio.Channel, method: str, metadata: Sequence[tuple[str, str]] = ()) -> grpc.StatusCode:
    """What an empty message gets; OK as soon as there is an answer."""
    untyped: Any = opened.stream_stream(method)
    call = untyped(metadata=metadata, timeout=ANSWER_S)
    try:
        await call.write(b"")
        await call.done_writing()
        if await call.read() is not grpc.aio.EOF:
            return grpc.StatusCode.OK
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    if await call.details() == "Internal error from Core":  # our own client's: it was still writing when it was refused
        return await code_of(opened, method, metadata)
    code: grpc.StatusCode = await call.code()
    return code


async def test_every_method_of_every_process_is_for_its_callers_only(local_system: "StartSystem") -> None:
    system = await local_system()
    tried: Counter[str] = Counter()
    for service in SERVICES:
        target = system.targets(service.name)[0]
        methods = await served(system, target)
        async with grpc.aio.insecure_channel(target) as stranger:
            for method in methods:
                assert await code_of(stranger, method) is UNKNOWN, method
                assert await code_of(stranger, method, [("authorization", "Bearer " + "x" * 43)]) is UNKNOWN, method
                tried["stranger"] += 2
        for role in sorted(ROLES - {"security-policy"}):  # which has no process, hence no token, on one machine
            async with channel(target, system.credentials(role)) as opened:
                for method in methods:
                    code = await code_of(opened, method)
                    if role in callers_of(method):
                        assert code not in (UNKNOWN, FORBIDDEN), (role, method)
                        tried["allowed"] += 1
                    else:
                        assert code is FORBIDDEN, (role, method)
                        tried["forbidden"] += 1
    assert tried["allowed"] > 200
    assert tried["forbidden"] > 400


async def test_a_process_of_this_machine_can_not_top_up_an_account(local_system: "StartSystem") -> None:
    system = await local_system(services={"administration", "auth", "payment", "rating"})
    async with OperatorClient(system) as operator:
        await operator.deck()
        account = await operator.account("alice", credit_micros=1_000_000)
        thief = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", THIEF, system.targets("payment")[0], account), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await thief.communicate()
        assert said.decode().strip() == "UNAUTHENTICATED"
        assert (await operator.get(account)).balance_micros == 1_000_000
        code, output = await operator.command("topup", "alice", "5")
        assert code == 0, output
        assert (await operator.get(account)).balance_micros == 6_000_000


async def test_tokens_are_private_new_at_each_start_and_nowhere_else(
    state_dir: Path, local_system: "StartSystem"
) -> None:
    folder = state_dir / "kept"
    seen: list[dict[str, str]] = []
    for _ in range(2):
        system = await local_system(services={"rating"}, state_dir=folder)
        tokens = folder / "tokens"
        assert stat.S_IMODE(tokens.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in tokens.iterdir()} == {0o600}
        seen.append({path.name: path.read_text().strip() for path in tokens.iterdir()})
        secrets = [text for name, text in seen[-1].items() if name != "callers.json"]
        child = system.process("rating").child
        proc = Path("/proc", str(child.pid))
        shown = proc.joinpath("cmdline").read_bytes() + proc.joinpath("environ").read_bytes() + child.log.read_bytes()
        assert str(token_path(folder, "rating")).encode() in shown  # where it is, and not what
        assert not [secret for secret in secrets if secret.encode() in shown]
        assert not [secret for secret in secrets if secret in (folder / "run.json").read_text()]
        await system.__aexit__(None, None, None)
        assert not tokens.exists()
    assert set(seen[0].values()).isdisjoint(seen[1].values())


async def test_the_command_line_says_what_to_do_without_the_token(local_system: "StartSystem") -> None:
    system = await local_system(services={"rating"})
    operator, admin = OperatorClient(system), token_path(system.state_dir, "admin")
    admin.write_text("x" * 43)
    code, output = await operator.command("rates", "list")
    assert code == 1
    assert "doesn't know us" in output
    admin.unlink()
    code, output = await operator.command("rates", "list")
    assert code == 1
    assert "token can't be read" in output


async def test_no_service_needs_more_than_its_role_has(site: Sites) -> None:
    """A day's work, on gRPC and on NATS; whatever were refused would be in a log."""
    async with site() as s, Phones(s.system.sip_address) as phones:
        await s.operator.account("alice", credit_micros=10_000_000)
        await s.operator.apply_policy(POLICY)
        call = phones.call("alice", PASSWORD, DEFAULT_REALM, "4930123456")
        assert await call.status == 200
        await phones.hang_up(call)

        async def settled() -> bool:
            return [each.state for each in await s.operator.calls()] == ["settled"]

        await eventually(settled)
        (s.system.state_dir / "numbers.txt").write_text("4930\n")
        for words in (
            ("ban", "add", "192.0.2.7", "--for", "1h"),
            ("ban", "list"),
            ("ban", "remove", "192.0.2.7"),
            ("list", "import", "blocked", str(s.system.state_dir / "numbers.txt")),
            ("topup", "alice", "1"),
            ("policy", "status"),
            ("rates", "list"),
            ("route", "list"),
            ("trunk", "list"),
            ("ledger", "check"),
            ("explain", call.call_id),
            ("audit",),
        ):
            code, output = await s.operator.command(*words)
            assert "denied" not in output, output
            assert code == 0 or words == ("audit",), (words, output)
        logs = {name: child.log.read_text() for name, child in s.system.children().items()}
        for event in ("bus.denied", "rpc.caller_refused", "stream.refused", "Permissions Violation"):
            assert not [name for name, text in logs.items() if event.lower() in text.lower()], event
