"""How batches fit an engine's profiles."""

from __future__ import annotations

import pytest

from fastserve import _core, errors
from fastserve.gpu.tensorrt.layout import Layout, Profile, decide
from fastserve.gpu.tensorrt.signature import Port


def profile(index: int, least: tuple[int, ...], most: tuple[int, ...], best: tuple[int, ...] = ()) -> Profile:
    return Profile(index, {"x": least}, {"x": best or most}, {"x": most})


def fitted(
    *profiles: Profile, shape: tuple[int, ...] = (-1, 4), out: tuple[int, ...] = (-1, 2), rows: int = -1,
    allowed: tuple[int, ...] = (), dims: tuple[int, ...] = (), datatype: str = "FP32",
) -> Layout:  # fmt: skip
    ports = [Port("x", True, "FP32", shape), Port("y", False, "FP32", out)]
    given = [_core.TensorSpec("x", datatype, dims)] if dims else []
    return decide(ports, profiles, max_batch_rows=rows, allowed=allowed, given_inputs=given)


STATIC = [profile(0, (1, 4), (1, 4)), profile(1, (4, 4), (4, 4)), profile(2, (32, 4), (32, 4))]


def test_static_profiles_are_the_prepared_sizes() -> None:
    layout = fitted(*STATIC)
    assert (layout.max_batch_rows, layout.sizes) == (32, (1, 4, 32))
    assert layout.profile_of == {1: 0, 4: 1, 32: 2}


def test_fewer_rows_than_the_plan_takes() -> None:
    assert fitted(*STATIC, rows=4).sizes == (1, 4)
    with pytest.raises(
        errors.InvalidArgument, match=r"max_batch_size: 8 rows: no .* takes so many; there are 1, 4, 32"
    ):
        fitted(*STATIC, rows=8)
    with pytest.raises(errors.InvalidArgument, match="max_batch_size: got 33, want 32 or less"):
        fitted(*STATIC, rows=33)


def test_a_range_has_usual_sizes_and_exact_profiles_go_before_it() -> None:
    layout = fitted(profile(0, (1, 4), (16, 4)), profile(1, (8, 4), (8, 4)))
    assert layout.sizes == (1, 2, 3, 4, 6, 8, 12, 16)
    assert {size for size, index in layout.profile_of.items() if index == 1} == {8}


def test_the_narrower_range_goes_before_the_wider_and_then_the_nearer() -> None:
    layout = fitted(
        profile(0, (1, 4), (64, 4)), profile(1, (1, 4), (8, 4)), profile(2, (1, 4), (8, 4), (2, 4))
    )
    assert layout.profile_of[8] == 1
    assert layout.profile_of[2] == 2
    assert layout.profile_of[64] == 0


def test_a_range_that_begins_above_one_is_padded_to() -> None:
    assert fitted(profile(0, (4, 4), (8, 4))).sizes == (4, 6, 8)


def test_allowed_sizes_need_a_profile_each() -> None:
    assert fitted(*STATIC, rows=32, allowed=(4, 32)).sizes == (4, 32)
    with pytest.raises(errors.InvalidArgument, match="allowed_batch_sizes: 5 rows: no optimisation profile"):
        fitted(*STATIC, rows=32, allowed=(5, 32))
    with pytest.raises(errors.InvalidArgument, match="the last one is 4, want 32"):
        fitted(*STATIC, rows=32, allowed=(4,))


def test_a_plan_built_for_one_number_of_rows() -> None:
    one = profile(0, (8, 4), (8, 4))
    as_it_is = fitted(one, shape=(8, 4), out=(8, 2))
    assert (as_it_is.max_batch_rows, as_it_is.sizes) == (0, (1,))
    padded = fitted(one, shape=(8, 4), out=(8, 2), rows=8)
    assert (padded.max_batch_rows, padded.sizes, padded.inputs[0].shape) == (8, (8,), (-1, 4))
    with pytest.raises(errors.InvalidArgument, match="max_batch_size: got 4, want 8"):
        fitted(one, shape=(8, 4), out=(8, 2), rows=4)


def test_no_batch_dimension_where_the_outputs_do_not_follow() -> None:
    assert fitted(STATIC[0], out=(2,)).max_batch_rows == 0
    with pytest.raises(errors.InvalidArgument, match=r'want 0: outputs\["y"\] has 2 rows whatever the batch'):
        fitted(STATIC[0], out=(2,), rows=4)
    with pytest.raises(errors.InvalidArgument, match=r'want 0: outputs\["y"\] is a scalar'):
        fitted(STATIC[0], out=(), rows=4)


def test_dimensions_that_all_profiles_agree_on_are_not_free() -> None:
    layout = fitted(profile(0, (1, 4), (1, 4)), profile(1, (2, 4), (2, 4)), shape=(-1, -1))
    assert layout.inputs[0].shape == (-1, 4)
    assert layout.sizes == (1, 2)


def test_free_dimensions_prepare_nothing_unless_the_configuration_fixes_them() -> None:
    free = profile(0, (1, 2), (4, 8))
    assert fitted(free, shape=(-1, -1)).sizes == ()
    assert "free dimensions" in fitted(free, shape=(-1, -1)).free_dims()
    fixed = fitted(free, shape=(-1, -1), rows=4, dims=(-1, 8))
    assert (fixed.inputs[0].shape, fixed.sizes) == ((-1, 8), (1, 2, 3, 4))
    with pytest.raises(errors.InvalidArgument, match="allowed_batch_sizes: cannot be kept"):
        fitted(free, shape=(-1, -1), rows=4, allowed=(4,))
    with pytest.raises(errors.InvalidArgument, match=r"shape: got \[-1, 9\], want .*\[1, 2\] to \[4, 8\]"):
        fitted(free, shape=(-1, -1), rows=4, dims=(-1, 9))


def test_a_configuration_that_contradicts_the_plan() -> None:
    for more, text in [
        ({"dims": (-1, 5)}, r'inputs\["x"\].shape\[1\]: got 5 in the configuration, want 4'),
        ({"dims": (-1, 4, 1)}, r'inputs\["x"\].shape: got \[-1, 4, 1\]'),
        ({"dims": (-1, 4), "datatype": "FP16"}, r'inputs\["x"\].datatype: got FP16'),
    ]:
        with pytest.raises(errors.InvalidArgument, match=text):
            fitted(*STATIC, rows=32, **more)  # type: ignore[arg-type]
    ports = [Port("x", True, "FP32", (-1, 4)), Port("y", False, "FP32", (-1, 2))]
    for given, text in [
        ([_core.TensorSpec("z", "FP32", [-1, 4])], r'inputs\["z"\]: the plan has no such tensor, it has x'),
    ]:
        with pytest.raises(errors.InvalidArgument, match=text):
            decide(ports, STATIC, max_batch_rows=4, allowed=(), given_inputs=given)


def test_every_input_has_to_be_configured_and_an_output_need_not() -> None:
    ports = [
        Port("x", True, "FP32", (-1, 4)),
        Port("w", True, "FP32", (-1, 4)),
        Port("y", False, "FP32", (-1, 2)),
    ]
    both = Profile(0, {"x": (1, 4), "w": (1, 4)}, {"x": (4, 4), "w": (4, 4)}, {"x": (4, 4), "w": (4, 4)})
    x = _core.TensorSpec("x", "FP32", [-1, 4])
    with pytest.raises(errors.InvalidArgument, match=r'inputs\["w"\]: is missing in the configuration'):
        decide(ports, [both], max_batch_rows=4, allowed=(), given_inputs=[x])
    assert decide(ports, [both], max_batch_rows=4, allowed=()).outputs[0].name == "y"


def test_profiles_that_never_take_the_same_rows_for_all_inputs() -> None:
    ports = [
        Port("x", True, "FP32", (-1, 4)),
        Port("w", True, "FP32", (-1, 4)),
        Port("y", False, "FP32", (-1, 2)),
    ]
    apart = {"x": (8, 4), "w": (5, 4)}
    with pytest.raises(errors.InvalidArgument, match="takes the same number of rows for all inputs"):
        decide(ports, [Profile(0, apart, apart, apart)], max_batch_rows=-1, allowed=())
