"""A ledger in memory, for tests. The same contract suite runs over it and over the database."""

from dataclasses import replace

from callwarden.kernel.errors import Invalid, NotFound
from callwarden.payment.core.topup import Credited, Paid, Payee, TopUp, balance_after, repeated


class MemoryLedgerStore:
    """ports.LedgerStore. `accounts` by name, which several may share; `payments` by key; `entries` in order."""

    def __init__(self) -> None:
        self.accounts: dict[str, list[Payee]] = {}
        self.payments: dict[str, Paid] = {}
        self.entries: list[tuple[str, int]] = []

    async def credit(self, top_up: TopUp) -> Credited:
        name, payee = self._find(top_up.account)
        if (paid := self.payments.get(top_up.key)) is not None:
            return repeated(top_up, payee, paid)
        balance_micros = balance_after(top_up, payee)
        entry_id = f"entry-{len(self.entries) + 1}"
        self.entries.append((payee.account_id, top_up.amount_micros))
        self.payments[top_up.key] = Paid(payee.account_id, top_up.amount_micros, top_up.currency, entry_id)
        self.accounts[name] = [
            replace(payee, balance_micros=balance_micros) if other == payee else other for other in self.accounts[name]
        ]
        return Credited(entry_id, balance_micros, payee.currency, duplicate=False)

    def _find(self, account: str) -> tuple[str, Payee]:
        found = [
            (name, payee)
            for name, payees in self.accounts.items()
            for payee in payees
            if account in (name, payee.account_id)
        ]
        if not found:
            raise NotFound("there is no such account", field="account")
        if len(found) > 1:
            raise Invalid("several accounts have this name: use the id", field="account")
        return found[0]
