"""What the operator is told by its environment."""

from typing import Annotated

from pydantic import Field, StringConstraints

from callwarden.common import settings
from callwarden.common.settings import Listen


class Settings(settings.Settings):
    """The process's settings and these; every name gets the prefix CALLWARDEN_.

    How the cluster is reached: the pod's service account, or outside of a cluster what KUBECONFIG names.
    """

    lease_namespace: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "default"
    """Where the Lease is by which operators agree on a leader: the pod's namespace."""

    lease_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] = (
        "callwarden-security-policy"
    )

    lease_s: Annotated[int, Field(ge=3, le=300)] = 15
    """How long a leader that says nothing any more is waited for."""

    resync_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 60.0
    """Everything is looked at anew after this, whether something was told or not."""

    rate_guard: Listen | None = None
    """host:port of rate-guard's gRPC, by which Ban resources are carried out; without it they are not looked at."""

    call_admission: Listen | None = None
    """host:port of call-admission's gRPC, by which Trunk resources are carried out; without it nobody looks at them."""

    rating: Listen | None = None
    """host:port of rating's gRPC, by which RateDeck resources are carried out; without it they are not looked at."""
