"""model.yaml -> the same Settings as a config.pbtxt: our readable spelling of a model's configuration.

It is read into the equivalent ModelConfig, which the same checks look at and clients get to see. Example and table of all
keys: README.md in this folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from pydantic import ValidationError

from fastserve import protos, scheduling
from fastserve.errors import InvalidArgument
from fastserve.label_text import weights_of
from fastserve.lifecycle import model_yaml_schema as schema
from fastserve.lifecycle.host_policy import CPU_POLICY, unknown_policy
from fastserve.lifecycle.model_config import VERSION_LABELS, ConfigReader, problems_of
from fastserve.lifecycle.pbtxt import Positions, TextError, Written
from fastserve.lifecycle.settings import Settings, VersionLabelMap
from fastserve.lifecycle.tensor_types import data_type_of
from fastserve.lifecycle.triton_gpu import GPUS
from fastserve.lifecycle.triton_scheduling import PARAMETERS
from fastserve.lifecycle.triton_write import write_scheduling
from fastserve.lifecycle.version_spec import Problem
from fastserve.lifecycle.yaml_errors import spelled, worded
from fastserve.lifecycle.yaml_lines import Path, YamlDocument, YamlError, read_yaml

YAML_FILE = "model.yaml"

# Field of ModelConfig -> key, where they differ.
_KEYS = {
    "default_model_filename": "file",
    "input": "inputs",
    "output": "outputs",
    "version_policy": "versions",
    "data_type": "datatype",
    "label_filename": "labels",
    "input_data_file": "file",
}
_NAMES = {
    "default_model_filename": "file",
    "output.label_filename": "outputs.labels",
    "version_policy.specific": "versions.specific",
    "version_policy.specific.versions": "versions.specific",
}
# Knobs of scheduling.Scheduling that stand outside the section `scheduling`.
_OUTSIDE = {"instances", "response_cache", "warm_up"}


def read_model_yaml(
    model: str, text: str, host_policies: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Settings | None, list[Problem]]:
    """`model`: the folder's name. No settings when anything is wrong; then every problem that was found."""
    try:
        document = read_yaml(text, texts=("parameters",))
    except YamlError as error:
        return None, problems_of(model, YAML_FILE, [TextError(error.line, str(error))])
    try:
        written = schema.ModelYaml.model_validate(document.data)
    except ValidationError as error:
        return None, problems_of(model, YAML_FILE, worded(error, schema.ModelYaml, document))
    spelled_scheduling = YamlScheduling(written, document, host_policies or {})
    message = _message(written)
    reader = ConfigReader(model, message, _positions(document, message), spelled_scheduling)
    errors = [*_own_errors(written, document), *reader.check()]
    if errors:
        return None, problems_of(model, YAML_FILE, errors)
    # What clients see is the whole, as Triton would spell it.
    write_scheduling(spelled_scheduling.wanted, message)
    # KIND_CPU is what a group is written as that does not say it.
    on_cpu = any(group.kind == "cpu" for group in written.instances)
    return replace(reader.settings(), version_labels=_labels(written), on_cpu=on_cpu), []


class YamlScheduling:
    """The scheduling of a document, and where its values stand."""

    def __init__(
        self, written: schema.ModelYaml, document: YamlDocument, policies: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.document = document
        self.notes: list[str] = []
        self._errors: list[TextError] = []
        self._policies = policies
        self.wanted = self._scheduling(written)

    def errors(self, max_batch_rows: int) -> Iterator[TextError]:
        yield from self._errors
        for path, text in scheduling.faults(self.wanted, max_batch_rows):
            yield self.error(path, text)
        section = ("scheduling", "max_queue_delay_us")
        if max_batch_rows == 0 and self.wanted.max_queue_delay_us:
            yield TextError(self.document.line(section), f"{spelled(section)}: needs max_batch_size above 0")

    def error(self, path: Path, text: str) -> TextError:
        keys = tuple(_KEYS.get(part, part) if isinstance(part, str) else part for part in path)
        place = keys if path[0] in _OUTSIDE else ("scheduling", *keys)
        return TextError(self.document.line(place), f"{spelled(place)}: {text}")

    def _scheduling(self, written: schema.ModelYaml) -> scheduling.Scheduling:
        section = written.scheduling
        queue = scheduling.Queue(**dict(section.queue))
        return scheduling.Scheduling(
            target_p99_ms=section.target_p99_ms,
            max_queue_delay_us=section.max_queue_delay_us,
            preferred_batch_sizes=section.preferred_batch_sizes,
            allowed_batch_sizes=section.allowed_batch_sizes,
            max_request_rows=section.max_request_rows,
            preserve_order=section.preserve_order,
            queue=queue,
            priorities=_priorities(section.priorities, queue),
            instances=tuple(
                on for index, group in enumerate(written.instances) for on in self._groups(index, group)
            ),
            response_cache=written.response_cache,
            warm_up=tuple(_warm_up(sample) for sample in written.warm_up),
        )

    def _groups(self, index: int, group: schema.Instances) -> list[scheduling.Instances]:
        """`count` instances on each of its GPUs."""
        if group.gpus and group.kind == "cpu":
            self._errors.append(self.error(("instances", index, "gpus"), "is given beside kind: cpu"))
        one = self._group(index, group)
        return [replace(one, gpu=gpu) for gpu in group.gpus] or [one]

    def _group(self, index: int, group: schema.Instances) -> scheduling.Instances:
        cpus: tuple[int, ...] = self._policies.get(group.host_policy or CPU_POLICY, ())
        if group.host_policy and group.host_policy not in self._policies:
            self.notes.append(unknown_policy(spelled(("instances", index, "host_policy")), group.host_policy))
        if group.cpus:
            if group.host_policy:
                self._errors.append(self.error(("instances", index, "cpus"), "is given beside host_policy"))
            try:
                cpus = scheduling.parse_cpus(group.cpus)
            except ValueError as error:
                self._errors.append(self.error(("instances", index, "cpus"), str(error)))
        resources = tuple(scheduling.Resource(r.name, r.count, r.is_global) for r in group.resources)
        return scheduling.Instances(group.count, group.name, cpus, resources, group.rate_priority)


def _priorities(section: schema.Priorities | None, queue: scheduling.Queue) -> scheduling.Priorities:
    if section is None:
        return scheduling.Priorities()
    queues = {}
    for level, own in sorted(section.queues.items()):
        inherited = {f.name: getattr(queue, f.name) for f in fields(scheduling.Queue)}
        queues[level] = scheduling.Queue(**inherited | own.model_dump(exclude_unset=True))
    return scheduling.Priorities(section.levels, section.default, queues)


def _warm_up(sample: schema.WarmUp) -> scheduling.WarmUp:
    inputs = {
        name: scheduling.WarmUpInput(i.datatype, i.dims, "data" if i.file else i.fill or "zero")
        for name, i in sample.inputs.items()
    }
    return scheduling.WarmUp(inputs, sample.name, sample.batch_size, sample.count)


def _own_errors(written: schema.ModelYaml, document: YamlDocument) -> Iterator[TextError]:
    versions = written.versions
    given = [versions.latest is not None, versions.specific is not None, versions.all]
    if sum(given) > 1:
        yield TextError(document.line(("versions",)), "versions: want one of latest, specific, all")
    for name in sorted((PARAMETERS | {VERSION_LABELS}) & set(written.parameters)):
        line = document.line(("parameters", name))
        where = "" if name == VERSION_LABELS else ", in `instances`" if name == GPUS else ", in `scheduling`"
        yield TextError(line, f"parameters.{name}: is a knob of its own here{where}")
    for label, weights in written.version_labels.items():
        try:
            weights_of(label, weights)
        except InvalidArgument as error:
            yield TextError(
                document.line(("version_labels", label)),
                error.message.replace("labels[", "version_labels[", 1),
            )
    for index, sample in enumerate(written.warm_up):
        for name, value in sample.inputs.items():
            if value.file and value.fill is not None:
                path = ("warm_up", index, "inputs", name)
                yield TextError(document.line(path), f"{spelled(path)}: want fill or file, got both")


def _labels(written: schema.ModelYaml) -> VersionLabelMap:
    return tuple(
        sorted((label, tuple(sorted(weights.items()))) for label, weights in written.version_labels.items())
    )


# --- the equivalent ModelConfig


def _message(written: schema.ModelYaml) -> Any:
    """Without what write_scheduling knows."""
    message = protos.message_class("inference.ModelConfig")()
    message.name, message.backend = written.name, written.backend
    message.default_model_filename = written.file
    message.max_batch_size = written.max_batch_size
    for tensor in written.inputs:
        added = message.input.add(name=tensor.name, data_type=data_type_of(tensor.datatype), dims=tensor.dims)
        if tensor.format:
            added.format = added.Format.Value(f"FORMAT_{tensor.format}")
    for output in written.outputs:
        message.output.add(
            name=output.name,
            data_type=data_type_of(output.datatype),
            dims=output.dims,
            label_filename=output.labels,
        )
    _write_versions(written.versions, message.version_policy)
    for index, group in enumerate(written.instances):
        on = message.instance_group.add(name=group.name, count=group.count)
        on.kind = on.Kind.Value("KIND_GPU" if group.gpus or group.kind == "gpu" else "KIND_CPU")
        on.host_policy = written.instances[index].host_policy
        on.gpus[:] = [int(gpu) for gpu in group.gpus if gpu.isdecimal()]
    if any(not gpu.isdecimal() for group in written.instances for gpu in group.gpus):
        # Groups have room for numbers only: clients see all of them here.
        message.parameters[GPUS].string_value = ", ".join(
            gpu for group in written.instances for gpu in group.gpus
        )
    for name, value in written.parameters.items():
        message.parameters[name].string_value = value
    for sample in written.warm_up:
        _write_warm_up(sample, message.model_warmup.add())
    return message


def _write_versions(versions: schema.Versions, policy: Any) -> None:
    if versions.all:
        policy.all.SetInParent()
    elif versions.specific is not None:
        policy.specific.SetInParent()
        policy.specific.versions[:] = versions.specific
    elif versions.latest is not None:
        policy.latest.num_versions = versions.latest


def _write_warm_up(sample: schema.WarmUp, added: Any) -> None:
    added.name, added.batch_size, added.count = sample.name, sample.batch_size, sample.count
    for name, value in sample.inputs.items():
        entry = added.inputs[name]
        entry.data_type = data_type_of(value.datatype)
        entry.dims[:] = value.dims
        if value.file:
            entry.input_data_file = value.file
        elif value.fill == "random":
            entry.random_data = True
        else:
            entry.zero_data = True


def _positions(document: YamlDocument, message: Any) -> Positions:
    """Lines of the document under the paths of ModelConfig's fields."""
    fields_of = {key: field for field, key in _KEYS.items() if field != "input_data_file"}
    found: dict[Path, Written] = {}
    for path, line in document.lines.items():
        full: list[str | int] = []
        for part in path:
            if isinstance(part, int):
                full[-1:] = [part]
            else:
                full += [fields_of.get(part, part), 0]
        found[tuple(full)] = Written(line, "")
    if ("versions", "specific") in document.lines:
        for index, _ in enumerate(message.version_policy.specific.versions):
            line = document.line(("versions", "specific", index))
            found["version_policy", 0, "specific", 0, "versions", index] = Written(line, "")
    return Positions(found, _NAMES)
