"""A start with many models: each is prepared for any number of rows at once, and for each size by itself once it is asked.

Preparing a small model for 1, 2, 4 ... 64 rows costs seven compilations, 12 threads and 4 MB more than one for all sizes. With a
thousand models, most of which nobody asks for a while, that is minutes. So where more than MANY_VERSIONS are loaded at the start,
those of OpenVINO are loaded with QUICK; a model that was asked is loaded again as it is meant, beside the first, as in any swap.

Pure: who loads is ModelControl, who looks is the server. Runs on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from fastserve.lifecycle.version_spec import VersionSpec

MANY_VERSIONS = 64  # at the start; fewer are loaded as they are meant
QUICK = (("prepared", "dynamic"), ("tune", "off"))  # parameters of backend openvino
LOOKS = 100  # models that are looked at in one pass
RENEWED = 2  # models that are loaded again after one pass: the loaders have other work too

WasAsked = Callable[[str, int], bool]  # model, version


class LightStart:
    def __init__(self, was_asked: WasAsked, *, many: int = MANY_VERSIONS) -> None:
        self._was_asked = was_asked
        self._many = many
        self._light: dict[
            str, tuple[int, ...]
        ] = {}  # models and versions that were loaded quickly; oldest look first

    def begin(self, models: Iterable[tuple[str, Mapping[int, VersionSpec]]]) -> None:
        """What is loaded at the start."""
        specs = {name: dict(versions) for name, versions in models}
        if sum(map(len, specs.values())) <= self._many:
            return
        for name, versions in specs.items():
            if light := tuple(v for v, spec in versions.items() if _can_be_light(spec)):
                self._light[name] = light

    def applied(self, model: str, versions: Mapping[int, VersionSpec]) -> dict[int, VersionSpec]:
        """What is to be loaded of a model now, whoever asks: as long as it is light it stays so."""
        light = self._light.get(model, ())
        return {
            number: replace(spec, parameters=tuple(sorted((*spec.parameters, *QUICK))))
            if number in light and _can_be_light(spec)
            else spec
            for number, spec in versions.items()
        }

    def take_asked(self) -> list[str]:
        """Models that are light no longer, because somebody asked them: to be loaded again, as `whole` has it."""
        found: list[str] = []
        for model in list(self._light)[:LOOKS]:
            versions = self._light.pop(model)
            if len(found) < RENEWED and any(self._was_asked(model, version) for version in versions):
                found.append(model)
            else:
                self._light[model] = versions  # behind the others
        return found

    def __len__(self) -> int:
        return len(self._light)


def whole(versions: Mapping[int, VersionSpec]) -> dict[int, VersionSpec]:
    """As their configuration means them."""
    return {
        number: replace(spec, parameters=tuple(p for p in spec.parameters if p not in QUICK))
        if set(QUICK) <= set(spec.parameters)
        else spec
        for number, spec in versions.items()
    }


def _can_be_light(spec: VersionSpec) -> bool:
    """Not where the configuration says how it is prepared, or where it is prepared once anyhow."""
    said = {name for name, _ in spec.parameters}
    return (
        spec.backend == "openvino"
        and not said & {name for name, _ in QUICK}
        and not spec.scheduling.allowed_batch_sizes
        and spec.max_batch_rows not in (0, 1)
    )
