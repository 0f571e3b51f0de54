"""Payment: credits accounts. An operator makes manual top-ups; gateways come later."""

from callwarden.common.logs import get_logger
from callwarden.payment.core.topup import Credited, TopUp
from callwarden.payment.ports import LedgerStore

log = get_logger(__name__)


class PaymentApp:
    """One process's payments."""

    def __init__(self, ledger: LedgerStore) -> None:
        self._ledger = ledger
        self.credited = 0
        self.duplicates = 0

    async def top_up(self, top_up: TopUp) -> Credited:
        """Credit it, exactly once for its key. Raises the errors of `ports.LedgerStore.credit`."""
        result = await self._ledger.credit(top_up)
        if result.duplicate:
            self.duplicates += 1
        else:
            self.credited += 1
            log.info(
                "payment.credited",
                entry=result.entry_id,
                account=top_up.account,
                amount_micros=top_up.amount_micros,
                currency=result.currency,
            )
        return result
