"""A process that keeps the launcher's contract with a service and does nothing else: settings by environment, a ready
file, SIGTERM ends it with 0. `STANDIN` chooses how it misbehaves. The real services are tested in tests/integration.
"""

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path


def main() -> None:
    behaviour = os.environ.get("STANDIN", "")
    instance = os.environ["CALLWARDEN_INSTANCE"]
    settings = {name: value for name, value in os.environ.items() if name.startswith("CALLWARDEN_")}
    Path(os.environ["STANDIN_FOLDER"], f"{instance}.settings").write_text(json.dumps(settings))
    if behaviour == "fails to start":
        sys.exit("the dictionary of destinations is empty")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "ignores SIGTERM" else lambda *_: stopping.set())
    host, _, port = os.environ["CALLWARDEN_GRPC_LISTEN"].rpartition(":")
    with socket.create_server((host, int(port))) as server:
        ready = Path(os.environ["CALLWARDEN_READY_FILE"])
        half = ready.with_suffix(".half")
        half.write_text(json.dumps({"pid": os.getpid(), "grpc_port": server.getsockname()[1], "metrics_port": 9}))
        half.rename(ready)
        while not stopping.wait(0.05):
            pass
    sys.exit(3 if behaviour == "fails to stop" else 0)


if __name__ == "__main__":
    main()
