"""Operations of a PyTorch program that draw random numbers. Pure: nothing is run.

A captured CUDA graph that draws would have to be told a new seed before every launch, which only torch's own `replay` does:
launched from elsewhere it would repeat the same numbers for ever. So the GPU lane refuses such programs (fastserve.gpu.torch).
Source: the tag `nondeterministic_seeded` of torch's operators. Dropout with p = 0 or outside of training has it and draws
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_SCHEMA = re.compile(r"(\w+)::(\w+)(?:\.(\w+))?\(")
_UNKNOWN = object()  # the value of an argument that is computed


def of_exported(torch: Any, program: Any) -> str:
    """The first such operation of a torch.export program ("aten.bernoulli.p"), its submodules' included; "" = none."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            if node.op == "call_function" and _is_seeded(torch, node.target):
                given = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False))
                if _draws(node.target, given | dict(node.kwargs), torch.fx.Node):
                    return str(node.target)
    return ""


def of_script(torch: Any, module: Any) -> str:
    """The same of a TorchScript module in eval mode. One with several `forward`s cannot be looked through."""
    graph = getattr(module, "inlined_graph", None)
    for node in _nodes(graph) if graph is not None else ():
        found = _SCHEMA.match(node.schema()) if "::" in node.kind() else None
        operator = _operator(torch, *found.groups()) if found else None
        if operator is None or not _is_seeded(torch, operator):
            continue
        names = [argument.name for argument in operator._schema.arguments]
        given = {name: _constant(value) for name, value in zip(names, node.inputs(), strict=False)}
        if _draws(operator, given, type(_UNKNOWN)):
            return str(operator)
    return ""


def _is_seeded(torch: Any, operator: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(operator, "tags", ())


def _draws(operator: Any, given: dict[str, Any], unknown: type) -> bool:
    """Whether it does with these arguments, of which some are only known when it runs."""
    values = {a.name: a.default_value for a in operator._schema.arguments if a.has_default_value()} | given
    for name in ("train", "training"):
        if values.get(name, True) is False:
            return False
    chances = [values[name] for name in ("dropout_p", "dropout", "p") if name in values]
    return not any(not isinstance(chance, unknown) and chance == 0 for chance in chances)


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _operator(torch: Any, namespace: str, name: str, overload: str | None) -> Any:
    try:
        return getattr(getattr(getattr(torch.ops, namespace), name), overload or "default")
    except (AttributeError, RuntimeError):
        return None  # prim::..., or a class of the program's own


def _constant(value: Any) -> Any:
    """Of an argument: a constant of the program, or the flag `training`, which is off in eval mode."""
    node = value.node()
    if node.kind() == "prim::GetAttr" and node.s("name") == "training":
        return False
    return value.toIValue() if node.kind() == "prim::Constant" else _UNKNOWN
