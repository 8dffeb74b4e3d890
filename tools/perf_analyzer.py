"""`tools/dev perf-analyzer`: Triton's load generator against `fastserve serve`, a short form of every mode that we answer."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from model_repository import write_repository  # type: ignore[import-not-found]
from running_server import RunningServer  # type: ignore[import-not-found]

from perf_analyzer import CASES, missing, run  # type: ignore[import-not-found]


def main(only: list[str]) -> int:
    """`only`: words, one of which the name of a case has; none: all cases."""
    if why := missing():
        print(why, file=sys.stderr)
        return 1
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RunningServer(write_repository(folder / "models"), folder) as server:
            for case_name, case in CASES.items():
                if only and not any(word in case_name for word in only):
                    continue
                for protocol in case.protocols:
                    address = server.grpc if protocol == "grpc" else server.http
                    done = run(case, protocol, address, server.metrics, folder / "table.csv")
                    good = done.code == 0 and not done.complaints
                    last = done.output.rstrip().rpartition("\n")[2]
                    print(f"{'ok  ' if good else 'FAIL'} {protocol} {case_name}: {last}", flush=True)
                    if not good:
                        failed += 1
                        print(done.output)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
