"""What commands print: tables, proto-JSON, YAML, names."""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import click
import yaml
from google.protobuf import json_format, timestamp_pb2
from google.protobuf.message import Message

ItemT = TypeVar("ItemT")

_STRUCT: Final = "google.protobuf.Struct"


@dataclass(frozen=True, slots=True)
class Column(Generic[ItemT]):
    """One column of a table.

    Attributes:
        title: Its heading.
        of: What it says about an item; an empty text is shown as `-`.
        wide: It is shown by `-o wide` only.
    """

    title: str
    of: Callable[[ItemT], str]
    wide: bool = False


def table(columns: Sequence[Column[ItemT]], items: Sequence[ItemT]) -> str:
    """Return aligned lines, the first one the headings; trailing blanks are cut."""
    rows = [[column.title for column in columns]]
    rows += [[_cell(column.of(item)) for column in columns] for item in items]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell(text: str) -> str:
    return clean(text) or "-"


def clean(text: str) -> str:
    """Return a text that neither breaks the line nor moves the cursor: a service says it."""
    return "".join(c if c.isprintable() else " " for c in text)


def to_dict(message: Message) -> dict[str, Any]:
    """Return proto-JSON: lowerCamelCase, enums by name, 64-bit integers as text.

    A Struct has only floating numbers, and no order: a port is 80 again, and a document reads the
    same each time.
    """
    content: dict[str, Any] = json_format.MessageToDict(message)
    if message.DESCRIPTOR.full_name == _STRUCT:
        return _tidy(content)  # type: ignore[no-any-return]  # a mapping stays one
    for resource in content.get("resources", ()):
        if "spec" in resource:
            resource["spec"] = _tidy(resource["spec"])
    return content


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tidy(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_json(message: Message | Mapping[str, Any]) -> str:
    """Return proto-JSON, indented."""
    return json.dumps(_plain(message), indent=2, ensure_ascii=False)


def as_yaml(message: Message | Mapping[str, Any]) -> str:
    """Return the proto-JSON of a message as YAML."""
    text: str = yaml.safe_dump(_plain(message), sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def _plain(message: Message | Mapping[str, Any]) -> Mapping[str, Any]:
    return to_dict(message) if isinstance(message, Message) else message


def show(message: Message | Mapping[str, Any], output: str) -> bool:
    """Print a message as json or yaml; returns whether the output is one of them.

    A mapping is printed as what it is: of proto-JSON too.
    """
    if output == "json":
        click.echo(as_json(message))
    elif output == "yaml":
        click.echo(as_yaml(message))
    else:
        return False
    return True


def age(created: timestamp_pb2.Timestamp, now: datetime.datetime) -> str:
    """Return how long ago something was created, in its largest unit; empty when not known."""
    if not created.seconds:
        return ""
    return seconds_text(max(0, int(now.timestamp()) - created.seconds))


def seconds_text(seconds: int) -> str:
    """Return a time in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        # Two of a unit before it is used: 90 s says more than 1m.
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def elapsed(milliseconds: int) -> str:
    """Return how long something took: `87ms`, `1.2s`, `3m`."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 120_000:
        return f"{milliseconds / 1000:.1f}s"
    return seconds_text(milliseconds // 1000)


def size(size_bytes: int) -> str:
    """Return a size in its largest decimal unit: `1.4kB`, `16.0MB`."""
    if size_bytes < 1000:
        return f"{size_bytes}B"
    amount = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        # What rounds to 1000.0 is one of the next unit.
        if amount < 999.95:
            return f"{amount:.1f}{unit}"
    return f"{amount / 1000:.1f}TB"


def moment(timestamp: timestamp_pb2.Timestamp) -> str:
    """Return a time in UTC to the millisecond (RFC 3339); empty when not known."""
    if not timestamp.seconds:
        return ""
    when = datetime.datetime.fromtimestamp(timestamp.seconds, datetime.UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{timestamp.nanos // 1_000_000:03}Z"


def now() -> datetime.datetime:
    """Return the present."""
    return datetime.datetime.now(datetime.UTC)
