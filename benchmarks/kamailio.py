"""Kamailio as a plain record-routing proxy: the yardstick, without limits, accounts or authentication."""

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_CONFIG: Final = """
#!KAMAILIO
debug=0
log_stderror=yes
memdbg=5
memlog=5
children=2
disable_tcp=yes
auto_aliases=no
listen=udp:127.0.0.1:{port}
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/:/usr/lib/kamailio/modules/:/usr/lib64/kamailio/modules/"
loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (has_totag()) {{
    if (loose_route()) {{ t_relay(); exit; }}
    if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
    sl_send_reply("404", "Not here"); exit;
  }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  t_check_trans();
  if (is_method("INVITE")) record_route();
  $du = "sip:{carrier}";
  t_relay();
}}
"""


class Kamailio:
    """One Kamailio with two UDP workers that relays everything to the carrier. Use as `async with`."""

    def __init__(self, folder: Path, port: int, carrier: str) -> None:
        self._folder = folder
        self._port = port
        self._carrier = carrier
        self.address = f"127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "kamailio.cfg"
        config.write_text(_CONFIG.format(port=self._port, carrier=self._carrier))
        self._process = await asyncio.create_subprocess_exec(
            *("kamailio", "-f", str(config), "-DD", "-E", "-m", "256", "-M", "16", "-Y", str(self._folder)),
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            os.killpg(self._process.pid, 9)  # Its children, which have no other parent to end them.
            await self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid
