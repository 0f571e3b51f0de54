"""One pjsua phone in a process of its own, without sound. Run by path (with -P, or modules beside it hide those of the
standard library) with a Python that has pjsua2, and needs nothing of ours.

In: USER PASSWORD REALM PROXY PORT as arguments; "call NUMBER" and "hangup" on standard input. Out: a line for each
event, "registration CODE" and "call STATE CODE". It ends when its input does. See `foreign_phones.Pjsua`.
"""

import select
import sys
from typing import Any

import pjsua2 as pj  # type: ignore[import-not-found]

TURN_MS = 20


def _print(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class PjsuaAccount(pj.Account):  # type: ignore[misc]
    def onRegState(self, event: Any) -> None:  # noqa: N802
        _print("registration", event.code)


class PjsuaCall(pj.Call):  # type: ignore[misc]
    def onCallState(self, event: Any) -> None:  # noqa: N802
        info = self.getInfo()
        _print("call", info.stateText, info.lastStatusCode)


def _endpoint(port: int) -> Any:
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = 0
    config.uaConfig.threadCnt = 0  # callbacks come in this thread, out of libHandleEvents
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.port, transport.boundAddress = port, "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    return endpoint


def _account(user: str, password: str, realm: str, proxy: str) -> Any:
    config = pj.AccountConfig()
    config.idUri = f"sip:{user}@{realm}"
    config.regConfig.registrarUri = f"sip:{realm}"
    config.regConfig.retryIntervalSec = 0  # one try, and its answer
    config.sipConfig.proxies.append(f"sip:{proxy};lr")
    config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
    config.mediaConfig.transportConfig.boundAddress = "127.0.0.1"
    account = PjsuaAccount()
    account.create(config)
    return account


def main(user: str, password: str, realm: str, proxy: str, port: str) -> None:
    endpoint = _endpoint(int(port))
    account = _account(user, password, realm, proxy)
    call: Any = None
    is_open = True
    while is_open:
        endpoint.libHandleEvents(TURN_MS)
        while is_open and select.select([sys.stdin], [], [], 0)[0]:
            word, _, number = sys.stdin.readline().strip().partition(" ")
            if word == "call":
                call = PjsuaCall(account)
                call.makeCall(f"sip:{number}@{realm}", pj.CallOpParam(True))
            elif word == "hangup":
                call.hangup(pj.CallOpParam())
            is_open = bool(word)
    del call, account
    endpoint.libDestroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
