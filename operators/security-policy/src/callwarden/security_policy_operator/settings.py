"""The operator's settings, from its environment."""

from typing import Annotated

from pydantic import Field, StringConstraints

from callwarden.common import settings
from callwarden.common.settings import Listen


class OperatorSettings(settings.Settings):
    """The process's settings and these; every name gets the prefix CALLWARDEN_.

    The operator reaches the cluster by the pod's service account, or outside a cluster by what KUBECONFIG names.
    """

    lease_namespace: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "default"
    """Namespace of the Lease by which operators elect a leader: the pod's own. Its resources may act on all realms."""

    lease_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] = (
        "callwarden-security-policy"
    )

    lease_s: Annotated[int, Field(ge=3, le=300)] = 10
    """How long the others wait for a leader that no longer renews the Lease, which it does three times in that time:
    one that died is replaced after this and a third of it at most."""

    resync_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 60.0
    """Everything is reconciled again after this, whether or not a change was noticed."""

    rate_guard: Listen | None = None
    """host:port of rate-guard's gRPC, which carries out Ban resources; without it the operator ignores them."""

    administration: Listen | None = None
    """host:port of administration, which carries out Trunk resources; without it the operator ignores them."""

    rating: Listen | None = None
    """host:port of rating's gRPC, which carries out RateDeck resources; without it the operator ignores them."""
