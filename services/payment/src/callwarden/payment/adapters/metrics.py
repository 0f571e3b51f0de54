"""payment's rows of the catalogue of metrics."""

from typing import Final

from callwarden.common.metrics import Metric, Metrics
from callwarden.payment.app import Payment

TOP_UPS: Final = Metric(
    "callwarden_payment_top_ups_total", "counter", "{payments}", "Top-ups answered.", labels=("outcome",)
)


def register(metrics: Metrics, app: Payment) -> None:
    """Have them read from the app."""
    metrics.observe(TOP_UPS, lambda: {("credited",): app.credited, ("duplicate",): app.duplicates})
