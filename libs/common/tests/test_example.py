"""The page that shows how a service is written is a service that works."""

from pathlib import Path
from typing import Any

import pytest

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.stream import StreamClient
from callwarden.kernel.errors import NotFound
from callwarden.local.nats import NatsServer
from callwarden.testing.waiting import eventually

from .child import Start, get

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"
HERE = Path(__file__).parent


def test_the_readme_shows_the_example_as_it_is() -> None:
    page = (HERE.parent / "README.md").read_text()
    assert f"```python\n{(HERE / 'example_service.py').read_text()}```" in page


@pytest.mark.integration
async def test_the_example_works(start: Start, nats_server: NatsServer, database_url: str, tmp_path: Path) -> None:
    process = await start(
        "example_service.py", nats_url=nats_server.url, database_url=database_url, spool_dir=str(tmp_path / "spool")
    )
    ready = await process.ready()
    await process.logs("bans.synced")
    async with channel(f"127.0.0.1:{ready['grpc_port']}") as opened, StreamClient(opened, SERVICE) as stream:
        stub: Any = rateguard_pb2_grpc.RateGuardServiceStub(opened)
        for sequence in range(3):
            request = pb.CountRequest(edge="edge-0", sequence=sequence)
            await stream.call("Count", request, pb.CountReply, timeout_s=30)
        bans = (await unary(stub.ListBans, pb.ListBansRequest())).bans
        assert [ban.address for ban in bans] == ["192.0.2.1"]
        with pytest.raises(NotFound):
            await unary(stub.RemoveBans, pb.RemoveBansRequest())
    await eventually(lambda: len([line for line in process.logged if line["event"] == "event.settled"]) == 3)
    _, metrics = await get(ready["metrics_port"], "/metrics")
    assert "callwarden_example_reports_total 3.0" in metrics
    assert "callwarden_example_bans 1.0" in metrics
    process.terminate()
    assert await process.ends() == 0
