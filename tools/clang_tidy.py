"""Runs clang-tidy over csrc/, in parallel and only where something changed since it was last clean.

    python tools/clang_tidy.py build/release [FILE...]

A file's key is the hash of .clang-tidy, of itself and of every header of csrc/ that it reaches; the key of a
clean run is kept in build/clang-tidy/. Exit code 1 when a check found something.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
STAMPS = ROOT / "build" / "clang-tidy"
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)


@cache
def own_headers(path: Path) -> frozenset[Path]:
    """The headers of csrc/ that a file includes, directly or not."""
    reached: set[Path] = set()
    waiting = [path]
    while waiting:
        for name in INCLUDE.findall(waiting.pop().read_text(errors="replace")):
            header = CSRC / name
            if header.exists() and header not in reached:
                reached.add(header)
                waiting.append(header)
    return frozenset(reached)


def key(path: Path) -> str:
    digest = hashlib.sha256((ROOT / ".clang-tidy").read_bytes())
    for part in [path, *sorted(own_headers(path))]:
        digest.update(str(part.relative_to(ROOT)).encode() + b"\0" + part.read_bytes())
    return digest.hexdigest()


def check(path: Path, build: Path) -> str:
    """Empty when clean, else what clang-tidy said."""
    stamp = STAMPS / str(path.relative_to(ROOT)).replace("/", "__")
    wanted = key(path)
    if stamp.exists() and stamp.read_text() == wanted:
        return ""
    done = subprocess.run(
        ["clang-tidy", "-p", str(build), "--quiet", str(path)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode == 0:
        stamp.write_text(wanted)
        return ""
    stamp.unlink(missing_ok=True)
    return done.stdout or done.stderr


def main(argv: list[str]) -> int:
    build = (ROOT / argv[0]).resolve()
    entries = json.loads((build / "compile_commands.json").read_text())
    sources = sorted({Path(entry["file"]) for entry in entries})
    wanted = [Path(name).resolve() for name in argv[1:]]
    sources = [path for path in sources if path.is_relative_to(CSRC) and (not wanted or path in wanted)]
    STAMPS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = [text for text in pool.map(lambda path: check(path, build), sources) if text]
    print("\n".join(findings))
    print(f"clang-tidy: {len(sources)} files, {len(findings)} with findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
