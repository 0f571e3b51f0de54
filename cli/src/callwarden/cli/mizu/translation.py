"""What Mizu's global settings mean here: each key that a field of the policy stands for becomes that field, each other
one is named with the reason why it can't be carried over.

Which field a key is, and which values it takes, is said by the policy model alone (the catalogue ids of its fields).
Here stand only the keys that are no field of a policy, the few whose field the ids leave open, and the values that mean
something else there. How a list is read is in callwarden.cli.mizu.settings_list.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from callwarden.cli.mizu.settings_list import Setting, SettingsList, canonical
from callwarden.cli.yaml_lines import flow, merged, nested
from callwarden.policy.bundle import BadPolicy, Document, PolicySet, facts, without_effect
from callwarden.policy.fields import FieldFacts, written
from callwarden.policy.model import API_VERSION, KIND

COMMENT_CHARS_MAX: Final = 64


class Why(StrEnum):
    """Why a key was left behind."""

    UNKNOWN = "unknown"
    NOT_ENFORCED = "not enforced yet"
    ELSEWHERE = "belongs elsewhere"
    BAD_VALUE = "value not taken"
    REPLACED = "set again below"


@dataclass(frozen=True, slots=True)
class Carried:
    """A key that the policy has: as which field, with which value, and what is to be known of the conversion."""

    setting: Setting
    path: str
    value: Any
    note: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A key that the policy has not."""

    setting: Setting
    why: Why
    reason: str


@dataclass(frozen=True, slots=True)
class Translation:
    """What became of a list. `spec` is the policy's, ready to be validated as any other."""

    carried: tuple[Carried, ...]
    left: tuple[Left, ...]
    warnings: tuple[str, ...]
    unread: tuple[int, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)


_ACCOUNT: Final = "belongs to each account: "
_TRUNK: Final = "belongs to each trunk: "
_PLATFORM: Final = "belongs to how the system is deployed: "
_ADMIN: Final = "is a command, no setting: "
_KEYS: Final = "is a secret and can't be in a policy: make new keys, and give them as a Kubernetes Secret"
_REUSE: Final = "is part of spec.registrar.reuse: write reuseep"

# Keys that are no field of a policy, and what to do instead. A test holds this against the catalogue.
ELSEWHERE: Final[Mapping[str, str]] = {
    "authtype": f"{_ACCOUNT}its password, or a trunk's address, says how it proves who it is",
    "credit": f"{_ACCOUNT}callwarden topup NAME AMOUNT",
    "maxmonthlycredit": f"{_ACCOUNT}callwarden account set NAME --monthly AMOUNT",
    "maxmonthlycreditinc": f"{_ACCOUNT}callwarden account set NAME --monthly-increment AMOUNT",
    "maxmonthlycreditend": f"{_ACCOUNT}callwarden account set NAME --monthly-ceiling AMOUNT",
    "maxdailycredit": f"{_ACCOUNT}callwarden account set NAME --daily AMOUNT",
    "maxslperday": f"{_ACCOUNT}callwarden account set NAME --talk-day 90m",
    "maxslpermonth": f"{_ACCOUNT}callwarden account set NAME --talk-month 100h",
    "subscriber-data": f"{_ACCOUNT}callwarden account set NAME --country DE --email ADDRESS --phone NUMBER",
    "needauth": f"{_TRUNK}callwarden trunk add NAME --help shows how one proves who it is",
    "onlylocalaccess": f"{_TRUNK}callwarden trunk set NAME --only-local",
    "https": f"{_PLATFORM}the chart's certificates",
    "nonstandard-ports": f"{_PLATFORM}the chart's ports, or CALLWARDEN_SIP_LISTEN",
    "ftpdbuser": "has no counterpart: there is no file-transfer service",
    "db-roles": f"{_PLATFORM}docs/reference/database.md",
    "db-password": f"{_PLATFORM}the Secret that the chart's value secrets.database names",
    "admin-tunnel": f"{_PLATFORM}the chart's certificates: administration is gRPC over mutual TLS",
    "db-backup": f"{_PLATFORM}the chart's values under backup, docs/reference/database.md",
    "os-hardening": f"{_PLATFORM}the chart's pods are restricted as they are",
    "delbanned": f"{_ADMIN}callwarden ban remove ADDRESS, or --all",
    "audit-checklist": f"{_ADMIN}callwarden audit",
    "settings-import": f"{_ADMIN}callwarden import mizu FILE",
    "httpapikey": _KEYS,
    "apiv2key": _KEYS,
    "serverapikey": _KEYS,
    "reuseepauth": _REUSE,
    "reusedifferentportreg": _REUSE,
    "reuseupperregep": _REUSE,
    "earlystart": "is part of spec.routing.earlyMedia: write blockearlymedia and blockearlymedia_in",
    "maxcallperuserid": "is a number of Mizu's database: set spec.callsPerAddress.account to the account's name here",
}

# Rows that several fields carry, and keys that Mizu has beside a row's: which field a key of that name is, as written
# below `spec`. A test shows that each exists.
FIELD_OF: Final[Mapping[str, str]] = {
    "maxlinesoffpeak": "lines.maxOffPeak",
    "session-timers": "session.timers",
    "allowtrustedip": "authentication.trustedAddresses.mode",
    "trustsubnet": "authentication.trustedAddresses.subnets",
    "trustlanip": "authentication.trustedAddresses.localNetworks",
    "trustauthip": "authentication.trustedAddresses.authenticated",
    "treatusersasknownip": "authentication.trustedAddresses.usersAsKnown",
    "blockearlymedia": "routing.earlyMedia.toCaller",
    "blockearlymedia_in": "routing.earlyMedia.toCallee",
    "sendadminemailnotifications": "notifications.email.level",
    "blacklist-dynamic": "fraud.dynamicList.enabled",
    "stress-test": "profile",
}

# What Mizu writes as a number and we say otherwise; values that aren't here can't be carried over.
VALUES: Final[Mapping[str, Mapping[str, Any]]] = {
    "autocreatereguserstrict": {"1": False, "0": True},
    "forwardclientaddress": {"0": True, "1": False},
    "allowcalleridchange": {"0": "Refuse", "1": "Any"},
    "enablejsonp": {"0": []},
    "srtp": {"pass-through": "PassThrough", "bridged": "Bridge", "enforced": "Required"},
}

# Values that mean "no limit", where a field can say so.
_NO_LIMIT: Final = frozenset({"-1", "", "null", "none", "no limit", "unlimited"})
_WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_OTHER_KIND: Final = "input should be a valid"  # As pydantic says it.
_SPAN: Final = re.compile(r"(\d{1,9})(\.\d{1,9})?\s*([a-z]+)", re.ASCII)
_UNITS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
_PER_DAY: Final = {"s": 86_400, "m": 1_440, "h": 24, "d": 1}


def translate(listed: SettingsList) -> Translation:
    """Never raises: what can't be carried over is in the answer."""
    targets = _targets()
    carried: list[Carried] = []
    left = [Left(setting, Why.REPLACED, "a later line sets it again and wins") for setting in listed.replaced]
    waiting: list[tuple[Setting, FieldFacts]] = []
    for setting in listed.settings:
        match targets.get(setting.id):
            case None:
                left.append(Left(setting, Why.UNKNOWN, "no setting of this name is known here"))
            case FieldFacts() as target:
                waiting.append((setting, target))
            case str() as reason:
                left.append(Left(setting, Why.ELSEWHERE, reason))
    spec: dict[str, Any] = {}
    # A value may be right only beside another (a floor below its ceiling), so what is refused is tried again as long as
    # something else is taken.
    while waiting:
        refused: list[tuple[Setting, FieldFacts]] = []
        reasons = []
        for setting, target in waiting:
            found = _read(setting, target.path, spec)
            if isinstance(found, str):
                refused.append((setting, target))
                reasons.append(Left(setting, Why.BAD_VALUE, found))
            elif without_effect(nested(target.path, found[0])):
                left.append(Left(setting, Why.NOT_ENFORCED, _not_enforced(target)))
            else:
                spec = merged([spec, nested(target.path, found[0])])
                carried.append(Carried(setting, target.path, *found))
        if len(refused) == len(waiting):
            left += reasons
            break
        waiting = refused
    return Translation(
        tuple(sorted(carried, key=_line)), tuple(sorted(left, key=_line)), _warnings(spec), listed.unread, spec
    )


def known_keys() -> frozenset[str]:
    """Every key that is more than unknown, as keys are compared."""
    return frozenset(_targets())


def _line(one: Carried | Left) -> int:
    return one.setting.line


def _targets() -> dict[str, FieldFacts | str]:
    """By key: the field that it is, or why it is none."""
    found: dict[str, list[FieldFacts]] = {}
    for path, field_facts in facts().items():
        for row in field_facts.catalogue:
            if "[]" not in path and field_facts.group is None:
                found.setdefault(canonical(row), []).append(field_facts)
    targets: dict[str, FieldFacts | str] = {}
    for key, fields in found.items():
        paths = ", ".join(f"spec.{one.path}" for one in fields)
        targets[key] = fields[0] if len(fields) == 1 else f"is several fields here, to be written by hand: {paths}"
    return {**targets, **{key: facts()[path] for key, path in FIELD_OF.items()}, **ELSEWHERE}


def _not_enforced(target: FieldFacts) -> str:
    does = f": services act as for {written(target.always)}" if target.has_always else ""
    return f"spec.{target.path} would protect nothing, no service enforces it{does}"


def _read(setting: Setting, path: str, beside: Mapping[str, Any]) -> tuple[Any, str] | str:
    """The value as YAML is to have it with a note for the reader, or why it isn't taken beside the others."""
    reasons: list[str] = []
    if setting.id in VALUES:
        values = VALUES[setting.id]
        word = setting.value.casefold()
        word = str(int(_WORDS[word])) if word in _WORDS else word
        meanings: Iterable[Any] = [values[word]] if word in values else []
        reasons.append(f"spec.{path}: only {' or '.join(values)} can be carried over")
    else:
        meanings = _meanings(setting.value, facts()[path].unit)
    for value in meanings:
        try:
            policies = PolicySet.build(1, [_document(merged([beside, nested(path, value)]))])
        except BadPolicy as error:
            reasons.append(str(error.problems[0]))
            continue
        held = policies.for_realm("").model_dump(mode="json", by_alias=True)
        for key in path.split("."):
            held = held[key]
        return held, _note(value, held)
    # That a meaning was of another kind says less than why one of the right kind wasn't taken.
    return next((reason for reason in reasons if _OTHER_KIND not in reason), reasons[0])


def _meanings(text: str, unit: str) -> Iterator[Any]:
    """What a text may mean, the likeliest first: the model takes the first that is of the field's kind. `unit`: of a
    field that is a number, such as "days"."""
    word = text.casefold()
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        yield int(text)
    elif word in _WORDS:
        yield int(_WORDS[word])
    elif (span := _SPAN.fullmatch(word)) and span[3] in _UNITS:
        count, fraction, of = span[1], span[2] or "", _UNITS[span[3]]
        if unit == "days":
            yield float(count + fraction) / _PER_DAY[of]
        elif not fraction:
            yield f"{count}{of}"
    if word in _WORDS or word in ("0", "1"):
        yield _WORDS.get(word, word == "1")
    if re.fullmatch(r"[+-]?\d{1,18}\.\d{1,18}", text, re.ASCII):
        yield float(text)
    if word in _NO_LIMIT:
        yield None
    yield text
    parts = [part.strip().strip("\"'") for part in re.split(r"[,;|]", text)]
    yield [part for part in parts if part]


def _note(given: Any, held: Any) -> str:
    if isinstance(given, int) and not isinstance(given, bool) and isinstance(held, str) and held[-1:].isalpha():
        return f"{given} taken as seconds"
    return ""


def _document(spec: Mapping[str, Any]) -> Document:
    return Document.from_object({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "mizu"}, "spec": spec})


def _warnings(spec: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, PolicySet.build(1, [_document(spec)]).warnings))


def to_yaml(translation: Translation, *, name: str, realm: str = "", source: str) -> str:
    """The SecurityPolicy, each field with the key that it came from; what was left behind in comments below."""
    by_path = {one.path: one for one in translation.carried}
    lines = [
        f"# Made of {_comment(source)} by `callwarden import mizu`. Read it, then: callwarden policy apply -f FILE",
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        "metadata:",
        f"  name: {flow(name)}",
    ]
    fields = [*([f"  realm: {flow(realm)}"] if realm else []), *_yaml_lines(translation.spec, by_path)]
    lines += ["spec:", *fields] if fields else ["spec: {}"]
    if translation.left:
        lines.append("# Not carried over:")
        lines += [
            f"#   {_comment(one.setting.key)} (line {one.setting.line}): {one.reason}" for one in translation.left
        ]
    return "\n".join(lines) + "\n"


def _yaml_lines(spec: Mapping[str, Any], by_path: Mapping[str, Carried], prefix: str = "") -> Iterator[str]:
    indent = "  " * (prefix.count(".") + 1)
    for key, value in spec.items():
        path = f"{prefix}{key}"
        if path not in by_path:
            yield f"{indent}{key}:"
            yield from _yaml_lines(value, by_path, f"{path}.")
            continue
        one = by_path[path]
        note = f", {one.note}" if one.note else ""
        yield f"{indent}{key}: {flow(value)}  # {_comment(one.setting.key)}, line {one.setting.line}{note}"


def _comment(text: str) -> str:
    """Somebody else's text, on one line of a comment."""
    return text.encode("unicode_escape").decode("ascii")[:COMMENT_CHARS_MAX]


def summary(translation: Translation) -> Iterable[str]:
    """The report, a line each."""
    total = len(translation.carried) + len(translation.left)
    yield f"{len(translation.carried)} of {total} settings carried over"
    for one in translation.carried:
        if one.note:
            yield f"line {one.setting.line}: {one.setting.key} → spec.{one.path}: {one.note}"
    for left in translation.left:
        yield f"line {left.setting.line}: {left.setting.key}: {left.why.value}: {left.reason}"
    for number in translation.unread:
        yield f"line {number}: is not key = value"
    for warning in translation.warnings:
        yield f"warning: {warning}"
