"""What a label of versions may be, and how it is written in one line: "stable=3 canary=3:95,4:5".

A leaf: the command line reads it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from fastserve.errors import InvalidArgument

MAX_LABEL_VERSIONS = 16  # of a label: kMaxLabelVersions of csrc/model/version_label.h
MAX_WEIGHT = 1_000_000
MAX_VERSION = (1 << 63) - 1
MAX_ECHO_CHARS = 128
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")

Weights = dict[int, int]  # version -> weight


def is_label(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def weights_of(label: str, versions: Mapping[int, float]) -> Weights:
    """Whole numbers in the same proportions: {3: 0.95, 4: 0.05} is {3: 95, 4: 5}. InvalidArgument names label and value."""
    field = f'labels["{label[:MAX_ECHO_CHARS]}"]'
    if not is_label(label):
        raise InvalidArgument(
            f"{field}: want a letter, then letters, digits, '.', '_' or '-', 64 in all or fewer"
        )
    if not versions:
        raise InvalidArgument(f"{field}: names no version")
    if len(versions) > MAX_LABEL_VERSIONS:
        raise InvalidArgument(f"{field}: got {len(versions)} versions, want {MAX_LABEL_VERSIONS} or fewer")
    exact = {version: _exact(f"{field}[{version}]", weight) for version, weight in versions.items()}
    for version in versions:
        if not 0 <= version <= MAX_VERSION:
            raise InvalidArgument(f"{field}: got version {version}")
    scale = 10 ** max(max(0, -int(w.normalize().as_tuple().exponent)) for w in exact.values())
    weights = {version: int(weight * scale) for version, weight in sorted(exact.items())}
    for version, weight in weights.items():
        if weight > MAX_WEIGHT:
            many = "" if scale == 1 else f" ({weight} as a whole number)"
            raise InvalidArgument(
                f"{field}[{version}]: got weight {exact[version]}{many}, want 0 to {MAX_WEIGHT} or a fraction with fewer digits"
            )
    if not any(weights.values()):
        raise InvalidArgument(f"{field}: all weights are 0")
    return weights


def _exact(field: str, weight: float) -> Decimal:
    try:
        exact = Decimal(str(weight))
    except InvalidOperation:
        exact = Decimal("nan")
    if isinstance(weight, bool) or not exact.is_finite() or exact < 0:
        raise InvalidArgument(f"{field}: got weight {str(weight)[:MAX_ECHO_CHARS]}, want 0 to {MAX_WEIGHT}")
    if -int(exact.as_tuple().exponent) > 12:
        raise InvalidArgument(
            f"{field}: got weight {str(weight)[:MAX_ECHO_CHARS]}, want a fraction with fewer digits"
        )
    return exact


def read_labels_text(text: str) -> dict[str, dict[int, float]]:
    """ "stable=3 canary=3:95,4:5" -> {label: {version: weight}}: of a parameter in config.pbtxt and of the command line.
    ValueError says what is wrong."""
    labels: dict[str, dict[int, float]] = {}
    for entry in text.split():
        name, equals, given = entry.partition("=")
        if not equals or not given:
            raise ValueError(f"got '{entry[:MAX_ECHO_CHARS]}', want LABEL=VERSION[:WEIGHT][,VERSION:WEIGHT]")
        if name in labels:
            raise ValueError(f"label '{name[:MAX_ECHO_CHARS]}' is given twice")
        labels[name] = _versions_of(entry, given)
        try:
            weights_of(name, labels[name])
        except InvalidArgument as error:
            raise ValueError(error.message) from None
    return labels


def _versions_of(entry: str, text: str) -> dict[int, float]:
    versions: dict[int, float] = {}
    for part in text.split(","):
        number, _, weight = part.partition(":")
        if not (number.isascii() and number.isdigit() and len(number) <= 18):
            raise ValueError(f"'{entry[:MAX_ECHO_CHARS]}': got version '{number[:MAX_ECHO_CHARS]}'")
        try:
            value = float(weight) if weight else 1.0
        except ValueError:
            raise ValueError(f"'{entry[:MAX_ECHO_CHARS]}': got weight '{weight[:MAX_ECHO_CHARS]}'") from None
        if int(number) in versions:
            raise ValueError(f"'{entry[:MAX_ECHO_CHARS]}': version {number} is given twice")
        versions[int(number)] = int(value) if value.is_integer() else value
    return versions
