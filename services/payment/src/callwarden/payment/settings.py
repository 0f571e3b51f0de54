"""Settings of a payment process: those of every process, as long as there are no gateways."""

from callwarden.common import settings


class PaymentSettings(settings.Settings):
    """Read from `CALLWARDEN_…`."""
