"""What an operator does to a running system (accounts, money, rates, trunks, questions), for tests and benchmarks.

The same gRPC calls as the CLI makes, without its words. Not here: starting the system (callwarden.local.system) and
making calls (callwarden.testing.sipp).
"""

import asyncio
import sys
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import grpc.aio

from callwarden.api.admission.v1 import admission_pb2, admission_pb2_grpc
from callwarden.api.auth.v1 import auth_pb2, auth_pb2_grpc
from callwarden.api.payment.v1 import payment_pb2, payment_pb2_grpc
from callwarden.api.rating.v1 import rating_pb2, rating_pb2_grpc
from callwarden.common.rpc.client import Credentials, channel, unary
from callwarden.common.rpc.tokens import TokenFile
from callwarden.local.run_file import token_path

DEFAULT_REALM = "callwarden.local"
PASSWORD = "correct-horse-battery"
FLAT_DECK = "prefix,description,rate,unit_s,first_increment_s,next_increment_s\n49,Germany,0.06,60,1,1\n"


class SystemUnderTest(Protocol):
    """What runs, as a LocalSystem knows it."""

    @property
    def state_dir(self) -> Path: ...

    def targets(self, service: str) -> list[str]: ...


class OperatorClient:
    """Clients to all services of one system. Use as `async with Operator(system) as operator`."""

    def __init__(self, system: SystemUnderTest, credentials: Credentials | None = None) -> None:
        """`credentials` of role admin; None: the token in the system's state folder."""
        self._system = system
        self._credentials = credentials or TokenFile(token_path(system.state_dir, "admin"))
        self._channels: list[grpc.aio.Channel] = []

    async def __aenter__(self) -> Self:
        self.accounts = admission_pb2_grpc.AccountServiceStub(self._channel("administration"))
        self.auth = auth_pb2_grpc.AuthServiceStub(self._channel("auth"))
        self.rating = rating_pb2_grpc.RatingServiceStub(self._channel("rating"))
        self.payment = payment_pb2_grpc.PaymentServiceStub(self._channel("payment"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(open_channel.close() for open_channel in self._channels))

    def _channel(self, service: str) -> grpc.aio.Channel:
        self._channels.append(channel(self._system.targets(service)[0], self._credentials, peer=service))
        return self._channels[-1]

    async def account(
        self,
        name: str,
        *,
        realm: str = DEFAULT_REALM,
        kind: str = "enduser",
        prepaid: bool = True,
        deck: str = "retail",
        lines: int | None = None,
        daily_micros: int | None = None,
        numbers: tuple[str, ...] = (),
        password: str | None = PASSWORD,
        credit_micros: int = 0,
        limits: admission_pb2.Limits | None = None,
    ) -> str:
        """A new account with credentials and credit; its id."""
        account = admission_pb2.Account(
            name=name, realm=realm, type=kind, currency="EUR", prepaid=prepaid, deck=deck, numbers=numbers,
            limits=limits,
        )  # fmt: skip
        if lines is not None:
            account.limits.max_lines = lines
        if daily_micros is not None:
            account.limits.daily_micros = daily_micros
        created = await unary(self.accounts.CreateAccount, admission_pb2.CreateAccountRequest(account=account))
        if password is not None:
            request = auth_pb2.SetPasswordRequest(account_id=created.id, username=name, realm=realm, password=password)
            await unary(self.auth.SetPassword, request)
        if credit_micros:
            await self.top_up(created.id, credit_micros, key=f"first-{created.id}")
        return str(created.id)

    async def top_up(self, account: str, amount_micros: int, *, key: str) -> payment_pb2.TopUpReply:
        request = payment_pb2.TopUpRequest(account=account, amount_micros=amount_micros, currency="EUR", key=key)
        reply: payment_pb2.TopUpReply = await unary(self.payment.TopUp, request)
        return reply

    async def get(self, account: str) -> admission_pb2.Account:
        found: admission_pb2.Account = await unary(
            self.accounts.GetAccount, admission_pb2.GetAccountRequest(account=account)
        )
        return found

    async def deck(self, name: str = "retail", csv: str = FLAT_DECK) -> None:
        """Imports a rate deck in EUR; every line must be right."""
        request = rating_pb2.ImportDeckRequest(name=name, currency="EUR", csv=csv.encode(), time_zone="UTC")
        reply = await unary(self.rating.ImportDeck, request, timeout_s=60)
        if reply.errors:
            raise ValueError(f"deck {name}: {reply.errors}")

    async def carrier(
        self,
        address: str,
        *,
        name: str = "carrier",
        prefix: str = "",
        priority: int = 0,
        limits: admission_pb2.Limits | None = None,
    ) -> None:
        """A carrier trunk at host:port with a route for the prefix."""
        account_id = await self.account(f"{name}-account", kind="carrier", prepaid=False, password=None, limits=limits)
        trunk = admission_pb2.Trunk(name=name, address=address, direction="carrier", account=account_id, enabled=True)
        await unary(self.accounts.CreateTrunk, trunk)
        await unary(self.rating.SetRoute, rating_pb2.SetRouteRequest(prefix=prefix, trunk=name, priority=priority))

    async def calls(
        self, account: str = "", *, running: bool = False, page_size: int = 1000
    ) -> list[admission_pb2.Call]:
        """Newest first, at most 1000."""
        request = admission_pb2.ListCallsRequest(account=account, running=running, page_size=page_size)
        return list((await unary(self.accounts.ListCalls, request)).calls)

    async def explain(self, call_id: str) -> admission_pb2.ExplainReply:
        reply: admission_pb2.ExplainReply = await unary(
            self.accounts.Explain, admission_pb2.ExplainRequest(call_id=call_id)
        )
        return reply

    async def command(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Runs the `callwarden` command against this system; its exit code and all that it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "callwarden.cli.main", "--state-dir", str(self._system.state_dir), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate(stdin.encode())
        return process.returncode or 0, output.decode()

    async def apply_policy(self, text: str) -> str:
        """Applies a policy as an operator does, `callwarden policy apply -f -`; returns when all processes run it."""
        code, output = await self.command("policy", "apply", "-f", "-", stdin=text)
        if code:
            raise ValueError(output)
        return output

    async def audit(self, account: str = "") -> admission_pb2.AuditLedgerReply:
        reply: admission_pb2.AuditLedgerReply = await unary(
            self.accounts.AuditLedger, admission_pb2.AuditLedgerRequest(account=account), timeout_s=30
        )
        return reply
