"""payment's rows of the catalogue of metrics."""

from typing import Final

from callwarden.common.metrics import Metric, Metrics
from callwarden.payment.app import PaymentApp

TOP_UPS: Final = Metric(
    "callwarden_payment_top_ups_total", "counter", "{payments}", "Top-ups answered.", labels=("outcome",)
)


def register(metrics: Metrics, app: PaymentApp) -> None:
    """Reads the app's statistics whenever metrics are collected."""
    metrics.observe(TOP_UPS, lambda: {("credited",): app.credited, ("duplicate",): app.duplicates})
