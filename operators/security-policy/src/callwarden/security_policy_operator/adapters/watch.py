"""Notifies of changes to resources of our kinds, but for their status, which the operator writes itself. A round reads
everything again, so no notification is indispensable.

kopf runs in a thread and an event loop of its own: in the main thread it would handle the process's signals.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import kopf

from callwarden.common.logs import get_logger
from callwarden.security_policy_operator.adapters.kubernetes import GROUP, VERSION

log = get_logger(__name__)

_STOP_TIMEOUT_S: Final = 5.0


class ResourceWatch:
    """`await watch.run()` for ever; `changed` is called with a kind's plural in the loop that runs it. `me` names this
    process.
    """

    def __init__(self, plurals: Iterable[str], changed: Callable[[str], None], me: str) -> None:
        self._plurals = tuple(plurals)
        self._me = me
        self._changed = changed

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        stop, ended = threading.Event(), asyncio.Event()
        registry = kopf.OperatorRegistry()

        known: dict[str, tuple[Any, ...]] = {}  # by uid

        def on_event(body: kopf.Body, **event: Any) -> None:
            form = body.meta.get("generation"), body.meta.get("deletionTimestamp"), body.meta.get("finalizers")
            uid = str(body.meta.get("uid"))
            if event["type"] == "DELETED":
                known.pop(uid, None)
            elif known.get(uid) == form:
                return
            else:
                known[uid] = form
            loop.call_soon_threadsafe(self._changed, str(event["resource"].plural))

        for plural in self._plurals:
            kopf.on.event(GROUP, VERSION, plural, registry=registry)(on_event)
        kopf.on.login(registry=registry)(kopf.login_with_service_account)
        kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False  # the app writes Events
        settings.scanning.disabled = True  # our kinds exist before the operator does; it has no right to watch all CRDs
        settings.process.ultimate_exiting_timeout = None

        # Or kopf asks for the user's name, which the user of a container need not have. Its type isn't public.
        identity: Any = self._me

        def work() -> None:
            try:
                asyncio.run(
                    kopf.operator(
                        registry=registry,
                        settings=settings,
                        standalone=True,
                        clusterwide=True,
                        stop_flag=stop,
                        identity=identity,
                    )
                )
            except Exception as error:  # the boundary of the thread: the waiting task ends, and with it the process
                log.error("watch.failed", error=error)
            finally:
                loop.call_soon_threadsafe(ended.set)

        logging.getLogger("kopf").setLevel(logging.WARNING)
        thread = threading.Thread(target=work, name="kopf", daemon=True)
        thread.start()
        try:
            await ended.wait()
            raise RuntimeError("the watch on the cluster has ended")
        finally:
            stop.set()
            await asyncio.to_thread(thread.join, _STOP_TIMEOUT_S)
