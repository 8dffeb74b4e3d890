"""Prometheus text format 0.0.4 of a registry.

prometheus_client's own writer puts `_total` behind the name in HELP and TYPE of every counter, which does not
go with Triton's names; here a family is announced by the name that its samples have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Types of the text format; the others exist in OpenMetrics alone.
_TYPES = {"counter", "gauge", "histogram", "summary"}


def exposition(families: Iterable[Metric]) -> bytes:
    """The text of what a registry or a collector collects; families without samples are left out."""
    return b"".join(pieces(families))


def pieces(families: Iterable[Metric]) -> Iterator[bytes]:
    """The same piece by piece: a loop may do other things in between. A large family may come as several in a row, which
    are announced once."""
    announced = None
    for family in families:
        if not family.samples:
            continue
        lines = [_line(sample) for sample in family.samples]
        name = family.samples[0].name if family.type in ("counter", "info") else family.name
        if name != announced:
            announced = name
            kind = family.type if family.type in _TYPES else {"info": "gauge"}.get(family.type, "untyped")
            lines[:0] = [f"# HELP {name} {_escape_help(family.documentation)}", f"# TYPE {name} {kind}"]
        lines.append("")
        yield "\n".join(lines).encode()


def _line(sample: Sample) -> str:
    value = sample.value
    number = str(value) if type(value) is int else floatToGoString(value)  # type: ignore[no-untyped-call]
    if not sample.labels:
        return f"{sample.name} {number}"
    labels = ",".join([f'{key}="{_escape_label(text)}"' for key, text in sample.labels.items()])
    return f"{sample.name}{{{labels}}} {number}"


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    if text.isprintable() and "\\" not in text and '"' not in text:  # nearly always
        return text
    return _escape_help(text).replace('"', '\\"')
