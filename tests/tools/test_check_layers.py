"""tools/check_layers.py finds what breaks the layers, and nothing else."""

from pathlib import Path

import pytest

import check_layers


def errors_of(tmp_path: Path, files: dict[str, str]) -> list[str]:
    csrc = tmp_path / "csrc"
    for name, text in files.items():
        path = csrc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return check_layers.check(csrc)


def test_the_repository_keeps_its_layers():
    assert check_layers.check() == []


@pytest.mark.parametrize(
    ("layer", "other", "fine"),
    [
        ("tensor", "base", True),
        ("base", "tensor", False),
        ("queue", "memory", False),  # neighbours of one row
        ("memory", "queue", False),
        ("batch", "queue", True),
        ("engine", "model", True),
        ("model", "engine", False),
        ("engine", "codec", False),
        ("codec", "engine", False),
        ("codec", "sched", False),  # narrower than its row
        ("codec", "tensor", True),
        ("frontend", "codec", True),
        ("frontend", "engine", True),
        ("engine", "frontend", False),
        ("bind", "frontend", True),
        ("frontend", "bind", False),
        ("sched", "sched", True),
    ],
)
def test_direction_of_includes(tmp_path: Path, layer: str, other: str, fine: bool):
    errors = errors_of(tmp_path, {f"{layer}/a.cc": f'// first\n#include "{other}/b.h"\n'})
    expected = [] if fine else [f"csrc/{layer}/a.cc:2: layer {layer} may not include {other} ({other}/b.h)"]
    assert errors == expected


@pytest.mark.parametrize(
    ("file", "include", "fine"),
    [
        ("backend/openvino_backend.cc", "<openvino/openvino.hpp>", True),
        ("backend/identity.cc", "<openvino/openvino.hpp>", False),
        ("engine/openvino_user.cc", "<openvino/openvino.hpp>", False),
        ("backend/cuda_lane.cc", "<cuda.h>", True),
        ("memory/pinned_pool.cc", "<cuda_runtime.h>", False),
        ("backend/cuda_lane.cc", '"backend/cuda_driver.h"', True),
        ("sched/instance.cc", '"backend/cuda_driver.h"', False),
        ("memory/arena.cc", "<cuda.h>", False),
        ("codec/http2_session.cc", "<nghttp2/nghttp2.h>", True),
        ("codec/http1.cc", "<nghttp2/nghttp2.h>", False),
        ("frontend/session.cc", "<nghttp2/nghttp2.h>", False),
        ("bind/core.cc", "<pybind11/pybind11.h>", True),
        ("bind/core.cc", "<Python.h>", True),
        ("engine/engine.cc", "<Python.h>", False),
        ("backend/python_backend.cc", '"Python.h"', False),
        ("engine/engine.cc", "<simdjson.h>", False),
        ("base/log.cc", "<cstdio>", True),
    ],
)
def test_vendor_headers_stay_in_their_files(tmp_path: Path, file: str, include: str, fine: bool):
    errors = errors_of(tmp_path, {file: f"#include {include}\n"})
    assert len(errors) == (0 if fine else 1)
    if not fine:
        assert errors[0].startswith(f"csrc/{file}:1: only ")


def test_an_unknown_folder_is_not_silently_skipped(tmp_path: Path):
    assert errors_of(tmp_path, {"misc/a.h": ""}) == [
        "csrc/misc/a.h:1: misc is not a layer: add it to ROWS in tools/check_layers.py"
    ]


@pytest.mark.parametrize("include", ['"b.h"', '"../base/b.h"', "<base/b.h>"])
def test_includes_are_quoted_and_relative_to_csrc(tmp_path: Path, include: str):
    errors = errors_of(tmp_path, {"base/b.h": "", "tensor/a.h": f"#pragma once\n  #  include {include}\n"})
    assert len(errors) == 1
    assert errors[0].startswith("csrc/tensor/a.h:2: ")


def test_a_comment_is_not_an_include(tmp_path: Path):
    assert errors_of(tmp_path, {"base/a.h": '// #include "engine/engine.h"\n'}) == []


def test_exit_code_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    errors_of(tmp_path, {"base/a.h": '#include "bind/x.h"\n'})
    assert check_layers.main([str(tmp_path / "csrc")]) == 1
    assert "layers: 1 broken rules" in capsys.readouterr().out


def test_every_layer_appears_in_the_printed_table(capsys: pytest.CaptureFixture[str]):
    assert check_layers.main(["--print"]) == 0
    printed = capsys.readouterr().out
    for layer in check_layers.LAYERS:
        assert f"\n{layer} " in printed
