"""Text protobuf with positions: the message, and in which line each of its fields was written.

google.protobuf.text_format parses and says where a syntax error is, but keeps no positions of what it accepted. The
scan below finds them; it runs on text that text_format has accepted, so it need not judge anything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# ("input", 0, "dims", 2): the third dims of the first input.
FieldPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<mark>[{}<>\[\]:,;])"""
    r"""|(?P<word>[^\s{}<>\[\]:,;"'\#]+)""",
    re.DOTALL,
)


class TextError(NamedTuple):
    line: int
    message: str


class Written(NamedTuple):
    line: int
    text: str  # of a scalar, as it stands in the file; "" for a message


class Positions:
    """Where each field was written."""

    def __init__(
        self, written: Mapping[FieldPath, Written] | None = None, names: Mapping[str, str] | None = None
    ) -> None:
        """`names`: how the file spells fields, where it is not as the schema does."""
        self._written = dict(written or {})
        self._names = dict(names or {})

    def __iter__(self) -> Iterator[tuple[FieldPath, Written]]:
        return iter(self._written.items())

    def __bool__(self) -> bool:
        return bool(self._written)

    def has(self, *path: str | int) -> bool:
        return _full(path) in self._written

    def line(self, *path: str | int) -> int:
        """Line of the field; of the nearest message around it when it was not written; 0 when there is none."""
        full = _full(path)
        while full:
            if full in self._written:
                return self._written[full].line
            full = full[:-2]
        return 0

    def name(self, field: str) -> str:
        """How the file spells a field ("default_model_filename")."""
        return self._names.get(field, field)

    def line_of_key(self, map_field: str, key: str) -> int:
        """Line of the entry with a string key in a map of the outermost message."""
        return self.line(*self.map_entry((map_field,), key), "key")

    def map_entry(self, field: tuple[str | int, ...], key: str) -> tuple[str | int, ...]:
        """Path of the entry with a key (of text or digits) in a map; of the map itself when it was not written."""
        full = _full(field)[:-1]  # without the index of the entry
        for path, written in self._written.items():
            is_key = path[: len(full)] == full and path[len(full) + 1 :] == ("key", 0)
            if is_key and written.text.strip("\"'") == key:
                return path[: len(full) + 1]
        return field


def parse(text: str, message: Any) -> tuple[Positions, list[TextError]]:
    """Fills `message` (as far as the text can be understood) and says what is wrong with the text.

    All unknown fields are reported; of other errors the first, because nothing after it can be trusted.
    """
    from google.protobuf import text_format

    try:
        text_format.Parse(text, message)
        return Positions(_scan(text)), []
    except text_format.ParseError as error:
        first = _worded(error, message.DESCRIPTOR)
    except RecursionError:
        return Positions(), [TextError(0, "messages are nested too deeply")]
    try:
        positions = Positions(_scan(text))
        unknown = list(_unknown_fields(positions, message.DESCRIPTOR))
        message.Clear()
        text_format.Parse(text, message, allow_unknown_field=True)
    except (text_format.ParseError, IndexError, RecursionError):
        message.Clear()
        return Positions(), [first]
    return positions, unknown or [first]


def _full(path: tuple[str | int, ...]) -> FieldPath:
    """Puts the index 0 behind every name that has none."""
    full: list[str | int] = []
    for part in path:
        if isinstance(part, str) and full and isinstance(full[-1], str):
            full.append(0)
        full.append(part)
    return (*full, 0) if full and isinstance(full[-1], str) else tuple(full)


def _scan(text: str) -> dict[FieldPath, Written]:
    """Raises IndexError on text that ends in the middle of a field."""
    tokens = list(_tokens(text))
    written: dict[FieldPath, Written] = {}
    counts: dict[FieldPath, int] = {}
    at = 0

    def value(parent: FieldPath, name: str, line: int) -> None:
        nonlocal at
        key = (*parent, name)
        path = (*key, counts.setdefault(key, 0))
        counts[key] += 1
        token, token_line = tokens[at]
        if token in "{<":
            written[path] = Written(line, "")
            at += 1
            fields(path)
            at += 1  # the closing bracket
            return
        written[path] = Written(token_line, token)
        at += 1
        while at < len(tokens) and tokens[at][0][0] in "\"'":  # adjacent strings are one
            at += 1

    def fields(parent: FieldPath) -> None:
        nonlocal at
        while at < len(tokens) and tokens[at][0] not in {"}", ">"}:
            name, line = tokens[at]
            at += 1
            if name in {",", ";"}:
                continue
            if tokens[at][0] == ":":
                at += 1
            if tokens[at][0] != "[":
                value(parent, name, line)
                continue
            at += 1
            while tokens[at][0] != "]":
                if tokens[at][0] == ",":
                    at += 1
                else:
                    value(parent, name, tokens[at][1])
            at += 1
            written.setdefault((*parent, name, 0), Written(line, ""))

    fields(())
    return written


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield match[0], line
        line += match[0].count("\n")


def _unknown_fields(positions: Positions, descriptor: Any) -> Iterator[TextError]:
    for path, written in positions:
        owner, names = descriptor, path[::2]
        for name in names[:-1]:
            field = owner.fields_by_name.get(name) if owner is not None else None
            owner = field.message_type if field is not None else None
        if owner is not None and names[-1] not in owner.fields_by_name:
            yield TextError(
                written.line, _unknown(str(names[-1]), str(names[-2]) if names[:-1] else "", owner)
            )


def _unknown(name: str, parent: str, owner: Any) -> str:
    place = f"{parent}." if parent else ""
    close = difflib.get_close_matches(name, owner.fields_by_name, n=1)
    return f"unknown field '{place}{name}'" + (f" (did you mean {close[0]}?)" if close else "")


def _worded(error: Any, descriptor: Any) -> TextError:
    """text_format's message without its position and its C++ type names."""
    message = re.sub(r"^\d+:\d+ : ", "", str(error)).rstrip(".")
    if found := re.search(r'Enum type "[\w.]*?(\w+)" has no value (?:named|with number) (\S+)', message):
        message = f"{found[2]} is not a value of {found[1]}"
    elif found := re.search(r'Message type "[\w.]+" has no field named "([^"]+)"', message):
        message = f"unknown field '{found[1]}'"
    elif found := re.search(r'should not have multiple "(\w+)" fields', message):
        message = f"{found[1]} is given twice"
    elif found := re.search(
        r'Field "\w+" is specified along with field "(\w+)", another member of oneof', message
    ):
        message = (
            f"only one of the kinds of one field may be given; {found[1].split('.')[-1]} is there already"
        )
    else:
        message = re.sub(r"^'.*'\s*: (?=[A-Z])", "", message)  # the line of the file, repeated
    return TextError(error.GetLine() or 0, message)
