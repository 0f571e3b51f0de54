"""What call-admission is told by its environment."""

from typing import Annotated

from pydantic import Field

from callwarden.common import settings


class Settings(settings.Settings):
    """The process's settings and these; every name gets the prefix CALLWARDEN_."""

    rating_targets: Annotated[str, Field(pattern=r"^\S+$")] = "127.0.0.1:7003"
    """host:port of rating, several with commas."""

    quotes_cached_max: Annotated[int, Field(ge=1_000, le=1_000_000)] = 50_000
    """Prices kept in memory, by price list and called number, 0.4 KB each."""

    def targets(self) -> tuple[str, ...]:
        return tuple(part for part in self.rating_targets.split(",") if part)
