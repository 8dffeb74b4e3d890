"""Targets of tests/fuzz build from the sources that they name, and survive a few inputs (at length: tools/dev fuzz)."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INPUTS = 200

# What libFuzzer does, in short: each file that is named is an input.
DRIVER = """
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int count, char** names) {
  for (int i = 1; i < count; ++i) {
    std::ifstream file(names[i], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
}
"""


@pytest.mark.parametrize(
    "target", sorted((ROOT / "tests" / "fuzz").glob("*_fuzz.cc")), ids=lambda path: path.stem
)
def test_a_target_builds_and_runs(target: Path, tmp_path: Path) -> None:
    named = re.search(r"^// fuzz-sources: (.+)$", target.read_text(), re.M)
    assert named
    sources = [path for pattern in named[1].split() for path in sorted(ROOT.glob(pattern))]
    assert sources
    (tmp_path / "main.cc").write_text(DRIVER)
    program = tmp_path / "fuzz"
    compiler = [os.environ.get("CXX", "g++"), "-std=c++20", "-O0"]
    include = [f"-I{ROOT}/csrc", f"-I{ROOT}/tests/csrc"]
    subprocess.run([*compiler, *include, target, *sources, tmp_path / "main.cc", "-o", program], check=True)
    drawn = random.Random(1)
    inputs = [tmp_path / f"{number}" for number in range(INPUTS)]
    for path in inputs:
        path.write_bytes(drawn.randbytes(drawn.randrange(400)))
    subprocess.run([program, *inputs], check=True, timeout=60)
