"""Names, addresses and places of the node that those inside its namespaces and those outside must agree on."""

from pathlib import Path
from typing import Final

from tests.cluster.build import CACHE

NODE: Final = "node1"
# All of it in a network namespace of its own: these meet nothing of the machine's.
ADDRESS: Final = "10.200.0.1"
NOWHERE: Final = "10.200.0.2"
# Those who call and are called from outside, as the documentation's examples have them (RFC 5737). kube-proxy leaves
# their addresses as they are, as a load balancer with externalTrafficPolicy Local does.
PHONES: Final = "192.0.2.9"
CARRIER: Final = "192.0.2.10"
API_PORT: Final = 6_443
PODS: Final = "10.244.0.0/16"
NODE_PODS: Final = "10.244.0.0/24"
SERVICES: Final = "10.96.0.0/16"
API_SERVICE: Final = "10.96.0.1"
CLUSTER_DOMAIN: Final = "cluster.local"
ADMIN_TOKEN: Final = "admin-of-a-test"

# One node at a time on a machine (build.locked), so both are the same for all.
RUN: Final = CACHE / "run"
CONTAINERD: Final = CACHE / "containerd"


def socket(folder: Path) -> Path:
    """Where containerd listens. A file: it can be reached from outside the namespaces."""
    return folder / "containerd.sock"
