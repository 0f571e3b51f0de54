"""A list of Mizu global settings as text: what its lines are, not what they mean (callwarden.cli.mizu.translation).

Such lists are copied out of a configuration window, a database or a mail, so much is allowed: any letter case, spaces
around "=", quotes, comments, Windows line ends and encodings, sections, keys twice. Other lines are told by number.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Final

LIST_BYTES_MAX: Final = 1_000_000  # Mizu has some thousand settings of a hundred bytes.
LINES_MAX: Final = 20_000
LINE_CHARS_MAX: Final = 16_384  # The longest values are lists of addresses.

_KEY: Final = re.compile(r"[\w][\w .\-]{0,127}")
_COMMENTS: Final = ("#", ";", "//")
# A comment after a value needs a blank before it: addresses, URLs and colours hold the signs themselves.
_TRAILING_COMMENT: Final = re.compile(r"\s(?:#|//).*$")
_QUOTES: Final = "\"'"


class NotAList(Exception):
    """The file can't be read as a list of settings; the message says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line that sets something. `key` as written, `value` without quotes and comment, `line` counted from 1."""

    key: str
    value: str
    line: int

    @property
    def id(self) -> str:
        """The key as keys are compared: without letter case and blanks."""
        return canonical(self.key)


@dataclass(frozen=True, slots=True)
class SettingsList:
    """What a file says: the setting of each key that holds (the last one, as the server takes it), those that a later
    line replaces, and the lines that are none."""

    settings: tuple[Setting, ...]
    replaced: tuple[Setting, ...] = ()
    unread: tuple[int, ...] = ()


def canonical(key: str) -> str:
    return "".join(key.split()).casefold()


def parse(content: bytes) -> SettingsList:
    """Raises NotAList for what is too large, no text, or contains no setting at all."""
    if len(content) > LIST_BYTES_MAX:
        raise NotAList(f"is larger than {LIST_BYTES_MAX:,} bytes")
    lines = _text(content).splitlines()
    if len(lines) > LINES_MAX:
        raise NotAList(f"has more than {LINES_MAX:,} lines")
    last: dict[str, Setting] = {}
    replaced: list[Setting] = []
    unread: list[int] = []
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith(_COMMENTS) or (stripped[0] == "[" and stripped[-1] == "]"):
            continue
        setting = _setting(stripped, number) if len(line) <= LINE_CHARS_MAX else None
        if setting is None:
            unread.append(number)
            continue
        if (earlier := last.pop(setting.id, None)) is not None:
            replaced.append(earlier)
        last[setting.id] = setting
    if not last:
        raise NotAList("contains no line such as maxcallperip = 500")
    return SettingsList(tuple(last.values()), tuple(replaced), tuple(unread))


def _text(content: bytes) -> str:
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # What Windows calls Unicode.
    try:
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # An old code page: keys and numbers are ASCII, and comments don't matter.
    if "\0" in text:
        raise NotAList("is not text")
    return text


def _setting(line: str, number: int) -> Setting | None:
    key, equals, value = line.partition("=")
    key = _unquoted(key.strip())
    if not equals or _KEY.fullmatch(key) is None:
        return None
    return Setting(key, _value(value.strip()), number)


def _value(text: str) -> str:
    if text[:1] and text[0] in _QUOTES and (end := text.find(text[0], 1)) > 0:
        rest = text[end + 1 :]
        if rest.strip() in ("", ",", ";") or (rest[0].isspace() and rest.strip().startswith(_COMMENTS)):
            return text[1:end].strip()
    return _unquoted(_TRAILING_COMMENT.sub("", f" {text}").strip().rstrip(";").rstrip())


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] in _QUOTES and text[-1] == text[0]:
        return text[1:-1].strip()
    return text
