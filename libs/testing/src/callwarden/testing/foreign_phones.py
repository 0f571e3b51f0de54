"""Phones that people have, each the program itself without sound: linphone, Debian's baresip, pjsua.

In: registering, calling, hanging up, by each program's own remote control. Out: SIPp, which plays scenarios
(callwarden.testing.sipp), and the phone of the demo (callwarden.cli.demo.phones).
"""

import asyncio
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

STARTS_S: Final = 60.0  # On a busy machine; a phone that starts takes one or two.
POLL_S: Final = 0.2
POLLS: Final = int(STARTS_S / POLL_S)
LINE_MAX: Final = 1 << 20

PJSUA_PYTHON: Final = Path(os.environ.get("CALLWARDEN_PJSUA", Path.cwd() / ".venv-pjsua/bin/python"))
"""A Python that has pjsua2: `make pjsua`."""


@dataclass(frozen=True, slots=True)
class PhoneSetup:
    """What its owner types into a phone. `port`: where it listens, UDP on 127.0.0.1."""

    user: str
    password: str
    realm: str
    proxy: str
    port: int
    folder: Path


class ForeignPhone(Protocol):
    """One running phone. It tries to register when it starts; each method is called once, in this order."""

    async def is_registered(self) -> bool:
        """Whether it got in, once it knows."""

    async def is_answered(self, number: str) -> bool:
        """Calls; whether the call was answered, once it knows."""

    async def hang_up(self) -> None:
        """Ends the call."""


class RunningPhone(ForeignPhone, Protocol):
    """Use as `async with`; the program runs meanwhile."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _PhoneProgram:
    """A process that is driven by lines and says what happens in lines."""

    def __init__(self, command: Sequence[str | Path], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._output = ""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._folder,
            env={**os.environ, "HOME": str(self._folder)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=LINE_MAX,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def _source(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None
        return self._process.stdout

    async def _wait_for(self, pattern: str) -> str:
        """Waits until its output has the pattern; what of it matched. What comes before is forgotten."""
        source = self._source()
        async with asyncio.timeout(STARTS_S):
            while True:
                found = re.search(pattern, self._output)
                if found is not None:
                    self._output = self._output[found.end() :]
                    return found[0]
                data = await source.read(LINE_MAX)
                if not data:
                    raise AssertionError(f"{self._command[0]} ended: {self._output[-2000:]}")
                self._output += data.decode(errors="replace")


class Linphone(_PhoneProgram):
    """linphonec of Debian's linphone-cli."""

    def __init__(self, setup: PhoneSetup) -> None:
        # It keeps a database under HOME and makes no folders for it.
        (setup.folder / ".local/share/linphone").mkdir(parents=True)
        config = setup.folder / "linphonerc"
        proxy = f"<sip:{setup.proxy};transport=udp;lr>"
        config.write_text(
            f"[sip]\nsip_port={setup.port}\nsip_tcp_port=0\nsip_tls_port=0\nuse_ipv6=0\ndefault_proxy=0\n"
            "[rtp]\naudio_rtp_port=-1\n"  # any that is free
            f"[proxy_0]\nreg_proxy={proxy}\nreg_route={proxy}\nreg_identity=sip:{setup.user}@{setup.realm}\n"
            "reg_expires=600\nreg_sendregister=1\n"
            f"[auth_info_0]\nusername={setup.user}\npasswd={setup.password}\nrealm={setup.realm}\n"
        )
        super().__init__(["linphonec", "-c", config], setup.folder)
        self._realm = setup.realm

    async def is_registered(self) -> bool:
        self._write("soundcard use files")
        await self._wait_for("Using wav files")
        for _ in range(POLLS):
            self._write("status register")
            state = await self._wait_for(r"registered, identity=|registered=0|registered=-1|Password for")
            if not state.startswith("registered="):
                return state.startswith("registered, ")
            await asyncio.sleep(POLL_S)  # It says by itself only that it wants another password.
        return False

    async def is_answered(self, number: str) -> bool:
        self._write(f"call sip:{number}@{self._realm}")
        return await self._wait_for(r" connected\.| error\.| ended ") == " connected."

    async def hang_up(self) -> None:
        await self._wait_for("Media streams established")
        self._write("terminate")
        await self._wait_for(" ended ")


class Pjsua(_PhoneProgram):
    """pjsua2 of a Python that has it: `pjsua_phone`."""

    def __init__(self, setup: PhoneSetup) -> None:
        script = Path(__file__).with_name("pjsua_phone.py")
        given = (setup.user, setup.password, setup.realm, setup.proxy, str(setup.port))
        super().__init__([PJSUA_PYTHON, "-P", script, *given], setup.folder)

    async def is_registered(self) -> bool:
        return await self._wait_for(r"registration \d+") == "registration 200"

    async def is_answered(self, number: str) -> bool:
        self._write(f"call {number}")
        return await self._wait_for(r"call (CONFIRMED|DISCONNCTD|DISCONNECTED) \d+") == "call CONFIRMED 200"

    async def hang_up(self) -> None:
        self._write("hangup")
        await self._wait_for("call DISCONN")


class DebiansBaresip(_PhoneProgram):
    """baresip 1.0 of Debian's baresip-core, by its module ctrl_tcp, whose events are JSON."""

    def __init__(self, setup: PhoneSetup, control_port: int) -> None:
        (setup.folder / "config").write_text(
            f"sip_listen 127.0.0.1:{setup.port}\nmodule_path /usr/lib/baresip/modules\n"
            f"audio_source aubridge,none\naudio_player aubridge,none\nctrl_tcp_listen 127.0.0.1:{control_port}\n"
            "module g711.so\nmodule aubridge.so\nmodule_app account.so\nmodule_app ctrl_tcp.so\nmodule_app menu.so\n"
        )
        (setup.folder / "accounts").write_text(
            f"<sip:{setup.user}@{setup.realm};transport=udp>;auth_user={setup.user};auth_pass={setup.password};"
            f'regint=600;outbound="sip:{setup.proxy};transport=udp"\n'
        )
        super().__init__(["baresip", "-f", setup.folder], setup.folder)
        self._realm = setup.realm
        self._port = control_port

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        async with asyncio.timeout(STARTS_S):
            while True:
                try:
                    self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
                    return self
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)  # Another program's port, which opens when it opens.

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await super().__aexit__(kind, error, trace)

    async def is_registered(self) -> bool:
        for _ in range(POLLS):
            self._remote("reginfo")
            state = await self._wait_for(rf"@{re.escape(self._realm)} .{{0,60}}?m(OK|ERR|zzz)")
            if not state.endswith("zzz"):
                return state.endswith("OK")
            await asyncio.sleep(POLL_S)
        return False

    async def is_answered(self, number: str) -> bool:
        self._remote("dial", f"sip:{number}@{self._realm}")
        return "ESTABLISHED" in await self._wait_for("CALL_(ESTABLISHED|CLOSED)")

    async def hang_up(self) -> None:
        self._remote("hangup")
        await self._wait_for('"hangup"')

    def _remote(self, command: str, params: str = "") -> None:
        text = json.dumps({"command": command, "params": params, "token": command})
        self._writer.write(f"{len(text)}:{text},".encode())

    def _source(self) -> asyncio.StreamReader:
        return self._reader
