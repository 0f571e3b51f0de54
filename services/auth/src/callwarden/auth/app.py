"""Verifies callers and changes credentials, from the cache or the store. Wire types are in `adapters`.

An unknown user and a wrong password can't be told apart: both find a cache entry or wait for the same query, both open
one sealed value on the way in, both compute and compare one digest, and both get the same refusal, after the same time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

from callwarden.auth.core import digest, passwords
from callwarden.auth.core.budgets import UserBudgets
from callwarden.auth.core.cache import ABSENT_TTL_S, KNOWN_TTL_S, CachedCredential, CredentialCache
from callwarden.auth.core.numbers import NUMBERS_MAX, NumberTable, UserNameTable, called_number, is_digits
from callwarden.auth.core.sealing import SALT_BYTES, CannotOpen, SealingKeys
from callwarden.auth.core.trunks import AuthTrunk, TrunkTable
from callwarden.auth.core.users import AuthIdentity, UserKey, check_key, could_exist
from callwarden.auth.ports import (
    AccountEventPublisher,
    AuthAccountChange,
    AuthPolicies,
    CredentialStore,
    StoredCredential,
)
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock, MonoS
from callwarden.kernel.errors import Exhausted, Internal, Invalid, Unavailable
from callwarden.kernel.verdict import Reason
from callwarden.limits.windows import WindowShape
from callwarden.policy.traffic import AuthFailures

log = get_logger(__name__)

LOOK_UPS_MAX: Final = 256  # In one query; 1 ms of the database.
WAITING_MAX: Final = 8_192  # Users waiting for a look-up: half a second's worth, after which phones retry.
TRUNK_TTL_S: Final = 60  # How long the edge may cache the answer for an address.
TRUNKS_EVERY_S: Final = 60.0  # A backstop: changes arrive as events.
TRUNKS_RETRY_S: Final = 1.0
NUMBERS_PAGE: Final = 5_000  # 5 ms; others have their turn in between.
NUMBERS_EVERY_S: Final = 60.0  # A backstop, too.
NUMBERS_SHARE: Final = 100  # At most one part in so many of the time is spent on it.
NUMBERS_ASKED_MAX: Final = 1_000  # changed ones in one query
RESEAL_BATCH: Final = 200
REFUSAL_S: Final = 0.1  # Longer than a look-up takes, shorter than anybody minds who mistyped a password.


class AuthStats:
    """Statistics for the metrics. Plain integers: every verification counts."""

    __slots__ = ("hits", "identified", "misses", "queries", "rejected", "slowed", "unreadable")

    def __init__(self) -> None:
        self.hits = self.misses = self.queries = 0
        self.identified = self.rejected = self.unreadable = 0
        self.slowed = 0


K = TypeVar("K")


class OwnerTable(Protocol[K]):
    """See NumberTable."""

    def __len__(self) -> int: ...

    def append(self, rows: Iterable[tuple[K, UUID]]) -> None: ...

    def change(self, keys: Iterable[K], owners: Mapping[K, UUID], /) -> bool: ...

    def owner(self, key: K, /) -> UUID | None: ...


class CalledOwners(Generic[K]):
    """Whose numbers are, or names that could be numbers, in memory: kept up to date by events, and read again now and
    then. What is known stays while NATS or the database is away."""

    def __init__(
        self,
        table: Callable[[], OwnerTable[K]],
        before_all: K,
        page: Callable[[K, int], Awaitable[list[tuple[K, UUID]]]],
        owners: Callable[[Sequence[K]], Awaitable[Mapping[K, UUID]]],
        clock: Clock,
    ) -> None:
        """`page`: the next so many after a key, `before_all` of which comes before all; `owners`: of these keys."""
        self._make, self._before_all, self._page, self._owners = table, before_all, page, owners
        self._clock = clock
        self._table: OwnerTable[K] | None = None
        self._all_changed = True
        self._changed: set[K] = set()
        self._wake = asyncio.Event()
        self.loaded = asyncio.Event()

    def __len__(self) -> int:
        return 0 if self._table is None else len(self._table)

    def owner(self, key: K) -> UUID | None:
        """The account that owns it. Raises Unavailable until they are loaded."""
        if self._table is None:
            raise Unavailable("the numbers are not loaded yet")
        return self._table.owner(key)

    def changed(self, keys: Iterable[K]) -> None:
        """These may have another owner now; none: any may have."""
        keys = tuple(keys)
        self._changed.update(keys)
        if not keys or len(self._changed) > NUMBERS_MAX:
            self._all_changed = True
        self._wake.set()

    async def follow(self) -> None:
        """Keeps the numbers as they are in the database. Runs until it is cancelled."""
        read_s, wait_s = self._clock.mono_s(), NUMBERS_EVERY_S
        while True:
            self._wake.clear()
            left_s = read_s + wait_s - self._clock.mono_s()
            try:
                if self._all_changed or left_s <= 0:
                    begun_s = self._clock.mono_s()
                    await self._read_all()
                    read_s = self._clock.mono_s()
                    wait_s = max(NUMBERS_EVERY_S, NUMBERS_SHARE * (read_s - begun_s))
                    continue
                if self._changed:
                    await self._read_changed()
                    continue
            except Unavailable as error:
                log.warning("numbers.not_loaded", error=error)
                left_s = TRUNKS_RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()

    async def _read_all(self) -> None:
        # Numbers that change from now on are read once more afterwards: their page may have been read before.
        table, after = self._make(), self._before_all
        self._all_changed = False
        try:
            while page := await self._page(after, NUMBERS_PAGE):
                table.append(page)
                after = page[-1][0]
                if len(table) >= NUMBERS_MAX:
                    log.error("numbers.too_many", limit=NUMBERS_MAX)
                    break
        except BaseException:
            self._all_changed = True
            raise
        self._table = table
        self.loaded.set()

    async def _read_changed(self) -> None:
        numbers = list(self._changed)[:NUMBERS_ASKED_MAX]
        self._changed.difference_update(numbers)  # one that changes again meanwhile is read again
        try:
            owners = await self._owners(numbers)
        except BaseException:
            self._changed.update(numbers)
            raise
        if self._table is None or not self._table.change(numbers, owners):
            self._all_changed = True


class Auth:
    """Verifies callers. Pass os.urandom as `random_bytes`."""

    def __init__(
        self,
        accounts: CredentialStore,
        events: AccountEventPublisher,
        policies: AuthPolicies,
        keys: SealingKeys,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        cache: CredentialCache | None = None,
    ) -> None:
        self._accounts = accounts
        self._events = events
        self._policies = policies
        self._keys = keys
        self._clock = clock
        self._random_bytes = random_bytes
        self._cache = cache or CredentialCache()
        self._budgets = UserBudgets()
        self._waiting: dict[UserKey, asyncio.Future[CachedCredential]] = {}
        self._looking_up: asyncio.Task[None] | None = None
        # Grows with each change: a result queried before a change may be stale and isn't cached.
        self._changes = 0
        self._trunks: TrunkTable | None = None
        self._trunks_changed = asyncio.Event()
        self.numbers = CalledOwners(NumberTable, "", accounts.numbers, accounts.owners, clock)
        self.names = CalledOwners(UserNameTable, UserKey("", ""), accounts.users_of_digits, accounts.accounts_of, clock)
        # A secret of no user, opened and compared in place of an unknown user's.
        self._nobody = UserKey("", random_bytes(16).hex())
        ha1s = digest.ha1s_of(self._nobody, random_bytes(32).hex())
        self._nobody_sealed = keys.seal(self._nobody, ha1s, random_bytes(SALT_BYTES))
        self.stats = AuthStats()

    @property
    def cached(self) -> int:
        """Number of users in the cache, existing or not."""
        return len(self._cache)

    def verify_now(self, answer: digest.DigestAnswer) -> AuthIdentity | Reason | None:
        """The verdict on a digest answer if the cache has it, else None: then call `verify`.

        Takes 15 µs, a tenth of a coroutine that has to wait.
        """
        if not could_exist(answer.user):
            self.stats.rejected += 1
            return Reason.CREDENTIALS
        known = self._cache.get(answer.user, self._clock.mono_s())
        if known is None:
            return None
        self.stats.hits += 1
        return self._judge(answer, known)

    async def verify(
        self, answer: digest.DigestAnswer, verdict: AuthIdentity | Reason | None = None
    ) -> AuthIdentity | Reason:
        """The verdict on a digest answer; `verdict` is what `verify_now` said of it, if it was asked.

        A refusal takes REFUSAL_S, or a multiple of it, so that its time doesn't tell what had to be looked up.
        Raises Unavailable (the database), Exhausted (too many look-ups).
        """
        begun_s = self._clock.mono_s()
        verdict = verdict or self.verify_now(answer)
        if verdict is None:
            verdict = self._judge(answer, await self._look_up(answer.user))
        if isinstance(verdict, Reason):
            await asyncio.sleep(REFUSAL_S - (self._clock.mono_s() - begun_s) % REFUSAL_S)
        return verdict

    def verify_address(self, source: str, called: str) -> AuthIdentity | Reason:
        """The trunk that may send a call to `called` from the address. Raises Unavailable until trunks are loaded."""
        if self._trunks is None:
            raise Unavailable("the trunks are not loaded yet")
        trunk = self._trunks.find(source, called)
        if trunk is None:
            return self._rejected(Reason.UNAUTHENTICATED)
        if not trunk.account.active:
            return self._rejected(Reason.ACCOUNT_DISABLED)
        self.stats.identified += 1
        return AuthIdentity(trunk.account, trunk.tech_prefix, TRUNK_TTL_S, trunk.name)

    def owner_of(self, called: str, tech_prefix: str) -> str | None:
        """The account that owns the number which was called. Raises Unavailable until numbers are loaded: no call may
        leave because we don't know yet whose number it is to."""
        number = called_number(called, tech_prefix) if called else ""
        owner = self.numbers.owner(number) if number else None
        return None if owner is None else str(owner)

    def is_user(self, called: str, tech_prefix: str, realm: str) -> bool:
        """Whether what was called is the name of a user of the realm, though it could be a number; with "+" it is one.
        Raises Unavailable as `owner_of`."""
        name = called.removeprefix(tech_prefix)
        return bool(realm) and is_digits(name) and self.names.owner(UserKey(realm, name)) is not None

    def trunks_of(self, account_id: str) -> tuple[AuthTrunk, ...]:
        """By which the account gets its calls. Raises Unavailable until trunks are loaded."""
        if self._trunks is None:
            raise Unavailable("the trunks are not loaded yet")
        return self._trunks.of_account(account_id)

    async def set_password(self, account_id: str, user: UserKey, password: str) -> None:
        """Sets the digest password of an account. An empty realm means the account's own.

        Raises Invalid, NotFound, Conflict (the user name is another account's), Unavailable.
        """
        realm = await self._accounts.realm_of(account_id)
        if user.realm and user.realm.lower() != realm:
            # Or another realm's policy would apply to this account's calls.
            raise Invalid(f"the account is in realm {realm}", field="realm")
        user = UserKey(realm, user.username)
        check_key(user)
        passwords.check(password, user.username)
        sealed = self._keys.seal(user, digest.ha1s_of(user, password), self._random_bytes(SALT_BYTES))
        await self._accounts.set_credential(account_id, user, sealed)
        self._publish(AuthAccountChange(account_id, "credential", user))

    async def remove_credential(self, user: UserKey) -> bool:
        """Removes the credential of a user name; returns whether there was one. Raises Invalid, Unavailable."""
        check_key(user)
        account_id = await self._accounts.remove_credential(user)
        if account_id is None:
            return False
        self._publish(AuthAccountChange(account_id, "credential", user))
        return True

    def account_changed(self, change: AuthAccountChange) -> None:
        """An account changed: forgets what is cached of it."""
        self._changes += 1
        if change.user is not None:
            self._cache.forget_user(change.user)
            if is_digits(change.user.username):
                self.names.changed((change.user,))
        if change.account_id:
            self._cache.forget_account(change.account_id)
        if change.what in ("trunk", "status", "numbers"):
            self._trunks_changed.set()
        if change.what == "numbers":
            self.numbers.changed(change.numbers)

    def forget_all(self) -> None:
        """Forgets everything, because changes may have been missed."""
        self._changes += 1
        self._cache.clear()
        self._trunks_changed.set()
        self.numbers.changed(())
        self.names.changed(())

    async def follow_trunks(self) -> None:
        """Keeps the trunks in memory up to date with the database. Runs until it is cancelled."""
        unusable: tuple[str, ...] = ()
        while True:
            wait_s = TRUNKS_EVERY_S
            self._budgets.expire(self._clock.mono_s())
            self._trunks_changed.clear()
            try:
                self._trunks = TrunkTable(await self._accounts.enabled_trunks())
            except Unavailable as error:
                log.warning("trunks.not_loaded", error=error)
                wait_s = TRUNKS_RETRY_S
            else:
                if self._trunks.unusable != unusable:
                    unusable = self._trunks.unusable
                    log.warning("trunks.unusable", trunks=unusable, why="their address is not an IP address or network")
            try:
                async with asyncio.timeout(wait_s):
                    await self._trunks_changed.wait()
            except TimeoutError:
                pass

    async def reseal(self) -> int:
        """Reseals with the current key all credentials sealed with another; returns how many. Afterwards the old keys
        are no longer needed. Raises Unavailable."""
        done, after = 0, UserKey("", "")
        while batch := await self._accounts.sealed_otherwise(self._keys.current_id, after, RESEAL_BATCH):
            for user, old in batch.items():
                after = user
                try:
                    ha1s = self._keys.open(user, old)
                except CannotOpen as error:
                    log.error("credential.unreadable", error=error, realm=user.realm, key_id=old.key_id)
                    continue
                new = self._keys.seal(user, ha1s, self._random_bytes(SALT_BYTES))
                done += await self._accounts.replace_seal(user, old, new)
        return done

    def _judge(self, answer: digest.DigestAnswer, known: CachedCredential) -> AuthIdentity | Reason:
        policy = self._policies.for_realm(answer.user.realm)
        algorithm = digest.algorithm_of(answer, digest.ALLOWED[policy.authentication.digest.algorithms])
        if algorithm is None:
            return self._rejected(Reason.CREDENTIALS)
        right = digest.is_right(answer, algorithm, known.ha1s)
        if not self._is_in_budget(answer, policy.auth_failures, is_right=right and known.account is not None):
            return self._rejected(Reason.CREDENTIALS)
        assert known.account is not None
        if not known.account.active:  # Revealed only to a caller who knows the password.
            return self._rejected(Reason.ACCOUNT_DISABLED)
        self.stats.identified += 1
        return AuthIdentity(known.account, "", max(1, int(known.expires_s - self._clock.mono_s())))

    def _is_in_budget(self, answer: digest.DigestAnswer, limits: AuthFailures, *, is_right: bool) -> bool:
        """Whether credentials are accepted: right ones, unless they may be the last of many guesses from addresses
        where this user never was. Those are answered as wrong ones are, after the same work."""
        budgets, user = self._budgets, answer.user
        if is_right and (answer.is_registered or budgets.is_known(user, answer.source)):
            return True
        mono_s = self._clock.mono_s()
        window = WindowShape(limits.period)
        is_spent = budgets.is_spent(user, window, limits.per_user.max, mono_s)
        if is_right and not is_spent:
            budgets.succeeded(user, answer.source)
            return True
        if is_right:
            self.stats.slowed += 1
        elif not is_spent and not (answer.is_registered or budgets.is_known(user, answer.source)):
            budgets.failed(user, window, mono_s)
        return False

    def _rejected(self, reason: Reason) -> Reason:
        self.stats.rejected += 1
        return reason

    async def _look_up(self, user: UserKey) -> CachedCredential:
        """Looks the user up, sharing queries: one query for all that wait, one future for each user."""
        self.stats.misses += 1
        waiting = self._waiting.get(user)
        if waiting is None:
            if len(self._waiting) >= WAITING_MAX:
                raise Exhausted("too many users are being looked up")
            waiting = self._waiting[user] = asyncio.get_running_loop().create_future()
            if self._looking_up is None:
                self._looking_up = asyncio.create_task(self._look_up_all(), name="look-up")
        return await asyncio.shield(waiting)  # A caller that gives up must not cancel the others.

    async def _look_up_all(self) -> None:
        """Runs queries until nobody waits; requests that arrive during a query go into the next one."""
        try:
            while self._waiting:
                batch = dict(list(self._waiting.items())[:LOOK_UPS_MAX])
                await self._look_up_batch(batch)
        finally:
            self._looking_up = None

    async def _look_up_batch(self, batch: dict[UserKey, asyncio.Future[CachedCredential]]) -> None:
        changes = self._changes
        self.stats.queries += 1
        try:
            found = await self._accounts.look_up(list(batch))
        except Exception as error:  # Passed on to those who wait: nobody awaits this task.
            for user, waiting in batch.items():
                del self._waiting[user]
                waiting.set_exception(error)
                waiting.exception()  # Mark it as retrieved, in case nobody waits any more.
            return
        mono_s = self._clock.mono_s()
        for user, waiting in batch.items():
            del self._waiting[user]
            try:
                known = self._known(user, found.get(user), mono_s)
            except CannotOpen as error:
                self.stats.unreadable += 1
                log.error("credential.unreadable", error=error, realm=user.realm)
                waiting.set_exception(Internal("a credential can't be read"))
                waiting.exception()
                continue
            if changes == self._changes:
                self._cache.put(user, known)
            waiting.set_result(known)

    def _known(self, user: UserKey, stored: StoredCredential | None, mono_s: MonoS) -> CachedCredential:
        if stored is None:
            return CachedCredential(self._keys.open(self._nobody, self._nobody_sealed), None, mono_s + ABSENT_TTL_S)
        return CachedCredential(self._keys.open(user, stored.sealed), stored.account, mono_s + KNOWN_TTL_S)

    def _publish(self, change: AuthAccountChange) -> None:
        self.account_changed(change)  # Don't wait for our own event.
        self._events.account_changed(change)
