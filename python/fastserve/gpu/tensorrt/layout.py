"""How batches fit an engine: rows, prepared sizes, and the optimisation profile for each. Pure.

A plan with one static profile (min = opt = max) for each size is best: its kernels are chosen for that size. A profile with a
range serves every size in it. A batch is padded to the next prepared size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastserve import errors
from fastserve.gpu.tensorrt.libraries import Library
from fastserve.gpu.tensorrt.signature import Port, dims_of

# Of a profile with a range, where the configuration names no sizes: a padded row is computed like any other.
_USUAL = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Profile:
    """An optimisation profile: bounds of each input that holds data, rows included."""

    index: int
    least: Shapes
    best: Shapes
    most: Shapes

    def takes(self, shapes: Shapes) -> bool:
        """Whether inputs may have these shapes; -1: any will do."""
        return all(
            dim == -1 or low <= dim <= high
            for name, shape in shapes.items()
            for low, dim, high in zip(self.least[name], shape, self.most[name], strict=True)
        )

    def rows(self) -> tuple[int, int]:
        """The fewest and the most that all inputs take."""
        return max(s[0] for s in self.least.values()), min(s[0] for s in self.most.values())

    def waste(self, shapes: Shapes) -> tuple[int, int]:
        """How far it is from being made for them: the least is the best. Its width first."""
        width = sum(h - low for n in shapes for low, h in zip(self.least[n], self.most[n], strict=True))
        away = sum(abs(b - d) for n, s in shapes.items() for b, d in zip(self.best[n], s, strict=True))
        return width, away


@dataclass(frozen=True)
class Layout:
    """`inputs`, `outputs`: -1 in front where the model batches, and where a size is free."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    profiles: tuple[Profile, ...]
    max_batch_rows: int
    sizes: tuple[
        int, ...
    ]  # to prepare; (): every batch runs with its own rows; (1,) without a batch dimension
    profile_of: Mapping[int, int]  # size -> profile

    @property
    def batches(self) -> bool:
        return self.max_batch_rows > 0

    def shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        """Of the inputs that hold data."""
        return {p.name: self.with_rows(p.shape, rows) for p in self.inputs if not p.of_shapes}

    def with_rows(self, shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
        return (rows, *shape[1:]) if self.batches else shape

    def best_profile(self, shapes: Shapes) -> int:
        """InvalidArgument: there is none for such inputs."""
        fitting = [profile for profile in self.profiles if profile.takes(shapes)]
        if not fitting:
            raise errors.InvalidArgument(_no_profile(self.profiles, shapes))
        return min(fitting, key=lambda profile: profile.waste(shapes)).index

    def free_dims(self) -> str:
        """Why there is nothing to capture: inputs whose size the rows do not fix; "" = none."""
        front = 1 if self.batches else 0
        for port in self.inputs:
            if -1 in port.shape[front:]:
                return f"{port.field} has free dimensions {list(port.shape)}"
        return ""


def read_profiles(
    library: Library, engine: Any, ports: Iterable[Port], wanted: Sequence[int]
) -> list[Profile]:
    """Those of the plan that are wanted, () = all. InvalidArgument: parameters["profiles"]: there are ..."""
    count = engine.num_optimization_profiles
    if wanted and wanted[-1] >= count:
        raise errors.InvalidArgument(
            f'parameters["profiles"]: got {wanted[-1]}, but the plan has profiles 0 to {count - 1}'
        )
    names = [port.name for port in ports if port.is_input and not port.of_shapes]
    profiles = []
    for index in wanted or range(count):
        bounds = {
            name: [dims_of(dims) for dims in engine.get_tensor_profile_shape(name, index)] for name in names
        }
        if short := [name for name, three in bounds.items() if len(three) != 3]:
            raise errors.Internal(f"{library.text}: profile {index} says nothing about input '{short[0]}'")
        least, best, most = ({name: three[i] for name, three in bounds.items()} for i in range(3))
        profiles.append(Profile(index, least, best, most))
    return profiles


def decide(
    ports: Sequence[Port],
    profiles: Sequence[Profile],
    *,
    max_batch_rows: int,
    allowed: Sequence[int],
    given_inputs: Sequence[Any] = (),
    given_outputs: Sequence[Any] = (),
) -> Layout:
    """`max_batch_rows`, `allowed`, `given_*`: the configuration's (-1 and () = not said), as in LoadSpec. InvalidArgument: it
    does not go with the plan."""
    rows = _rows(ports, profiles, max_batch_rows)
    inputs, outputs = (
        _configured([port for port in ports if port.is_input == side], given, rows > 0)
        for side, given in ((True, given_inputs), (False, given_outputs))
    )
    inputs = [_pinned(port, profiles, rows > 0) for port in inputs]
    layout = Layout(tuple(inputs), tuple(outputs), tuple(profiles), rows, (), {})
    if rows == 0:
        if layout.free_dims():
            return layout
        return replace(layout, sizes=(1,), profile_of={1: layout.best_profile(layout.shapes(1))})
    if layout.free_dims():
        if allowed:
            raise errors.InvalidArgument(f"allowed_batch_sizes: cannot be kept, because {layout.free_dims()}")
        return layout
    sizes = _sizes(layout, allowed)
    return replace(
        layout, sizes=sizes, profile_of={size: layout.best_profile(layout.shapes(size)) for size in sizes}
    )


def _rows(ports: Sequence[Port], profiles: Sequence[Profile], asked: int) -> int:
    """The most rows of a batch; 0: no batch dimension."""
    if asked == 0:
        return 0
    fixed, obstacle = _obstacle(ports)
    if obstacle:
        if asked > 0:
            raise errors.InvalidArgument(f"max_batch_size: got {asked}, want 0: {obstacle}")
        return 0
    spans = [profile.rows() for profile in profiles]
    if all(low > high for low, high in spans):
        raise errors.InvalidArgument("no optimisation profile takes the same number of rows for all inputs")
    most = fixed or max(high for low, high in spans if low <= high)
    if asked < 0:
        return 0 if fixed else most
    if fixed and asked != fixed:
        raise errors.InvalidArgument(
            f"max_batch_size: got {asked}, want {fixed}: the plan is built for that alone"
        )
    if asked > most:
        raise errors.InvalidArgument(
            f"max_batch_size: got {asked}, want {most} or less: no optimisation profile takes more rows"
        )
    return asked


def _obstacle(ports: Sequence[Port]) -> tuple[int, str]:
    """(rows that the plan has for good, why there is no batch dimension)."""
    if of_shapes := [port for port in ports if port.of_shapes]:
        return 0, f"{of_shapes[0].field} is a shape tensor, which belongs to a batch as a whole"
    if scalar := [port for port in ports if not port.shape]:
        return 0, f"{scalar[0].field} is a scalar"
    fronts = {port.shape[0] for port in ports}
    if fronts == {-1}:
        return 0, ""
    if len(fronts) == 1:
        return fronts.pop(), ""
    odd = next(port for port in ports if port.shape[0] != -1)
    return 0, f"{odd.field} has {odd.shape[0]} rows whatever the batch"


def _configured(ports: list[Port], given: Sequence[Any], batches: bool) -> list[Port]:
    """With what the configuration says about their dimensions."""
    if not given:
        return [_free_rows(port, batches) for port in ports]
    by_name = {tensor.name: tensor for tensor in given}
    names = ", ".join(port.name for port in ports)
    side = "inputs" if ports[0].is_input else "outputs"
    if unknown := [name for name in by_name if name not in {port.name for port in ports}]:
        raise errors.InvalidArgument(f'{side}["{unknown[0]}"]: the plan has no such tensor, it has {names}')
    if side == "inputs" and (missing := [port.name for port in ports if port.name not in by_name]):
        raise errors.InvalidArgument(
            f'{side}["{missing[0]}"]: is missing in the configuration; the plan has {names}'
        )
    return [
        _merged(_free_rows(port, batches), by_name[port.name], batches)
        if port.name in by_name
        else _free_rows(port, batches)
        for port in ports
    ]


def _free_rows(port: Port, batches: bool) -> Port:
    return replace(port, shape=(-1, *port.shape[1:])) if batches else port


def _merged(port: Port, tensor: Any, batches: bool) -> Port:
    if tensor.datatype != port.datatype:
        raise errors.InvalidArgument(
            f"{port.field}.datatype: got {tensor.datatype} in the configuration, want {port.datatype}"
        )
    asked = tuple(tensor.shape)
    if len(asked) != len(port.shape):
        raise errors.InvalidArgument(
            f"{port.field}.shape: got {list(asked)} in the configuration, want {list(port.shape)}"
        )
    front = 1 if batches else 0
    for i, (got, want) in enumerate(zip(asked, port.shape, strict=True)):
        if i >= front and got != want and -1 not in {got, want}:
            raise errors.InvalidArgument(
                f"{port.field}.shape[{i}]: got {got} in the configuration, want {want}"
            )
    return replace(port, shape=tuple(w if g == -1 else g for g, w in zip(asked, port.shape, strict=True)))


def _pinned(port: Port, profiles: Sequence[Profile], batches: bool) -> Port:
    """Dimensions that every profile has the same size for are that size, although the engine calls them free."""
    if not port.is_input or port.of_shapes:
        return port
    front = 1 if batches else 0
    shape = list(port.shape)
    for i in range(front, len(shape)):
        bounds = {dim for p in profiles for dim in (p.least[port.name][i], p.most[port.name][i])}
        if shape[i] == -1 and len(bounds) == 1:
            shape[i] = bounds.pop()
    return replace(port, shape=tuple(shape))


def _sizes(layout: Layout, allowed: Sequence[int]) -> tuple[int, ...]:
    """Ascending, the last one max_batch_rows."""
    most = layout.max_batch_rows
    fits = [profile for profile in layout.profiles if profile.takes(layout.shapes(-1))]
    if not fits:
        raise errors.InvalidArgument(_no_profile(layout.profiles, layout.shapes(-1)))
    taken = [(low, high) for low, high in (profile.rows() for profile in fits) if low <= high]
    if allowed:
        if allowed[-1] != most:
            raise errors.InvalidArgument(
                f"allowed_batch_sizes: the last one is {allowed[-1]}, want {most}, the most rows of a batch"
            )
        for size in allowed:
            if not any(low <= size <= high for low, high in taken):
                raise errors.InvalidArgument(f"allowed_batch_sizes: {size} rows: {_there_are(taken)}")
        return tuple(allowed)
    exact = {low for low, high in taken if low == high}
    ranges = [(low, high) for low, high in taken if low < high]
    usual = {size for size in (*_USUAL, most) if any(low <= size <= high for low, high in ranges)}
    sizes = sorted(size for size in {*exact, *usual, *(low for low, _ in ranges)} if size <= most)
    if not sizes or sizes[-1] != most:
        raise errors.InvalidArgument(f"max_batch_size: {most} rows: {_there_are(taken)}")
    return tuple(sizes)


def _there_are(taken: Iterable[tuple[int, int]]) -> str:
    spans = ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in sorted(set(taken)))
    return f"no optimisation profile of the plan takes so many; there are {spans}"


def _no_profile(profiles: Iterable[Profile], shapes: Shapes) -> str:
    """Names the first input that no profile takes."""
    profiles = list(profiles)
    for name, shape in shapes.items():
        if not any(profile.takes({name: shape}) for profile in profiles):
            spans = ", ".join(f"{list(p.least[name])} to {list(p.most[name])}" for p in profiles)
            return (
                f'inputs["{name}"].shape: got {list(shape)}, want what an optimisation profile takes: {spans}'
            )
    got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return f"inputs: no optimisation profile takes {got} together"
