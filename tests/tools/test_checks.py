"""The counting of tools/test: what it sums must be what the runners said."""

from pathlib import Path

import pytest

import checks
import requirements

PASSING = """[==========] Running 3 tests from 1 test suite.
[==========] 3 tests from 1 test suite ran. (0 ms total)
[  PASSED  ] 3 tests.
"""
MIXED = """[==========] 5 tests from 1 test suite ran. (0 ms total)
[  PASSED  ] 2 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] A.b
[  FAILED  ] 2 tests, listed below:
[  FAILED  ] A.c
[  FAILED  ] A.d
"""


def test_gtest_counts():
    assert checks.gtest_counts(PASSING, 0) == checks.Counts(3, 0, 0)
    assert checks.gtest_counts(MIXED, 1) == checks.Counts(2, 2, 1)


def test_a_crash_or_a_sanitizer_report_counts_as_failed():
    assert checks.gtest_counts("[ RUN      ] A.b\n", -11) == checks.Counts(0, 1, 0)
    assert checks.gtest_counts(PASSING, 66) == checks.Counts(3, 1, 0)


def test_failure_lines_leave_out_what_passed():
    output = (
        "[ RUN      ] A.b\n[       OK ] A.b (0 ms)\n[ RUN      ] A.c\nx.cc:1: Failure\n[  FAILED  ] A.c\n"
    )
    assert checks.failure_lines(output) == ["x.cc:1: Failure", "[  FAILED  ] A.c"]


def test_junit_counts(tmp_path: Path):
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>')
    assert checks.junit_counts(report) == checks.Counts(3, 3, 3)


def test_every_test_runs_once():
    """Beside each other or alone; and what a user asks for goes to one pytest as it is."""
    (_, beside), (_, alone) = checks.pytest_runs([])
    assert beside[beside.index("-m") + 1] == f"not {alone[alone.index('-m') + 1]}"
    assert "-n" not in alone
    assert checks.pytest_runs(["-k", "health"]) == [("pytest.xml", ["tests", "-k", "health"])]
    assert checks.pytest_runs(["tests/tools", "-x"]) == [("pytest.xml", ["tests/tools", "-x"])]


def test_the_last_line():
    assert str(checks.Counts(7, 0)) == "7 passed, 0 failed"
    assert str(checks.Counts(7, 1, 2)) == "7 passed, 1 failed, 2 skipped"


def test_a_failed_build_counts_as_one_failed(capsys: pytest.CaptureFixture[str]):
    def broken() -> checks.Counts:
        raise checks.StepFailed("no compiler")

    outcome = checks.run_step(checks.Step("cpp", "C++", broken))
    assert (outcome.ok, outcome.counts) == (False, checks.Counts(failed=1))
    assert "no compiler" in capsys.readouterr().out


def test_requirements_resolve_the_projects_own_extras():
    listed = requirements.requirements(["dev"])
    assert not [line for line in listed if line.startswith("fastserve")]
    assert "numpy>=1.26" in listed
    # The plug-in is linked against one release of OpenVINO: build and run must name the same one.
    assert [line for line in listed if line.startswith("openvino")] == ["openvino==2026.4.1"]


def test_an_unknown_extra_is_named():
    with pytest.raises(SystemExit, match="nonsense"):
        requirements.requirements(["nonsense"])
