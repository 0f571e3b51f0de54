"""What can be set for a rating process, besides what every process has."""

from typing import Annotated

from pydantic import Field

from callwarden.common import settings


class Settings(settings.Settings):
    """Read from `CALLWARDEN_…`."""

    quote_valid_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 300.0
    """How long a quote may be used again. It is also how long calls go on being priced while no rating process answers,
    and how long an old price may live on where the news of a new one was lost."""

    refresh_every_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 30.0
    """How often decks and routes are compared with the database, should the news of a change have been lost."""
