"""Prometheus text format 0.0.4 of a registry.

prometheus_client's own writer puts `_total` behind the name in HELP and TYPE of every counter, which does not
go with Triton's names; here a family is announced by the name that its samples have.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Types of the text format; the others exist in OpenMetrics alone.
_TYPES = {"counter", "gauge", "histogram", "summary"}


def exposition(families: Iterable[Metric]) -> bytes:
    """The text of what a registry or a collector collects; families without samples are left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = family.samples[0].name if family.type in ("counter", "info") else family.name
        kind = family.type if family.type in _TYPES else {"info": "gauge"}.get(family.type, "untyped")
        lines.append(f"# HELP {name} {_escape_help(family.documentation)}")
        lines.append(f"# TYPE {name} {kind}")
        lines += [_line(sample) for sample in family.samples]
    return "".join(f"{line}\n" for line in lines).encode()


def _line(sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escape_label(value)}"' for key, value in sample.labels.items())
    return f"{sample.name}{f'{{{labels}}}' if labels else ''} {floatToGoString(sample.value)}"  # type: ignore[no-untyped-call]


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', '\\"')
