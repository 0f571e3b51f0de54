"""What payment needs of the outside world: the ledger."""

from typing import Protocol

from callwarden.payment.core.topup import Credited, TopUp


class LedgerStore(Protocol):
    """Payments, ledger and balances."""

    async def credit(self, top_up: TopUp) -> Credited:
        """Write payment, ledger entry and balance atomically, or find that this key was used before.

        An account is credited once for a key, however often and from wherever it comes. NotFound for an unknown
        account; Invalid for a name that several accounts share (field "account"), for a wrong currency, and for a
        balance that would grow too large; Conflict if the key was used for another payment, or if too many write
        at once; Unavailable.
        """
        ...
