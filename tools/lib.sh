# Sourced by tools/demo, tools/test and tools/dev: Debian packages, .venv, the installed package.
# Every ensure_* function is cheap when there is nothing to do.
#
# The package is installed into .venv as a plain wheel, not editable: what is tested is what a user gets (package data,
# RPATHs, stubs), and a Python file added later cannot be missing from an editable install's frozen file map. A stamp
# over the inputs' sizes and times makes an unchanged tree cost nothing, and build/<wheel tag> is kept, so a change
# costs its own compilation plus about three seconds.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
STAMPS="$VENV/.fastserve"
LOGS="$ROOT/build/logs"
cd "$ROOT"

# One cache for every build folder and checkout of this user.
export CCACHE_DIR="${CCACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ccache}"
export CCACHE_BASEDIR="$ROOT" CCACHE_NOHASHDIR=1
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# noisily WHAT HOW_LONG LOG COMMAND...: says what is done and how long it takes, keeps the output in build/logs/LOG
# and shows its end only when the command fails.
noisily() {
  local what=$1 how_long=$2 log="$LOGS/$3" started=$SECONDS pid rc=0
  shift 3
  mkdir -p "$LOGS"
  say "→ $what ($how_long)"
  "$@" >"$log" 2>&1 &
  pid=$!
  trap 'kill '"$pid"' 2>/dev/null; exit 130' INT TERM
  while [ -t 2 ] && kill -0 "$pid" 2>/dev/null; do
    printf '\r  %d s ' $((SECONDS - started)) >&2
    sleep 0.5
  done
  wait "$pid" || rc=$?
  trap - INT TERM
  [ -t 2 ] && printf '\r         \r' >&2
  if [ "$rc" -ne 0 ]; then
    tail -n 60 "$log" >&2
    die "$what failed (exit code $rc); the whole output is in ${log#"$ROOT"/}"
  fi
  say "  done in $((SECONDS - started)) s"
}

debian_packages() { sed 's/#.*//' "$ROOT/tools/debian-packages.txt" | xargs -n1; }

ensure_debian() {
  local missing=() package
  command -v dpkg-query >/dev/null ||
    die "this is not Debian: install what tools/debian-packages.txt names by your own package manager"
  local installed
  # Under its name or, where the package is virtual now, under the name of one that provides it.
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package} ${Provides}\n' | sed -n 's/^installed //p' | tr -d ',' | tr ' ' '\n')
  while read -r package; do
    grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
  done < <(debian_packages)
  [ ${#missing[@]} -eq 0 ] && return 0

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "Debian packages are missing and there is no sudo here. As root, run:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    as_root=(sudo)
    say "sudo may ask for your password: apt-get installs ${missing[*]}"
    sudo -v || die "no rights to install Debian packages. As root, run:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  noisily "apt-get update" "about 10 s" apt-update.log "${as_root[@]}" apt-get -q update
  noisily "apt-get install: ${missing[*]}" "1-3 min the first time" apt-install.log \
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}"
}

# The system's interpreter first: python3-dev's headers are its.
find_python() {
  local candidate
  for candidate in ${PYTHON:-} /usr/bin/python3 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "no Python >= 3.11 with the venv module: apt-get install python3 python3-venv, or set PYTHON=..."
}

ensure_venv() {
  if [ -d "$VENV" ] && "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    mkdir -p "$STAMPS"
    return
  fi
  [ -e "$VENV" ] && die ".venv exists and does not run (moved? interpreter gone?): remove it and start again"
  local python
  python=$(find_python)
  noisily "creating .venv with $python" "a few seconds" venv.log "$python" -m venv "$VENV"
  mkdir -p "$STAMPS"
}

# ensure_requirements EXTRA...: the build requirements, the dependencies and these extras of pyproject.toml.
ensure_requirements() {
  local wanted stamp
  wanted=$("$VENV/bin/python" "$ROOT/tools/requirements.py" "$@")
  stamp="$STAMPS/requirements-$(sha256sum <<<"$wanted" | cut -c1-16)"
  [ -e "$stamp" ] && return
  printf '%s\n' "$wanted" >"$STAMPS/requirements.txt"
  noisily "installing Python packages: $*" "1-3 min the first time" pip-requirements.log \
    "$VENV/bin/python" -m pip install --progress-bar off -r "$STAMPS/requirements.txt"
  touch "$stamp"
}

build_inputs() {
  find CMakeLists.txt pyproject.toml README.md LICENSE cmake csrc protos python -type f \
    ! -path '*/__pycache__/*' -printf '%p %s %T@\n' 2>/dev/null | sort
  ls -d "$VENV"/lib/python*/site-packages/fastserve "$VENV/bin/fastserve" 2>&1
}

# Builds the package and installs it into .venv, if a source changed since the last time.
ensure_package() {
  local stamp="$STAMPS/package"
  [ -e "$stamp" ] && [ "$(build_inputs | sha256sum)" = "$(cat "$stamp")" ] && return
  rm -f "$stamp"
  local how_long="seconds for a small change"
  compgen -G "$ROOT/build/cp3*" >/dev/null || how_long="about 3 min on two cores the first time"
  noisily "building fastserve and installing it into .venv" "$how_long" package.log \
    "$VENV/bin/python" -m pip install --no-build-isolation --no-deps --force-reinstall --progress-bar off "$ROOT"
  build_inputs | sha256sum >"$stamp"
}

# ensure_all EXTRA...: everything up to .venv/bin/fastserve.
ensure_all() {
  ensure_debian
  ensure_venv
  ensure_requirements "$@"
  ensure_package
}
