"""A service with nothing in it, on the runtime that all services share."""

from callwarden.common.runtime import Runtime, run_service
from callwarden.common.settings import Settings


async def wire(settings: Settings, runtime: Runtime) -> None:
    """Nothing to wire."""


if __name__ == "__main__":
    run_service("rating", Settings, wire)
