"""Via, name-addr, URI, CSeq and lists: what is read, what is refused, how it is written."""

import pytest

from callwarden.sip import grammar
from callwarden.sip.cseq import parse_cseq
from callwarden.sip.malformed import Malformed
from callwarden.sip.nameaddr import NameAddr, parse_name_addr
from callwarden.sip.names import canonical
from callwarden.sip.uri import parse_uri
from callwarden.sip.via import parse_via

# Via


def test_a_via_is_read_with_blanks_in_it() -> None:
    """RFC 3261 20.42."""
    via = parse_via("SIP / 2.0 / UDP first.example.com: 4000;ttl=16 ;maddr=224.2.0.1 ;branch=z9hG4bKa7c6a8dlze.1")
    assert (via.transport, via.sent_by) == ("UDP", "first.example.com:4000")
    assert via.params == {"ttl": "16", "maddr": "224.2.0.1", "branch": "z9hG4bKa7c6a8dlze.1"}
    assert parse_via(str(via)) == via


@pytest.mark.parametrize(
    ("text", "stamped"),
    [
        ("SIP/2.0/UDP 192.0.2.1;branch=b", "SIP/2.0/UDP 192.0.2.1;branch=b"),
        ("SIP/2.0/UDP 192.0.2.1;received=6.6.6.6;branch=b", "SIP/2.0/UDP 192.0.2.1;branch=b"),
        ("SIP/2.0/UDP phone.lan;branch=b", "SIP/2.0/UDP phone.lan;branch=b;received=192.0.2.1"),
        ("SIP/2.0/UDP 10.0.0.1:5062;received=6.6.6.6", "SIP/2.0/UDP 10.0.0.1:5062;received=192.0.2.1"),
        ("SIP/2.0/UDP 192.0.2.1;rport;branch=b", "SIP/2.0/UDP 192.0.2.1;rport=4000;branch=b;received=192.0.2.1"),
        ("SIP/2.0/UDP 192.0.2.1;rport=1;branch=b", "SIP/2.0/UDP 192.0.2.1;rport=4000;branch=b;received=192.0.2.1"),
    ],
)
def test_the_source_is_written_into_a_via_whatever_its_sender_wrote(text: str, stamped: str) -> None:
    """RFC 3261 18.2.1, RFC 3581 4."""
    assert str(parse_via(text).stamped("192.0.2.1", 4000)) == stamped


def test_ipv6_in_brackets_is_the_same_address() -> None:
    assert parse_via("SIP/2.0/UDP [2001:DB8::1];branch=b").stamped("2001:db8::1", 1).received is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP ;branch=b",
        "SIP/3.0/UDP a",
        "SIP/2.0/UDP a b",
        "SIP/2.0/UDP a:0",
        "SIP/2.0/UDP a:b",
        "SIP/2.0/UDP [::1;branch=b",
        "SIP/2.0/UDP [1::2::3];branch=b",
        "SIP/2.0/UDP -a",
        "SIP/2.0/UDP a;;branch=b",
        "SIP/2.0/UDP a;branch=b;branch=c",
        "SIP/2.0/UDP a;branch=b, SIP/2.0/UDP c",
        'SIP/2.0/UDP a;x="',
    ],
)
def test_a_bad_via_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_via(text)


# Name-addr


@pytest.mark.parametrize(
    ("text", "display", "uri", "params"),
    [
        ('"Bob" <sip:bob@b>;tag=1', "Bob", "sip:bob@b", {"tag": "1"}),
        ('"a \\"b\\" \\\\ <c>" <sip:b>', 'a "b" \\ <c>', "sip:b", {}),
        ("Bob B. <sip:bob@b>", "Bob B.", "sip:bob@b", {}),
        ("Zoë<sip:z@b>", "Zoë", "sip:z@b", {}),
        ("<sip:bob@b;lr>;x", "", "sip:bob@b;lr", {"x": None}),
        ("sip:bob@b;tag=1", "", "sip:bob@b", {"tag": "1"}),
        ("sip:bob@b ; tag = 1", "", "sip:bob@b", {"tag": "1"}),
        ("<tel:+1-201;phone-context=x>", "", "tel:+1-201;phone-context=x", {}),
        ('<sip:a@b>;+sip.instance="<urn:uuid:1>"', "", "sip:a@b", {"+sip.instance": '"<urn:uuid:1>"'}),
        ("<sip:a@b>;tag=YWJj==", "", "sip:a@b", {"tag": "YWJj=="}),
    ],
)
def test_addresses_are_read(text: str, display: str, uri: str, params: dict[str, str | None]) -> None:
    found = parse_name_addr(text)
    assert (found.display, str(found.uri), found.params) == (display, uri, params)
    assert parse_name_addr(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<>",
        "Bob",
        "<sip:bob@b",
        '"Bob <sip:bob@b>',
        '"Bob" x <sip:bob@b>',
        '"Bob" sip:bob@b',
        "a, b <sip:bob@b>",
        "<sip:bob@b> x",
        "<sip:bob@b>;",
        "<sip:bob@b>;;x",
        "<sip:bob@b>;tag=",
        "<sip:bob@b>;tag=a b",
        "<sip:bob@b>;tag=1;TAG=2",
        "< sip:bob@b>",
        "sip:bob@b?x=y",
        "<<sip:bob@b>>",
        "<sip:bob@b>>",
    ],
)
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_name_addr(text)


def test_a_display_name_cannot_break_out_of_its_quotes() -> None:
    evil = NameAddr('x" <sip:evil@e>, "', parse_uri("sip:a@b"), {})
    assert parse_name_addr(str(evil)) == evil
    with pytest.raises(ValueError):
        str(NameAddr("x\r\nEvil: yes", parse_uri("sip:a@b"), {}))


# URI


@pytest.mark.parametrize(
    "text",
    [
        "sip:bob@example.com",
        "sips:bob:secret@example.com:5061;transport=tcp;lr?subject=x&priority=urgent",
        "sip:192.0.2.1",
        "sip:[2001:db8::1]:5060",
        "sip:+1-212-555-1212:1234@gateway.com;user=phone",
        "sip:*31#5551234@example.com",
        "sip:a_b@under_score.example.com",
        "sip:alice;day=tuesday@atlanta.com",
        "sip:@example.com".replace("@", "a@"),
        "tel:+1-201-555-0123",
        "tel:7042;phone-context=example.com",
        "urn:service:sos",
        "mailto:a@b",
    ],
)
def test_uris_are_read_and_written(text: str) -> None:
    assert str(parse_uri(text)) == text


def test_a_uri_in_parts() -> None:
    uri = parse_uri("SIPS:j%20doe:pw@Example.com:5061;Transport=TCP;lr?subject=x")
    assert (uri.scheme, uri.user, uri.username, uri.password) == ("sips", "j%20doe", "j doe", "pw")
    assert (uri.host, uri.port, uri.params, uri.headers) == (
        "Example.com",
        5061,
        {"transport": "TCP", "lr": None},
        "subject=x",
    )
    assert (uri.transport, uri.is_loose, uri.is_sip) == ("tcp", True, True)
    assert parse_uri("sip:example.com").username == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip",
        "sip:",
        ":bob@b",
        "sip:bob@",
        "sip:@b",
        "sip:b b@c",
        "sip:b<@c",
        'sip:b"@c',
        "sip:bob@exa mple",
        "sip:bob@-example.com",
        "sip:bob@example.com:",
        "sip:bob@example.com:0",
        "sip:bob@example.com:65536",
        "sip:bob@example.com:123456",
        "sip:bob@[::1",
        "sip:bob@[::g]",
        "sip:bob@[]",
        "sip:bob@[::1%25eth0]",
        "sip:bob@::1",
        "sip:bob@example.com;",
        "sip:bob@example.com;=x",
        "sip:bob@example.com;lr;LR",
        "sip:bob@example.com?",
        "sip:b%zzob@example.com",
        "sip:b%4@example.com",
        "tel:",
        "tel:hello",
        "urn:",
        "urn:a b",
    ],
)
def test_bad_uris_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_uri(text)


@pytest.mark.parametrize("user", ["%00", "a%0D%0A", "%FF%FE", "%7f"])
def test_a_user_name_that_no_log_or_database_should_see_is_refused(user: str) -> None:
    uri = parse_uri(f"sip:{user}@b")
    with pytest.raises(Malformed):
        _ = uri.username


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        # RFC 3261 19.1.4
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", True),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", True),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on", True),
        ("sip:alice@atlanta.com?subject=a&priority=urgent", "sip:alice@atlanta.com?priority=urgent&subject=a", True),
        ("SIP:ALICE@AtLanTa.CoM", "sip:alice@AtLanTa.CoM", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp", False),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next", False),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off", False),
        ("sip:a:b@c", "sip:a:d@c", False),
        ("sip:a@c", "sips:a@c", False),
        ("tel:+1", "tel:+1", True),
        ("tel:+1", "sip:+1@b", False),
        ("sip:%00@b", "sip:%00@b", True),
    ],
)
def test_uris_are_compared_as_the_rfc_says(one: str, other: str, equal: bool) -> None:
    assert parse_uri(one).matches(parse_uri(other)) is equal
    assert parse_uri(other).matches(parse_uri(one)) is equal


# The rest


@pytest.mark.parametrize("text", ["", "1", "INVITE", "1INVITE", "-1 INVITE", "1 IN VITE", "99999999999 INVITE", "1  "])
def test_a_bad_cseq_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_cseq(text)


def test_a_cseq_is_read_and_written() -> None:
    assert str(parse_cseq("0009 \t INVITE")) == "9 INVITE"


def test_commas_separate_only_outside_quotes_and_brackets() -> None:
    assert grammar.split_list('"a,b" <sip:c,d> , e,<f>;x="y,z"') == ['"a,b" <sip:c,d>', "e", '<f>;x="y,z"']
    for text in ("a,,b", ",a", "a,", ","):
        with pytest.raises(Malformed):
            grammar.split_list(text)
    with pytest.raises(Malformed):
        grammar.split_list('a, "b')


def test_header_names_have_one_key() -> None:
    assert {canonical(name) for name in ("CSeq", "cseq", "CSEQ", "cSeQ ", "cseq\t")} == {"cseq"}
    assert {canonical(name) for name in ("v", "V", "Via", "via ")} == {"via"}
    for name in ("", " via", "vi a", "via:", "ü"):
        with pytest.raises(Malformed):
            canonical(name)
