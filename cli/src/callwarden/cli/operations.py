"""Operations of several requests: a new account with password and credit, a trunk with its account.

Used by the commands and by the demo. Single requests are in the commands themselves.
"""

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.auth.v1 import auth_pb2
from callwarden.api.payment.v1 import payment_pb2
from callwarden.cli.failure import Failure
from callwarden.cli.remote import Remote, ask
from callwarden.kernel.errors import CallwardenError, Conflict, NotFound
from callwarden.kernel.money import format_amount


async def create_account(
    system: Remote, wanted: pb.Account, *, password: str = "", credit_micros: int = 0
) -> pb.Account:
    """The account as it is after all requests. An empty password: no phone registers with it."""
    account = await ask(system.accounts.CreateAccount, pb.CreateAccountRequest(account=wanted))
    if password:
        request = auth_pb2.SetPasswordRequest(
            account_id=account.id, username=wanted.name, realm=wanted.realm, password=password
        )
        try:
            await ask(system.auth.SetPassword, request)
        except (CallwardenError, Failure) as error:
            raise Failure(
                f"the account is created, but has no password and no credit yet: {error};"
                f" continue with `callwarden account passwd {wanted.name}`"
            ) from error
    if credit_micros:
        try:
            await ask(
                system.payment.TopUp,
                payment_pb2.TopUpRequest(
                    account=account.id,
                    amount_micros=credit_micros,
                    currency=wanted.currency,
                    key=f"first-credit-{account.id}",
                    note="first credit",
                ),
            )
        except (CallwardenError, Failure) as error:
            raise Failure(
                f"the account is created, but maybe has no credit yet: {error}; continue with"
                f" `callwarden topup {wanted.name} {format_amount(credit_micros)} --key first-credit-{account.id}`"
            ) from error
        account = await ask(system.accounts.GetAccount, pb.GetAccountRequest(account=account.id))
    return account


async def create_trunk(system: Remote, wanted: pb.Trunk, owner: pb.Account | None = None) -> pb.Trunk:
    """The trunk; with `owner` an account is made for it first, unless one of that name and type is there."""
    if owner is not None:
        try:
            account = await ask(system.accounts.GetAccount, pb.GetAccountRequest(account=owner.name))
            if account.type != owner.type:
                raise Conflict(f"account {owner.name} is of type {account.type}: name another one with --account")
        except NotFound:
            account = await ask(system.accounts.CreateAccount, pb.CreateAccountRequest(account=owner))
        wanted.account = account.id
    return await ask(system.accounts.CreateTrunk, wanted)
