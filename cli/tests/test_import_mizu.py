"""`callwarden import mizu`: the list of a Mizu server becomes a policy, and every key that doesn't is told with its
reason."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.cli.main import run
from callwarden.cli.mizu.settings_list import LINES_MAX, LIST_BYTES_MAX, NotAList, Setting, canonical, parse
from callwarden.cli.mizu.translation import (
    ELSEWHERE,
    FIELD_OF,
    VALUES,
    Translation,
    Why,
    known_keys,
    to_yaml,
    translate,
)
from callwarden.policy.bundle import Document, PolicySet, facts, parse_yaml

DATA = Path(__file__).parents[2] / "tests/data"
TO_COME: dict[str, list[str]] = yaml.safe_load((DATA / "settings_to_come.yaml").read_text())
# Without the rows that the policy has no field for: there is nothing yet to translate them to.
CATALOGUE: list[dict[str, Any]] = [
    row for row in yaml.safe_load((DATA / "settings.yaml").read_text()) if row["id"] not in TO_COME["field"]
]
PLAIN = "maxsubsmsgcount = 6000\n"


def translated(text: str) -> Translation:
    return translate(parse(text.encode()))


def spec(text: str) -> Any:
    """What the policy says that comes out, read back as any policy is."""
    (document,) = parse_yaml(to_yaml(translated(text), name="mizu", source="list"))
    return document.spec


def why(text: str) -> dict[str, Why]:
    return {one.setting.key: one.why for one in translated(text).left}


# ------------------------------------------------------------------ how a list is read


@pytest.mark.parametrize(
    "line",
    [
        "maxlines=3",
        "  maxlines  =  3  ",
        "MaxLines = 3",
        "MAX LINES = 3",
        "\tmaxlines\t=\t3",
        'maxlines = "3"',
        "maxlines = '3'",
        '"maxlines" = "3"',
        "maxlines = 3;",
        "maxlines = 3 # for everybody",
        "maxlines = 3 // for everybody",
        'maxlines = "3" ; for everybody',
    ],
)
def test_a_setting_is_read_however_it_is_spaced_quoted_and_commented(line: str) -> None:
    (setting,) = parse(line.encode()).settings
    assert (setting.id, setting.value, setting.line) == ("maxlines", "3", 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_windows_are_read_as_others(encoding: str, end: str) -> None:
    content = end.join(["; über alles", "[global]", "maxlines = 3", "", "maxcallperip = 500", ""]).encode(encoding)
    assert [(one.key, one.value) for one in parse(content).settings] == [("maxlines", "3"), ("maxcallperip", "500")]


@pytest.mark.parametrize("value", ["http://x.example/#a", "a#b", "1;2"])
def test_signs_of_comments_within_a_value_belong_to_it(value: str) -> None:
    assert parse(f"k = {value}".encode()).settings[0].value == value


def test_a_key_set_twice_holds_as_it_was_set_last() -> None:
    listed = parse(b"maxlines = 3\nMaxLines = 4\n")
    assert [(one.value, one.line) for one in listed.settings] == [("4", 2)]
    assert [(one.value, one.line) for one in listed.replaced] == [("3", 1)]
    assert spec("maxlines = 3\nMaxLines = 4\n") == {"lines": {"max": 4}}
    assert why("maxlines = 3\nMaxLines = 4\n") == {"maxlines": Why.REPLACED}


def test_what_is_no_setting_is_told_by_its_line() -> None:
    listed = parse(b"maxlines = 3\nhello\n= 4\n" + b"a=" + b"b" * 20_000)
    assert listed.unread == (2, 3, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "contains no line"),
        (b"# nothing\n\n", "contains no line"),
        (b"PK\x03\x04\0\0 = 1", "is not text"),
        (b"a=1\n" * (LINES_MAX + 1), "lines"),
        (b"#" * (LIST_BYTES_MAX + 1), "larger"),
    ],
)
def test_what_is_no_list_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(NotAList, match=reason):
        parse(content)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        listed = parse(content)
    except NotAList:
        return
    assert listed.settings
    assert len({one.id for one in listed.settings}) == len(listed.settings)


# ------------------------------------------------------------------ what settings mean


@pytest.mark.setting("settings-import")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("maxsubsmsgcount = 6000", {"messages": {"perAddress": {"max": 6000}}}),
        ("maxsubsmsgperiod = 180", {"messages": {"perAddress": {"period": "3m"}}}),
        ("maxsubsmsgperiod = 3m", {"messages": {"perAddress": {"period": "3m"}}}),
        ("maxwrongmsgperiod = 90 min", {"messages": {"wrongPerAddress": {"period": "1h30m"}}}),
        ("reenabledosblocked = 6 hours", {"messages": {"resetAfter": "6h"}}),
        ("maxcallperperiod = 1.0", {"callsPerAddress": {"period": 1.0}}),
        ("maxcallperperiod = 2", {"callsPerAddress": {"period": 2.0}}),
        ("maxcallperperiod = 1.0 days", {"callsPerAddress": {"period": 1.0}}),
        ("maxcallperperiod = 1 day", {"callsPerAddress": {"period": 1.0}}),
        ("maxcallperperiod = 36h", {"callsPerAddress": {"period": 1.5}}),
        ("maxcallperip = -1", {"callsPerAddress": {"maxCalls": None}}),
        ("maxcallperip = 500", {"callsPerAddress": {"maxCalls": 500}}),
        ("maxdurationperip = 3600", {"callsPerAddress": {"maxDuration": "1h"}}),
        ("maxcostperip = 12.5", {"callsPerAddress": {"maxCost": "12.50"}}),
        ("maxdailycreditforenduser = 20", {"spend": {"daily": {"endUser": "20.00"}}}),
        ("maxdailycreditforts = -1", {"spend": {"daily": {"trafficSender": None}}}),
        ("maxdyndailycredit_multiplier = 4", {"spend": {"dynamicDaily": {"multiplier": 4}}}),
        ("creditcheckforpostp = 1", {"spend": {"checkPostpaid": True}}),
        ("creditcheckforpostp = FALSE", {"spend": {"checkPostpaid": False}}),
        ("blocknotbilledcalls = yes", {"billing": {"blockNotBilled": 1}}),
        ("blockhighcostcalls = 0.35", {"billing": {"maxCostPerMinute": "0.35"}}),
        ("blockua = friendly, vicious", {"sip": {"blockedUserAgents": ["friendly", "vicious"]}}),
        ('blockua = "friendly";"vicious"', {"sip": {"blockedUserAgents": ["friendly", "vicious"]}}),
        ("blockua = friendly", {"sip": {"blockedUserAgents": ["friendly"]}}),
        ("maxlinesoffpeak = 2", {"lines": {"maxOffPeak": 2}}),
        ("quotadiscreason = 402", {"spend": {"rejectStatus": 402}}),
        ("calcmaxsl = -1", {"duration": {"enforce": -1}}),
        ("autocreatereguserstrict = 1", {"authentication": {"autoCreate": False}}),
    ],
)
def test_a_setting_becomes_the_field_that_does_the_same(line: str, wanted: dict[str, Any]) -> None:
    assert spec(line) == wanted


def test_numbers_without_a_unit_are_told_to_be_seconds() -> None:
    assert [one.note for one in translated("maxsubsmsgperiod = 180").carried] == ["180 taken as seconds"]
    assert [one.note for one in translated("maxsubsmsgperiod = 180s").carried] == [""]
    assert "line 1, 180 taken as seconds" in to_yaml(translated("maxsubsmsgperiod = 180"), name="m", source="l")


@pytest.mark.setting("settings-import")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nothing_we_know = 5", Why.UNKNOWN),
        ("credit = 5", Why.ELSEWHERE),
        ("onlylocalaccess = 1", Why.ELSEWHERE),
        ("https = 1", Why.ELSEWHERE),
        ("delbanned = all", Why.ELSEWHERE),
        ("maxcallperuserid = 42", Why.ELSEWHERE),
        ("maxcallperuserid = -1", Why.ELSEWHERE),
        ("licensecfg = 100", Why.ELSEWHERE),
        ("useshadigestauh = 9", Why.BAD_VALUE),
        ("maxsubsmsgcount = many", Why.BAD_VALUE),
        ("maxsubsmsgcount = 0", Why.BAD_VALUE),
        ("maxdailycreditforenduser = 12,50", Why.BAD_VALUE),
        ("quotadiscreason = 200", Why.BAD_VALUE),
        ("autocreatereguserstrict = 7", Why.BAD_VALUE),
    ],
)
def test_what_cannot_be_carried_over_is_named_with_its_reason(line: str, reason: Why) -> None:
    result = translated(line)
    assert [(one.setting.line, one.why) for one in result.left] == [(1, reason)]
    assert result.left[0].reason
    assert result.spec == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("blockua = ab", "at least 3 characters"),
        ("maxsubsmsgcount = many", "valid integer"),
        ("maxdailycreditforenduser = 12,50", "write an amount"),
        ("maxsubsmsgperiod = soon", "write a duration"),
    ],
)
def test_the_reason_is_of_the_kind_that_the_field_has(line: str, said: str) -> None:
    (left,) = translated(line).left
    assert said in left.reason


def test_a_field_that_nobody_enforces_is_left_out_so_that_nobody_believes_in_it() -> None:
    unenforced = [path for path, fact in facts().items() if not fact.enforced and fact.group is None]
    assert unenforced, "every field is enforced by now: take this reason away"
    for one in translated("\n".join(f"{row['id']} = {_default(row)}" for row in CATALOGUE)).carried:
        fact = facts()[one.path]
        assert fact.enforced or (fact.has_always and fact.always == one.value), one.path


def _default(row: dict[str, Any]) -> str:
    value = row["default"]
    return ",".join(value) if isinstance(value, list) else str(value)


def test_values_that_are_right_only_together_are_taken_together() -> None:
    lines = ["maxdyndailycreditforenduser_min = 5", "absolute-timeout = 50h", "call-timeout = 40h"]
    for order in (lines, lines[::-1]):
        result = translated("\n".join(order))
        assert (len(result.carried), result.left) == (3, ())


def test_a_secret_is_never_repeated() -> None:
    text = "httpapikey = k3y-Of-Mine\napiv2key = k3y-Of-Mine\nmy_password = k3y-Of-Mine\nmaxlines = k3y-Of-Mine\n"
    result = translated(text)
    assert len(result.left) == 4
    assert "k3y-Of-Mine" not in to_yaml(result, name="m", source="l") + repr([one.reason for one in result.left])


def test_every_key_of_the_catalogue_is_known() -> None:
    assert {canonical(row["id"]) for row in CATALOGUE} <= known_keys()


def test_every_other_name_that_the_catalogue_mentions_is_known() -> None:
    for key in (
        *("apiv2key", "serverapikey", "trustlanip", "trustauthip", "treatusersasknownip"),
        *("reuseepauth", "reusedifferentportreg", "reuseupperregep", "earlystart", "blockearlymedia_in"),
    ):
        assert key in known_keys(), key


def test_what_belongs_elsewhere_does_so_in_the_catalogue() -> None:
    places = {canonical(row["id"]): str(row["field"]).partition(".")[0] for row in CATALOGUE}
    for key, place in places.items():
        if place in ("platform", "admin", "trunk"):
            assert key in ELSEWHERE, key
    for key, reason in ELSEWHERE.items():
        for start, kind in (("belongs to each account", "account"), ("belongs to each trunk", "trunk")):
            if reason.startswith(start):
                assert places[key] == kind
            elif places.get(key) == kind:
                raise AssertionError(key)


def test_the_few_fields_named_by_hand_exist() -> None:
    for key, path in FIELD_OF.items():
        assert key == canonical(key)
        assert facts()[path].group is None
    assert all(key == canonical(key) for key in (*ELSEWHERE, *VALUES))


KEYS = st.sampled_from([row["id"] for row in CATALOGUE]) | st.text("abcxyz_ ", min_size=1, max_size=12)
VALUES_TYPED = st.one_of(
    st.integers(-3, 100_000).map(str),
    st.floats(0, 1_000, allow_nan=False).map(str),
    st.sampled_from(["true", "false", "on", "off", "auto", "-1", "", "3m", "2 h", "null", "403", "Enforce", "[]"]),
    st.lists(st.sampled_from(["10.0.0.0/8", "::1", "sipvicious", "DE", "+49"]), max_size=4).map(", ".join),
    st.text(max_size=20),
)


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES_TYPED), min_size=1, max_size=12))
def test_whatever_is_listed_the_policy_holds_and_no_key_is_lost(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"{key} = {value}\n" for key, value in pairs)
    try:
        listed = parse(text.encode())
    except NotAList:
        return
    result = translate(listed)
    (document,) = parse_yaml(to_yaml(result, name="mizu", realm="a.example", source="\n- evil: true"))
    assert document.spec == {"realm": "a.example", **result.spec}
    held = PolicySet.build(1, [document]).for_realm("a.example").model_dump(mode="json", by_alias=True)
    for one in result.carried:
        value = held
        for key in one.path.split("."):
            value = value[key]
        assert value == one.value
    assert len(result.carried) + len(result.left) == len(listed.settings) + len(listed.replaced)


def test_settings_are_what_was_read() -> None:
    assert Setting("Max Lines", "3", 1).id == "maxlines"


# ------------------------------------------------------------------ the command


def test_the_policy_goes_to_the_file_and_the_report_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, policy = tmp_path / "mizu.txt", tmp_path / "policy.yaml"
    listed.write_text("maxlines = 3\nmaxsubsmsgperiod = 120\ncredit = 5\nwhat\n")
    assert run(["import", "mizu", str(listed), "--to", str(policy), "--name", "old", "--realm", "a.example"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "2 of 3 settings carried over",
        "line 2: maxsubsmsgperiod → spec.messages.perAddress.period: 120 taken as seconds",
        "line 3: credit: belongs elsewhere: belongs to each account: callwarden topup NAME AMOUNT",
        "line 4: is not key = value",
    ]
    (document,) = parse_yaml(policy.read_text())
    assert (document.name, document.realm) == ("old", "a.example")
    assert run(["policy", "lint", str(policy)]) == 0


def test_the_example_shows_every_reason_that_a_key_can_be_left_for(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "deploy/examples/mizu-settings.txt"
    assert run(["import", "mizu", str(example), "--output", "json"]) == 0
    shown = capsys.readouterr()
    assert PolicySet.build(1, parse_yaml(shown.out)).for_realm("").lines.max == 4
    report = json.loads(shown.err)
    assert len(report["carried"]) == 14
    assert {one["why"] for one in report["left"]} == {Why.UNKNOWN, Why.NOT_ENFORCED, Why.ELSEWHERE}
    assert "7f3b3c52" not in shown.out + shown.err


def test_the_report_is_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "mizu.txt"
    listed.write_text("maxlines = 3\ncredit = 5\n")
    assert run(["import", "mizu", str(listed), "--output", "json"]) == 0
    shown = capsys.readouterr()
    assert [document.spec for document in parse_yaml(shown.out)] == [{"lines": {"max": 3}}]
    report = json.loads(shown.err)
    assert report["carried"] == [{"key": "maxlines", "line": 1, "field": "spec.lines.max", "value": 3, "note": ""}]
    assert [(one["key"], one["why"]) for one in report["left"]] == [("credit", "belongs elsewhere")]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.txt"], 1, "missing.txt: No such file"),
        (["empty.txt"], 1, "empty.txt: contains no line"),
        (["plain.txt", "--name", "Not A Name"], 2, "metadata.name"),
        (["plain.txt", "--realm", "not a realm"], 2, "spec.realm"),
        (["plain.txt", "--to", "missing/policy.yaml"], 1, "missing/policy.yaml: No such file"),
        (["odd.txt", "--strict"], 1, "1 lines can't be carried over"),
        (["odd.txt"], 0, "unknown"),
        (["twice.txt", "--strict"], 0, "set again below"),
    ],
)
def test_how_it_ends(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "plain.txt").write_text(PLAIN)
    (tmp_path / "twice.txt").write_text(PLAIN * 2)
    (tmp_path / "odd.txt").write_text(f"{PLAIN}nothing_we_know = 1\n")
    assert run(["import", "mizu", *arguments]) == code
    assert said in capsys.readouterr().err


def test_the_policy_of_a_whole_list_of_defaults_changes_nothing() -> None:
    text = "\n".join(f"{row['id']} = {_default(row)}" for row in CATALOGUE if row["id"] not in TO_COME["value"])
    document = Document("mizu", spec(text))
    before, after = PolicySet.build(1, []), PolicySet.build(1, [document])
    differing = [
        path
        for path, fact in facts().items()
        if "[]" not in path and fact.group is None and _at(before, path) != _at(after, path)
    ]
    # Mizu's own number outside peak hours; here none means the same, and without peak hours it holds at no time.
    assert differing == ["lines.maxOffPeak"]


def _at(policies: PolicySet, path: str) -> Any:
    value: Any = policies.for_realm("").model_dump(mode="json", by_alias=True)
    for key in path.split("."):
        value = value[key]
    return value
