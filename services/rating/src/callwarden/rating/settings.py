"""Settings of a rating process, in addition to those of every process."""

from typing import Annotated

from pydantic import Field

from callwarden.common import settings


class RatingSettings(settings.Settings):
    """Read from `CALLWARDEN_…`."""

    quote_valid_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 300.0
    """How long callers may reuse a quote. Also how long calls are still priced while no rating process answers, and how
    long an old price may remain in use if the notification of a new one was lost."""

    refresh_every_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 30.0
    """How often decks and routes are compared with the database, in case a notification was lost."""
