"""What can be set for a payment process: what every process has, no more as long as there are no gateways."""

from callwarden.common import settings


class Settings(settings.Settings):
    """Read from `CALLWARDEN_…`."""
