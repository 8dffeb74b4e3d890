"""Tables and verdicts, as Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.blocks import Samples, Spread


@dataclass(frozen=True)
class Verdict:
    """One figure, and what came out."""

    figure: str
    measured: str
    meets: bool | None  # None: could not be measured here, or nothing was set
    is_set: bool = True  # the project set itself this figure

    def __str__(self) -> str:
        word = {True: "meets", False: "MISSES", None: "not measured" if self.is_set else "no figure set"}[
            self.meets
        ]
        return f"{word}: {self.figure}: {self.measured}"


def contrast(figure: str, value: Spread | None, unit: str = "") -> Verdict:
    """For the reader: nobody set a figure."""
    return Verdict(figure, f"{value}{unit}" if value else "no samples of both sides", None, is_set=False)


def at_most(figure: str, value: Spread | None, limit: float, unit: str = "") -> Verdict:
    if value is None:
        return Verdict(figure, "no samples of both sides", None)
    return Verdict(figure, f"{value}{unit}, want ≤ {limit:.3g}{unit}", value.median <= limit)


def at_least(figure: str, value: Spread | None, limit: float, unit: str = "") -> Verdict:
    if value is None:
        return Verdict(figure, "no samples of both sides", None)
    return Verdict(figure, f"{value}{unit}, want ≥ {limit:.3g}{unit}", value.median >= limit)


@dataclass
class Result:
    scenario: str
    what: str
    samples: Samples
    verdicts: list[Verdict]
    metrics: list[tuple[str, str]]  # (key of the samples, heading)
    remarks: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        parts = [f"## {self.scenario}", "", self.what, ""]
        for metric, heading in self.metrics:
            table = self._table(metric, heading)
            if table:
                parts += [*table, ""]
        parts += [f"- {verdict}" for verdict in self.verdicts]
        parts += [f"- {remark}" for remark in self.remarks]
        return "\n".join(parts) + "\n"

    def _table(self, metric: str, heading: str) -> list[str]:
        contenders = [
            name
            for name in self.samples.contenders()
            if any(self.samples.values(load, name, metric) for load in self.samples.loads())
        ]
        if not contenders:
            return []
        lines = [f"| {heading} | " + " | ".join(contenders) + " |", "|---" * (len(contenders) + 1) + "|"]
        for load in self.samples.loads():
            cells = [self.samples.spread(load, name, metric) for name in contenders]
            if any(cells):
                lines.append(f"| {load} | " + " | ".join(str(cell) if cell else "–" for cell in cells) + " |")
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "what": self.what,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "remarks": self.remarks,
            "blocks": [
                {"load": load, "contender": contender, "samples": samples}
                for (load, contender), samples in self.samples.by_block.items()
            ],
        }


def write(folder: Path, result: Result, context: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.scenario}.json"
    path.write_text(json.dumps({**context, **result.as_json()}, indent=1, ensure_ascii=False) + "\n")
    return path
