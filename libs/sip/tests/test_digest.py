"""Digest by the vectors of RFC 7616 and others, and nonces that only we can make."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.sip import digest
from callwarden.sip.digest import Algorithm, Challenge, Freshness, NonceKeys
from callwarden.sip.malformed import Malformed

# Where each vector is from stands beside it in the file; all were computed a second time with hashlib.
VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "digest_vectors.json").read_text())["vectors"]
NOW_S = 1_700_000_000.0
SALT = b"salt5"
KEYS = NonceKeys({1: b"k" * 32, 2: b"l" * 32}, current=1)


def credentials(vector: dict[str, Any]) -> str:
    qop = f', qop={vector["qop"]}, nc={vector["nc"]}, cnonce="{vector["cnonce"]}"' if vector["qop"] else ""
    return (
        f'Digest username="{vector["username"]}", realm="{vector["realm"]}", nonce="{vector["nonce"]}", '
        f'uri="{vector["uri"]}", response="{vector["response"]}", algorithm={vector["algorithm"]}{qop}'
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['source']} {vector['algorithm']}")
def test_the_vectors_verify_and_nothing_near_them_does(vector: dict[str, Any]) -> None:
    found = digest.parse_credentials(credentials(vector))
    ha1 = digest.ha1(found.algorithm, found.username, found.realm, vector["password"])
    assert found.verify(ha1, vector["method"])
    assert not found.verify(ha1, "BYE")
    assert not found.verify(digest.ha1(found.algorithm, found.username, found.realm, "wrong"), vector["method"])
    assert not found._replace(uri="sip:other").verify(ha1, vector["method"])
    assert not found._replace(nonce="other").verify(ha1, vector["method"])
    if vector["qop"]:
        assert not found._replace(nc="00000002").verify(ha1, vector["method"])
        assert not found._replace(cnonce="other").verify(ha1, vector["method"])
    if "userhash" in vector:
        assert digest.userhash(found.algorithm, found.username, found.realm) == vector["userhash"]


@given(
    username=st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30),
    password=st.text(max_size=20),
    realm=st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30),
    algorithm=st.sampled_from(Algorithm),
    qop=st.booleans(),
    stale=st.booleans(),
)
def test_an_answer_to_our_challenge_verifies_after_its_way_over_the_wire(
    username: str, password: str, realm: str, algorithm: Algorithm, qop: bool, stale: bool
) -> None:
    password = password.encode(errors="replace").decode()
    challenge = Challenge(realm, KEYS.issue(NOW_S, SALT), algorithm, qop, stale)
    assert digest.parse_challenge(str(challenge)) == challenge
    answer = challenge.answer(username, password, "INVITE", "sip:bob@example.com", cnonce="c", nc=7)
    assert digest.parse_credentials(str(answer)) == answer
    assert answer.verify(digest.ha1(algorithm, username, realm, password), "INVITE")
    assert not answer.verify(digest.ha1(algorithm, username, realm, password + "x"), "INVITE")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Basic dXNlcjpwYXNz",
        "Digest",
        "Digest ",
        'Digest username="a"',
        'Digest username="a", username="b", realm="r", nonce="n", uri="u", response="' + "0" * 32 + '"',
        'Digest username="a", realm="r", nonce="n", uri="u", response="0123"',
        'Digest username="a", realm="r", nonce="n", uri="u", response="' + "g" * 32 + '"',
        'Digest username="a", realm="r", nonce="n", uri="u", algorithm=SHA-256, response="' + "0" * 32 + '"',
        'Digest username="a", realm="r", nonce="n", uri="u", algorithm=MD5-sess, response="' + "0" * 32 + '"',
        'Digest username="a", realm="r", nonce="n", uri="u", qop=auth-int, response="' + "0" * 32 + '"',
        'Digest username="a", realm="r", nonce="n", uri="u", qop=auth, response="' + "0" * 32 + '"',
        'Digest username="a", realm="r", nonce="n", uri="u", qop=auth, nc=1, cnonce="c", response="' + "0" * 32 + '"',
        'Digest username="a, realm="r", nonce="n", uri="u", response="' + "0" * 32 + '"',
        "Digest " + ",".join(f"a{number}=1" for number in range(digest.FIELDS_MAX + 1)),
        "Digest " + "a" * digest.CREDENTIALS_MAX,
    ],
)
def test_other_credentials_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        digest.parse_credentials(text)


def test_a_client_of_rfc_2069_names_no_algorithm_and_no_qop() -> None:
    ha1 = digest.ha1(Algorithm.MD5, "a", "r", "p")
    response = digest.response_for(Algorithm.MD5, ha1, "REGISTER", "sip:r", "n")
    found = digest.parse_credentials(
        f'Digest username="a",realm="r",nonce="n",uri="sip:r",response="{response.upper()}"'
    )
    assert (found.algorithm, found.qop) == (Algorithm.MD5, None)
    assert found.verify(ha1, "REGISTER")


def test_credentials_show_nothing_of_themselves() -> None:
    found = digest.parse_credentials(credentials(VECTORS[0]))
    assert VECTORS[0]["response"] not in repr(found)
    assert "kkk" not in repr(KEYS)


def test_challenges_offer_the_algorithms_in_the_order_given() -> None:
    """RFC 8760 2.3: the topmost is preferred."""
    offered = digest.challenges("r", "n", [Algorithm.SHA_256, Algorithm.MD5], stale=True)
    assert [challenge.algorithm for challenge in offered] == [Algorithm.SHA_256, Algorithm.MD5]
    assert all(challenge.stale for challenge in offered)


def test_a_nonce_is_fresh_then_stale() -> None:
    nonce = KEYS.issue(NOW_S, SALT)
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", nonce)
    assert KEYS.check(nonce, NOW_S, 60.0) is Freshness.FRESH
    assert KEYS.check(nonce, NOW_S + 60.0, 60.0) is Freshness.FRESH
    assert KEYS.check(nonce, NOW_S + 60.1, 60.0) is Freshness.STALE
    assert KEYS.check(nonce, NOW_S - 5.0, 60.0) is Freshness.FRESH  # another pod's clock is ahead
    assert KEYS.check(nonce, NOW_S - 61.0, 60.0) is Freshness.STALE


def test_a_nonce_of_one_pod_is_good_at_all_pods_that_share_the_keys() -> None:
    other_pod = NonceKeys({1: b"k" * 32, 2: b"l" * 32}, current=2)
    assert other_pod.check(KEYS.issue(NOW_S, SALT), NOW_S, 60.0) is Freshness.FRESH
    assert KEYS.check(other_pod.issue(NOW_S, SALT), NOW_S, 60.0) is Freshness.FRESH


def test_a_key_taken_away_takes_its_nonces_with_it() -> None:
    rotated = NonceKeys({2: b"l" * 32}, current=2)
    assert rotated.check(KEYS.issue(NOW_S, SALT), NOW_S, 60.0) is Freshness.FORGED


def test_a_bound_nonce_is_good_for_its_source_only() -> None:
    nonce = KEYS.issue(NOW_S, SALT, "192.0.2.1")
    assert KEYS.check(nonce, NOW_S, 60.0, "192.0.2.1") is Freshness.FRESH
    assert KEYS.check(nonce, NOW_S, 60.0, "192.0.2.2") is Freshness.FORGED
    assert KEYS.check(nonce, NOW_S, 60.0) is Freshness.FORGED


@given(st.integers(0, 39), st.characters())
def test_a_nonce_with_any_character_changed_is_forged(at: int, character: str) -> None:
    nonce = KEYS.issue(NOW_S, SALT)
    changed = nonce[:at] + character + nonce[at + 1 :]
    assert (KEYS.check(changed, NOW_S, 60.0) is Freshness.FRESH) is (changed == nonce)


@given(st.text(max_size=60))
def test_any_text_that_we_did_not_issue_is_forged(text: str) -> None:
    assert KEYS.check(text, NOW_S, 60.0) is Freshness.FORGED


def test_keys_are_checked() -> None:
    with pytest.raises(ValueError):
        NonceKeys({1: b"k" * 32}, current=2)
    with pytest.raises(ValueError):
        NonceKeys({1: b"short"}, current=1)
    with pytest.raises(ValueError):
        NonceKeys({256: b"k" * 32}, current=256)
    with pytest.raises(ValueError):
        KEYS.issue(NOW_S, b"")


@pytest.mark.cases
@pytest.mark.parametrize("between", [",", ", ,", " , , ", ",,,", ", ,\t, "])
def test_commas_with_nothing_between_them_are_one(between: str) -> None:
    text = between.join(['Digest username="bob"', 'realm="a,, b"', "nc=00000001"])
    for value in (text, text + between.strip()):
        assert digest.parse_fields(value) == {"username": "bob", "realm": "a,, b", "nc": "00000001"}


@pytest.mark.cases
@pytest.mark.parametrize("gap", [" " * 60, "," * 60, ", " * 30])
def test_no_gap_is_read_in_more_than_one_way(gap: str) -> None:
    """Else the time to refuse it would grow with the power of how many there are."""
    with pytest.raises(Malformed):
        digest.parse_fields("Digest " + f",{gap}".join(f"a{number}=1" for number in range(20)) + ", ;")
