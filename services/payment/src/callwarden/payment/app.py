"""Payment: money into accounts. Gateways come later; a manual top-up is made by an operator."""

from callwarden.common.logs import get_logger
from callwarden.payment.core.topup import Credited, TopUp
from callwarden.payment.ports import Books

log = get_logger(__name__)


class Payment:
    """One process's payments."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.credited = 0
        self.duplicates = 0

    async def top_up(self, top_up: TopUp) -> Credited:
        """Credit it, exactly once for its key. Raises as `ports.Books.credit`."""
        result = await self._books.credit(top_up)
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
