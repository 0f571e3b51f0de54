"""The how-to guides for one machine, typed as a reader types them, one after the other on one running system."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callwarden.testing.operator import DEFAULT_REALM
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.walkthrough import Walkthrough, reader_environment

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
PBX = "127.0.0.77"

# What the guides take for granted: a system that runs, a carrier, prices, a customer who has called.
BEFORE = """
```sh
# terminal 1
callwarden up --sip 127.0.0.1:5060
```
```text
Callwarden runs…
```
```sh
# terminal 2
callwarden sip answer --listen 127.0.0.1:5080
```
```text
answering every number…
```
```sh
callwarden trunk add carrier --address 127.0.0.1:5080
callwarden route set all carrier
callwarden rates import retail deploy/examples/rates.csv --currency EUR
callwarden account create alice --password wonderland-7 --deck retail --credit 5
callwarden sip call +493023125042 --user alice --password wonderland-7 --for 1s
```
```console
$ callwarden sip call +449098790123 --user alice --password wonderland-7
callwarden: 403 Forbidden; `callwarden explain 593aea4b2b9f58d6` shows why
```
"""


def page(name: str) -> str:
    return (ROOT / "docs/howto" / f"{name}.md").read_text()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A checkout as far as the pages need it; every user can pass through, as the database's must."""
    made = Path(tempfile.mkdtemp(prefix="callwarden-howto-"))
    made.chmod(0o755)
    (made / "deploy").symlink_to(ROOT / "deploy")
    yield made
    shutil.rmtree(made)


async def test_the_guides_for_one_machine_do_what_they_say(folder: Path, free_udp_port: Callable[[], int]) -> None:
    sip, carrier, pbx_port, restored = (free_udp_port() for _ in range(4))
    instead = (
        ("192.0.2.20:5060", f"{PBX}:{pbx_port}"),
        ("192.0.2.20", PBX),
        ("127.0.0.1:5060", f"127.0.0.1:{sip}"),
        ("127.0.0.1:5070", f"127.0.0.1:{restored}"),
        ("127.0.0.1:5080", f"127.0.0.1:{carrier}"),
    )
    async with (
        Walkthrough(folder, reader_environment(folder, Path(sys.prefix)), instead) as reader,
        Phones(f"127.0.0.1:{sip}", host=PBX, port=pbx_port) as pbx,
    ):
        await reader.follow(BEFORE)
        await reader.follow(page("support-desk"))
        await _put_a_pbx_behind(reader, pbx)
        await reader.follow(page("monitor-one-machine"))
        await reader.follow(page("back-up-one-machine"))
        await reader.follow(page("migrate-from-kamailio"))
        await reader.follow(page("migrate-from-mizu"))


async def _put_a_pbx_behind(reader: Walkthrough, pbx: Phones) -> None:
    """The PBX places its calls where the page says that it does, and takes one where the page has set up everything."""
    text = page("pbx-behind")
    simulated = text.index("4. Simulate a call")
    await reader.follow(text[:simulated])

    async def status_of(number: str) -> int:
        call = pbx.call("+442079460110", "", DEFAULT_REALM, number)
        status = await call.status
        if status == 200:
            await pbx.hang_up(call)
        return status

    async def is_known() -> bool:
        return await status_of("+493023125042") == 200

    await eventually(is_known)  # auth learns of the trunk in a moment; until then its address is a stranger's.
    assert await status_of("+33123456789") == 403
    await reader.follow(text[simulated:])
    taken = pbx.incoming
    await reader.follow(
        """
```console
$ callwarden sip call +442079460110 --user alice --password wonderland-7 --for 1s
200 OK…
```
"""
    )
    assert pbx.incoming == taken + 1
