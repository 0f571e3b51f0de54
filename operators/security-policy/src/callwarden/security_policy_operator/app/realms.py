"""RealmBinding resources as all reconcilers read them: at the start of each round."""

from typing import Final

from callwarden.common.logs import get_logger
from callwarden.security_policy_operator.core.realms import RealmGrants
from callwarden.security_policy_operator.ports import ClusterApi

log = get_logger(__name__)

PLURAL: Final = "realmbindings"


class RealmBindings:
    """Of one cluster."""

    def __init__(self, cluster: ClusterApi, home: str) -> None:
        """`home`: the release's namespace, which may act on all realms."""
        self._cluster, self._home = cluster, home
        self._invalid: tuple[str, ...] = ()

    async def grants(self) -> RealmGrants:
        """Raises Unavailable: nothing is withdrawn because the bindings can't be read."""
        found = RealmGrants.of(self._home, await self._cluster.list(PLURAL))
        if found.invalid != self._invalid:
            self._invalid = found.invalid
            log.warning("realm_bindings.invalid", names=found.invalid[:20])
        return found
