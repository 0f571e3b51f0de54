"""What payment needs of the world: the books."""

from typing import Protocol

from callwarden.payment.core.topup import Credited, TopUp


class Books(Protocol):
    """Payments, ledger and balances."""

    async def credit(self, top_up: TopUp) -> Credited:
        """Write payment, ledger entry and balance at once, or find that it was done before under this key.

        However often and from wherever the same key comes, the account is credited once. NotFound for an unknown
        account; Invalid for a name that several accounts have (field "account"), for a wrong currency, and for a
        balance that would grow too large; Conflict when the key was used for another payment, or too many write at
        once; Unavailable.
        """
        ...
