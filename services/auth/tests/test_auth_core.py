"""What auth calculates: digests, seals, passwords, trunks, the cache."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.auth.core import passwords
from callwarden.auth.core.cache import CachedCredential, CredentialCache
from callwarden.auth.core.digest import ALLOWED, DigestAnswer, algorithm_of, ha1s_of, is_right
from callwarden.auth.core.numbers import CHANGES_MAX, NumberTable, called_number
from callwarden.auth.core.sealing import SALT_BYTES, BadKey, CannotOpen, Sealed, SealingKeys
from callwarden.auth.core.trunks import AuthTrunk, TrunkTable, parse_network
from callwarden.auth.core.users import AuthAccount, Ha1s, UserKey, check_key, could_exist
from callwarden.kernel.clock import MonoS
from callwarden.kernel.errors import Invalid
from callwarden.sip.digest import Algorithm

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "digest_vectors.json").read_text())["vectors"]
KEY, OTHER_KEY = "11" * 32, "22" * 32
SALT = bytes(range(SALT_BYTES))
ALICE, BOB = UserKey("sip.example", "alice"), UserKey("sip.example", "bob")
HA1S = ha1s_of(ALICE, "correct horse")


def answer_of(vector: dict[str, Any]) -> DigestAnswer:
    return DigestAnswer(
        UserKey(vector["realm"], vector["username"]),
        vector["method"],
        vector["uri"],
        vector["nonce"],
        vector.get("nc", ""),
        vector.get("cnonce", ""),
        vector["qop"] or "",
        vector["algorithm"],
        vector["response"],
    )


@pytest.mark.setting("useshadigestauh")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['algorithm']} {vector['source'][:16]}")
def test_published_answers_are_right_for_their_password_and_no_other(vector: dict[str, Any]) -> None:
    answer = answer_of(vector)
    algorithm = algorithm_of(answer, ALLOWED[1])
    assert algorithm is not None
    assert is_right(answer, algorithm, ha1s_of(answer.user, vector["password"]))
    assert not is_right(answer, algorithm, ha1s_of(answer.user, vector["password"] + " "))


@pytest.mark.parametrize("vector", VECTORS[:3], ids=lambda vector: str(vector["algorithm"]))
@pytest.mark.parametrize("part", ["method", "uri", "nonce", "nonce_count", "cnonce", "response"])
def test_an_answer_is_wrong_when_any_part_of_it_is_another(vector: dict[str, Any], part: str) -> None:
    answer = answer_of(vector)
    algorithm = algorithm_of(answer, ALLOWED[1])
    assert algorithm is not None
    known = ha1s_of(answer.user, vector["password"])
    value = getattr(answer, part)
    for changed in (value + "0", value[:-1], "", "é"):
        setattr(answer, part, changed)
        assert not is_right(answer, algorithm, known)


@pytest.mark.setting("useshadigestauh")
@pytest.mark.parametrize(
    ("setting", "counted"),
    [
        (0, {"", "MD5"}),
        (1, {"", "MD5", "SHA-256", "SHA-512-256"}),
        (2, {"SHA-256", "SHA-512-256"}),
    ],
)
def test_only_the_algorithms_that_the_policy_names_count(setting: int, counted: set[str]) -> None:
    answer = answer_of(VECTORS[0])
    for name in ("", "MD5", "SHA-256", "SHA-512-256", "MD5-sess", "SHA-1", "md5-sess"):
        answer.algorithm = name
        assert (algorithm_of(answer, ALLOWED[setting]) is not None) == (name in counted)


def test_integrity_protection_is_not_challenged_for_and_not_taken() -> None:
    answer = answer_of(VECTORS[0])
    answer.qop = "auth-int"
    assert algorithm_of(answer, ALLOWED[1]) is None


def test_a_response_or_a_secret_does_not_show_itself() -> None:
    answer = answer_of(VECTORS[0])
    assert answer.response not in repr(answer)
    assert HA1S.md5 not in repr(HA1S)
    assert HA1S.sha256 not in repr(CachedCredential(HA1S, None, 0.0))
    assert KEY not in repr(SealingKeys(KEY))


@pytest.mark.setting("securepasswords")
def test_what_is_sealed_opens_for_its_user_with_its_key_only() -> None:
    keys = SealingKeys(KEY)
    sealed = keys.seal(ALICE, HA1S, SALT)
    assert keys.open(ALICE, sealed) == HA1S
    for ha1 in (HA1S.md5, HA1S.sha256, HA1S.sha512_256):
        assert bytes.fromhex(ha1) not in sealed.value
        assert ha1.encode() not in sealed.value
    for user in (BOB, UserKey("sip.example.org", "alice"), UserKey("sip.examplea", "lice")):
        with pytest.raises(CannotOpen):
            keys.open(user, sealed)
    with pytest.raises(CannotOpen):
        SealingKeys(OTHER_KEY).open(ALICE, sealed)
    with pytest.raises(CannotOpen):
        SealingKeys(OTHER_KEY).open(ALICE, Sealed(sealed.value, SealingKeys(OTHER_KEY).current_id))


@given(st.integers(0, SALT_BYTES + 80 + 16 - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    keys = SealingKeys(KEY)
    value = bytearray(keys.seal(ALICE, HA1S, SALT).value)
    value[position] ^= change
    with pytest.raises(CannotOpen):
        keys.open(ALICE, Sealed(bytes(value), keys.current_id))


@given(st.binary(max_size=200))
def test_rubbish_is_not_opened(value: bytes) -> None:
    keys = SealingKeys(KEY)
    with pytest.raises(CannotOpen):
        keys.open(ALICE, Sealed(value, keys.current_id))


def test_a_rotated_key_opens_what_it_sealed_and_seals_no_more() -> None:
    before, after = SealingKeys(KEY), SealingKeys(OTHER_KEY, [KEY])
    old = before.seal(ALICE, HA1S, SALT)
    assert after.open(ALICE, old) == HA1S
    new = after.seal(ALICE, HA1S, SALT)
    assert (old.key_id, new.key_id) == (before.current_id, after.current_id)
    assert old.key_id != new.key_id


@pytest.mark.parametrize("text", ["", "11" * 16, "11" * 33, "zz" * 32, KEY + "1"])
def test_a_key_that_is_none_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BadKey) as caught:
        SealingKeys(text)
    assert not text or text not in str(caught.value)


def test_a_salt_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError):
        SealingKeys(KEY).seal(ALICE, HA1S, b"short")


@pytest.mark.parametrize(
    "password", ["", "short12", "x" * 129, "Bob.Smith", "bob.smith", "aaaaaaaa", "line\nbreak1", "nul\0inside"]
)
def test_passwords_that_protect_nothing_are_refused_without_being_repeated(password: str) -> None:
    with pytest.raises(Invalid) as caught:
        passwords.check(password, "bob.smith")
    assert caught.value.field == "password"
    assert not password or password not in str(caught.value)


@pytest.mark.parametrize("password", ["12345678", "correct horse battery staple", "pässwörter", "x" * 127 + "y"])
def test_other_passwords_are_taken(password: str) -> None:
    passwords.check(password, "bob")


@pytest.mark.parametrize("name", ["", "a:b", "a\0b", "a\nb", "x" * 129])
def test_user_names_that_cannot_be_are_known_to_be_nobody_and_cannot_be_made(name: str) -> None:
    assert not could_exist(UserKey("sip.example", name))
    with pytest.raises(Invalid) as caught:
        check_key(UserKey("sip.example", name))
    assert caught.value.field == "username"


@pytest.mark.parametrize("realm", ["", "a\0b", "x" * 256])
def test_nobody_is_made_in_a_realm_that_cannot_be(realm: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_key(UserKey(realm, "alice"))
    assert caught.value.field == "realm"


def trunk(name: str, address: str, prefix: str = "", active: bool = True) -> AuthTrunk:
    return AuthTrunk(name, address, prefix, AuthAccount(f"account of {name}", "traffic-sender", active))


def test_a_trunk_is_found_by_its_address() -> None:
    table = TrunkTable([trunk("a", "192.0.2.7"), trunk("b", "192.0.2.8:5060"), trunk("c", "2001:db8::1")])
    assert [found and found.name for found in (
        table.find("192.0.2.7", "4930"),
        table.find("192.0.2.8", "4930"),
        table.find("2001:db8:0:0::1", "4930"),
        table.find("192.0.2.9", "4930"),
        table.find("not an address", "4930"),
    )] == ["a", "b", "c", None, None]  # fmt: skip


def test_an_ipv4_address_in_ipv6_form_is_the_same_sender() -> None:
    found = TrunkTable([trunk("a", "192.0.2.7")]).find("::ffff:192.0.2.7", "4930")
    assert found is not None
    assert found.name == "a"


def test_the_longest_tech_prefix_wins_and_none_is_the_last_resort() -> None:
    table = TrunkTable([trunk("any", "192.0.2.7"), trunk("77", "192.0.2.7", "77"), trunk("778", "192.0.2.7", "778")])
    assert [found and found.name for found in (
        table.find("192.0.2.7", "7784930"),
        table.find("192.0.2.7", "774930"),
        table.find("192.0.2.7", "4930"),
    )] == ["778", "77", "any"]  # fmt: skip


def test_without_its_tech_prefix_a_trunk_is_not_found() -> None:
    assert TrunkTable([trunk("77", "192.0.2.7", "77")]).find("192.0.2.7", "4930") is None


def test_the_narrowest_network_that_has_the_prefix_wins() -> None:
    table = TrunkTable([trunk("wide", "192.0.0.0/16"), trunk("narrow", "192.0.2.0/24", "77"), trunk("v6", "::/0")])
    assert [found and found.name for found in (
        table.find("192.0.2.7", "774930"),
        table.find("192.0.2.7", "4930"),
        table.find("192.0.3.7", "774930"),
        table.find("2001:db8::1", "4930"),
    )] == ["narrow", "wide", "wide", "v6"]  # fmt: skip


def test_of_two_alike_the_first_name_wins_whatever_the_order() -> None:
    both = [trunk("b", "192.0.2.7"), trunk("a", "192.0.2.7")]
    for order in (both, both[::-1]):
        found = TrunkTable(order).find("192.0.2.7", "4930")
        assert found is not None
        assert found.name == "a"


def test_a_trunk_whose_address_is_a_name_is_said_to_be_unusable() -> None:
    table = TrunkTable([trunk("good", "192.0.2.7"), trunk("bad", "pbx.example")])
    assert (table.unusable, len(table)) == (("bad",), 1)


@given(st.text(max_size=60))
def test_any_text_is_a_network_or_none(text: str) -> None:
    assert parse_network(text) is None or str(parse_network(text))


def known(account_id: str | None, expires_s: float = 100.0) -> CachedCredential:
    account = AuthAccount(account_id, "enduser", True) if account_id is not None else None
    return CachedCredential(Ha1s("", "", ""), account, expires_s)


def test_what_is_cached_is_found_until_its_time_is_over() -> None:
    cache = CredentialCache()
    cache.put(ALICE, known("1", expires_s=100.0))
    assert cache.get(ALICE, MonoS(99.9)) is not None
    assert cache.get(ALICE, MonoS(100.0)) is None
    assert cache.get(BOB, MonoS(0.0)) is None


def test_guessing_names_does_not_push_out_users() -> None:
    cache = CredentialCache(known_max=10, absent_max=20)
    cache.put(ALICE, known("1"))
    for number in range(1_000):
        cache.put(UserKey("sip.example", str(number)), known(None))
    assert cache.get(ALICE, MonoS(0.0)) is not None
    assert (len(cache), cache.evicted) == (1 + 20, 980)


def test_the_longest_unused_user_goes_first() -> None:
    cache = CredentialCache(known_max=2)
    cache.put(ALICE, known("1"))
    cache.put(BOB, known("2"))
    cache.get(ALICE, MonoS(0.0))
    cache.put(UserKey("sip.example", "carol"), known("3"))
    assert cache.get(BOB, MonoS(0.0)) is None
    assert cache.get(ALICE, MonoS(0.0)) is not None
    cache.forget_account("2")  # Evicted already: nothing to trip over.


def test_an_account_is_forgotten_with_all_its_users_and_no_other() -> None:
    cache = CredentialCache()
    work = UserKey("sip.example", "alice-at-work")
    cache.put(ALICE, known("1"))
    cache.put(work, known("1"))
    cache.put(BOB, known("2"))
    cache.forget_account("1")
    assert [cache.get(user, MonoS(0.0)) is not None for user in (ALICE, work, BOB)] == [False, False, True]


def test_a_user_who_comes_into_being_replaces_the_news_that_there_is_none() -> None:
    cache = CredentialCache()
    cache.put(ALICE, known(None))
    cache.put(ALICE, known("1"))
    found = cache.get(ALICE, MonoS(0.0))
    assert found is not None
    assert found.account is not None
    cache.put(ALICE, known(None))
    assert len(cache) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["known", "absent", "get", "forget", "account", "clear"]),
            st.integers(0, 9),
            st.integers(0, 3),
        ),
        max_size=80,
    )
)
def test_the_cache_keeps_its_bounds_and_its_index(steps: list[tuple[str, int, int]]) -> None:
    cache = CredentialCache(known_max=5, absent_max=3)
    for step, user_number, account_number in steps:
        user = UserKey("sip.example", str(user_number))
        match step:
            case "known":
                cache.put(user, known(str(account_number)))
            case "absent":
                cache.put(user, known(None))
            case "get":
                cache.get(user, MonoS(0.0))
            case "forget":
                cache.forget_user(user)
            case "account":
                cache.forget_account(str(account_number))
            case "clear":
                cache.clear()
        indexed = {user for users in cache._by_account.values() for user in users}
        assert indexed == set(cache._known)
        assert len(cache._known) <= 5
        assert len(cache._absent) <= 3
        assert not set(cache._known) & set(cache._absent)


def test_ha1s_are_those_of_rfc_7616() -> None:
    mufasa = UserKey("http-auth@example.org", "Mufasa")
    ha1s = ha1s_of(mufasa, "Circle of Life")
    assert ha1s.md5 == "3d78807defe7de2157e2b0b6573a855f"
    assert len(ha1s.sha256) == len(ha1s.sha512_256) == 64
    assert ha1s.sha256 != ha1s.sha512_256
    assert set(ALLOWED[1]) == set(Algorithm)
    assert SealingKeys(KEY).open(mufasa, SealingKeys(KEY).seal(mufasa, ha1s, os.urandom(SALT_BYTES))) == ha1s


def test_an_owner_gets_its_calls_by_a_carrier_trunk_first_and_by_none_while_it_is_disabled() -> None:
    owner, other = AuthAccount("1", "traffic-sender", True), AuthAccount("2", "traffic-sender", False)
    sender, out = (
        AuthTrunk("a", "192.0.2.7:5060", "", owner),
        AuthTrunk("b", "192.0.2.8:5060", "", owner, is_sender=False),
    )
    table = TrunkTable([sender, out, AuthTrunk("c", "192.0.2.9:5060", "", other)])
    assert table.of_account("1") == (out, sender)
    assert table.of_account("2") == table.of_account("3") == ()
    assert table.find("192.0.2.8", "49") is None  # nothing comes in from where calls only go out to


@pytest.mark.cases
def test_whose_number_it_is_among_many_of_every_length() -> None:
    owners = {str(number): UUID(int=number << 64 | number) for number in (12, 21, 123, 49301234, 49301235, 10**14)}
    table = NumberTable()
    table.append(sorted(owners.items()))
    assert len(table) == len(owners)
    for number, owner in owners.items():
        assert table.owner(number) == owner
    assert [table.owner(number) for number in ("11", "122", "4930123", "493012345", "9" * 15)] == [None] * 5


@pytest.mark.cases
def test_a_number_that_moved_is_another_owners_and_one_that_was_taken_away_is_nobodys() -> None:
    alice, bob = UUID(int=1), UUID(int=2)
    table = NumberTable()
    table.append([("4930111", alice), ("4930222", alice)])
    assert table.change(["4930111", "4930222", "4930333"], {"4930111": bob, "4930333": bob})
    assert [table.owner(number) for number in ("4930111", "4930222", "4930333")] == [bob, None, bob]
    assert not table.change([f"49{number:08d}" for number in range(CHANGES_MAX)], {})  # read all of them again


@pytest.mark.cases
@pytest.mark.parametrize(
    ("called", "tech_prefix", "number"),
    [
        ("+4930111", "", "4930111"),
        ("004930-111", "", "4930111"),
        ("77#+4930111", "77#", "4930111"),
        ("4930111;npdi", "", "4930111"),
        ("bob", "", ""),
        ("030111", "", ""),
        ("1234567890123456", "", ""),
    ],
)
def test_the_number_that_was_called(called: str, tech_prefix: str, number: str) -> None:
    assert called_number(called, tech_prefix) == number
