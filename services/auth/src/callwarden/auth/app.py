"""Verifying and changing: who is calling, by what was looked up or is in the cache. Wire types are in `adapters`.

Unknown user and wrong password are told apart nowhere: both find an entry in the cache or wait for the same query, both
open one sealed value on the way in, both compute and compare one digest, and get one and the same refusal.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from callwarden.auth.core import digest, passwords
from callwarden.auth.core.cache import ABSENT_TTL_S, KNOWN_TTL_S, Cache, Known
from callwarden.auth.core.sealing import SALT_BYTES, CannotOpen, SealingKeys
from callwarden.auth.core.trunks import TrunkTable
from callwarden.auth.core.users import Identity, UserKey, check_key, could_exist
from callwarden.auth.ports import AccountChange, Accounts, Events, Policies, Stored
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import Exhausted, Internal, Invalid, Unavailable
from callwarden.kernel.verdict import Reason

log = get_logger(__name__)

LOOK_UPS_MAX: Final = 256  # In one query; 1 ms of the database.
WAITING_MAX: Final = 8_192  # Users that wait to be looked up: half a second's worth, after which phones ask again.
TRUNK_TTL_S: Final = 60  # How long the edge may keep the answer about an address.
TRUNKS_EVERY_S: Final = 60.0  # A backstop: changes are told by events.
TRUNKS_RETRY_S: Final = 1.0
RESEAL_BATCH: Final = 200


class Counts:
    """What happened, for the metrics. Plain integers: on the way of every verification."""

    __slots__ = ("hits", "identified", "misses", "queries", "rejected", "unreadable")

    def __init__(self) -> None:
        self.hits = self.misses = self.queries = 0
        self.identified = self.rejected = self.unreadable = 0


class Auth:
    """Who is calling. Give `chance` as os.urandom."""

    def __init__(
        self,
        accounts: Accounts,
        events: Events,
        policies: Policies,
        keys: SealingKeys,
        clock: Clock,
        chance: Callable[[int], bytes],
        cache: Cache | None = None,
    ) -> None:
        self._accounts = accounts
        self._events = events
        self._policies = policies
        self._keys = keys
        self._clock = clock
        self._chance = chance
        self._cache = cache or Cache()
        self._waiting: dict[UserKey, asyncio.Future[Known]] = {}
        self._looking_up: asyncio.Task[None] | None = None
        # Grows with each change: what was asked before one may be old and isn't kept.
        self._changes = 0
        self._trunks: TrunkTable | None = None
        self._trunks_changed = asyncio.Event()
        # Nobody's secret, opened and compared where there is nobody's.
        self._nobody = UserKey("", chance(16).hex())
        ha1s = digest.ha1s_of(self._nobody, chance(32).hex())
        self._nobody_sealed = keys.seal(self._nobody, ha1s, chance(SALT_BYTES))
        self.counts = Counts()

    @property
    def cached(self) -> int:
        """How many users the cache knows of, existing or not."""
        return len(self._cache)

    def verify_now(self, answer: digest.Answer) -> Identity | Reason | None:
        """The verdict on a digest answer if it can be given without asking the database, else None: then `verify`.

        15 µs; ten times as cheap as a coroutine that has to wait.
        """
        if not could_exist(answer.user):
            self.counts.rejected += 1
            return Reason.CREDENTIALS
        known = self._cache.get(answer.user, self._clock.mono_s())
        if known is None:
            return None
        self.counts.hits += 1
        return self._judge(answer, known)

    async def verify(self, answer: digest.Answer) -> Identity | Reason:
        """The verdict on a digest answer. Raises Unavailable (the database), Exhausted (too much to look up)."""
        verdict = self.verify_now(answer)
        if verdict is not None:
            return verdict
        return self._judge(answer, await self._look_up(answer.user))

    def verify_address(self, source: str, called: str) -> Identity | Reason:
        """Whose trunk may send a call to `called` from the address. Raises Unavailable until trunks were loaded."""
        if self._trunks is None:
            raise Unavailable("the trunks are not loaded yet")
        trunk = self._trunks.find(source, called)
        if trunk is None:
            return self._rejected(Reason.UNAUTHENTICATED)
        if not trunk.account.active:
            return self._rejected(Reason.ACCOUNT_DISABLED)
        self.counts.identified += 1
        return Identity(trunk.account, trunk.tech_prefix, TRUNK_TTL_S, trunk.name)

    async def set_password(self, account_id: str, user: UserKey, password: str) -> None:
        """Sets the digest password of an account. An empty realm stands for the account's own.

        Raises Invalid, NotFound, Conflict (the user name is another account's), Unavailable.
        """
        realm = await self._accounts.realm_of(account_id)
        if user.realm and user.realm != realm:
            # Another realm's policy would be asked for this account's calls.
            raise Invalid(f"the account is in realm {realm}", field="realm")
        user = UserKey(realm, user.username)
        check_key(user)
        passwords.check(password, user.username)
        sealed = self._keys.seal(user, digest.ha1s_of(user, password), self._chance(SALT_BYTES))
        await self._accounts.set_credential(account_id, user, sealed)
        self._tell(AccountChange(account_id, "credential", user))

    async def remove_credential(self, user: UserKey) -> bool:
        """Removes all that a user name can log in with; whether there was anything. Raises Invalid, Unavailable."""
        check_key(user)
        account_id = await self._accounts.remove_credential(user)
        if account_id is None:
            return False
        self._tell(AccountChange(account_id, "credential", user))
        return True

    def account_changed(self, change: AccountChange) -> None:
        """Somebody (perhaps we) said that an account is not what it was: forget what is known of it."""
        self._changes += 1
        if change.user is not None:
            self._cache.forget_user(change.user)
        if change.account_id:
            self._cache.forget_account(change.account_id)
        if change.what in ("trunk", "status", "numbers"):
            self._trunks_changed.set()

    def forget_all(self) -> None:
        """Changes may have been missed: begin anew."""
        self._changes += 1
        self._cache.clear()
        self._trunks_changed.set()

    async def follow_trunks(self) -> None:
        """Keeps the trunks in memory as they are in the database. Runs until it is cancelled."""
        unusable: tuple[str, ...] = ()
        while True:
            wait_s = TRUNKS_EVERY_S
            self._trunks_changed.clear()
            try:
                self._trunks = TrunkTable(await self._accounts.sender_trunks())
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
        """Seals with the current key what is sealed with another one; returns how many. Afterwards the old keys are
        needed no more. Raises Unavailable."""
        done, after = 0, UserKey("", "")
        while batch := await self._accounts.sealed_otherwise(self._keys.current_id, after, RESEAL_BATCH):
            for user, old in batch.items():
                after = user
                try:
                    ha1s = self._keys.open(user, old)
                except CannotOpen as error:
                    log.error("credential.unreadable", error=error, realm=user.realm, key_id=old.key_id)
                    continue
                new = self._keys.seal(user, ha1s, self._chance(SALT_BYTES))
                done += await self._accounts.replace_seal(user, old, new)
        return done

    def _judge(self, answer: digest.Answer, known: Known) -> Identity | Reason:
        policy = self._policies.for_realm(answer.user.realm)
        algorithm = digest.algorithm_of(answer, digest.ALLOWED[policy.authentication.digest.algorithms])
        if algorithm is None:
            return self._rejected(Reason.CREDENTIALS)
        right = digest.is_right(answer, algorithm, known.ha1s)
        if not right or known.account is None:
            return self._rejected(Reason.CREDENTIALS)
        if not known.account.active:  # Said only to who knows the password.
            return self._rejected(Reason.ACCOUNT_DISABLED)
        self.counts.identified += 1
        return Identity(known.account, "", max(1, int(known.expires_s - self._clock.mono_s())))

    def _rejected(self, reason: Reason) -> Reason:
        self.counts.rejected += 1
        return reason

    async def _look_up(self, user: UserKey) -> Known:
        """One query for all that wait, one wait for all that ask for the same."""
        self.counts.misses += 1
        waiting = self._waiting.get(user)
        if waiting is None:
            if len(self._waiting) >= WAITING_MAX:
                raise Exhausted("too many users are being looked up")
            waiting = self._waiting[user] = asyncio.get_running_loop().create_future()
            if self._looking_up is None:
                self._looking_up = asyncio.create_task(self._look_up_all(), name="look-up")
        return await asyncio.shield(waiting)  # Who gives up must not take the others with him.

    async def _look_up_all(self) -> None:
        """What comes while a query is under way goes into the next one."""
        try:
            while self._waiting:
                batch = dict(list(self._waiting.items())[:LOOK_UPS_MAX])
                await self._look_up_batch(batch)
        finally:
            self._looking_up = None

    async def _look_up_batch(self, batch: dict[UserKey, asyncio.Future[Known]]) -> None:
        changes = self._changes
        self.counts.queries += 1
        try:
            found = await self._accounts.look_up(list(batch))
        except Exception as error:  # Handed on to those who wait: this task has nobody above it who would act on it.
            for user, waiting in batch.items():
                del self._waiting[user]
                waiting.set_exception(error)
                waiting.exception()  # Looked at, should nobody wait any more.
            return
        now_s = self._clock.mono_s()
        for user, waiting in batch.items():
            del self._waiting[user]
            try:
                known = self._known(user, found.get(user), now_s)
            except CannotOpen as error:
                self.counts.unreadable += 1
                log.error("credential.unreadable", error=error, realm=user.realm)
                waiting.set_exception(Internal("a credential can't be read"))
                waiting.exception()
                continue
            if changes == self._changes:
                self._cache.put(user, known)
            waiting.set_result(known)

    def _known(self, user: UserKey, stored: Stored | None, now_s: float) -> Known:
        if stored is None:
            return Known(self._keys.open(self._nobody, self._nobody_sealed), None, now_s + ABSENT_TTL_S)
        return Known(self._keys.open(user, stored.sealed), stored.account, now_s + KNOWN_TTL_S)

    def _tell(self, change: AccountChange) -> None:
        self.account_changed(change)  # We needn't wait for our own event.
        self._events.account_changed(change)
