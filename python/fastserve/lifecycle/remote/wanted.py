"""Which versions of a model are worth downloading: those that its version policy serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fastserve.errors import InvalidArgument
from fastserve.lifecycle.model_config import CONFIG_FILE, read_config
from fastserve.lifecycle.model_yaml import YAML_FILE, read_model_yaml
from fastserve.lifecycle.settings import VersionPolicy

CONFIG_FILES = (CONFIG_FILE, YAML_FILE)


def wanted_versions(
    model: str,
    versions: Collection[int],
    texts: Mapping[str, str],
    host_policies: Mapping[str, tuple[int, ...]] | None = None,
) -> list[int]:
    """`texts`: the model's configuration files by name, as far as it has them. InvalidArgument: what is wrong with one."""
    policy = VersionPolicy()
    for name, read in ((CONFIG_FILE, read_config), (YAML_FILE, read_model_yaml)):
        if name in texts:
            settings, problems = read(model, texts[name], host_policies)
            if settings is None:
                raise InvalidArgument("; ".join(str(problem) for problem in problems))
            policy = settings.version_policy
    numbers = sorted(versions)
    if policy.specific:
        return [number for number in numbers if number in policy.specific]
    return numbers if policy.latest == 0 else numbers[-policy.latest :]
