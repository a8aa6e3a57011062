#!/usr/bin/env bash
# Runs unchanged client libraries of the standards against the example server.
#
#   bash tests/system/clients/run.sh [--server PATH] [DRIVE...]
#
# PATH is the program built from examples/server, by default the one in the target
# folder of cargo. A DRIVE is the name of a dialect; the default is all drives. The
# script needs Python 3.11 or newer, its venv, and PyPI. The packages are installed
# into a temporary folder, which is removed at the end.
set -euo pipefail

fail() {
  echo "tests/system/clients/run.sh: $*" >&2
  exit 1
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
server="${CARGO_TARGET_DIR:-$here/../../../target}/debug/server"
if [ "${1:-}" = "--server" ]; then
  server="${2:?--server needs a PATH}"
  shift 2
fi
[ -x "$server" ] || fail "there is no server at $server; build it with: cargo build -p server"
server="$(cd "$(dirname "$server")" && pwd)/$(basename "$server")"

drives=()
for name in "$@"; do
  [ -f "$here/drive_$name.py" ] || fail "there is no drive of the name $name"
  drives+=("$here/drive_$name.py")
done
[ "${#drives[@]}" -gt 0 ] || drives=("$here"/drive_*.py)

command -v python3 >/dev/null || fail "python3 is missing; install the Debian packages python3 and python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || fail "$(python3 --version) is too old; Python 3.11 or newer is needed"
python3 -c 'import venv, ensurepip' 2>/dev/null \
  || fail "Python's venv is missing; install the Debian package python3-venv"

# The client for FHIR is larger than all others together, so it is installed on demand.
requirements=requirements.txt
for drive in "${drives[@]}"; do
  case "$drive" in *drive_fhir.py) requirements=requirements-fhir.txt ;; esac
done

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
echo "installing into $folder what is in tests/system/clients/$requirements:"
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\)  *# \(.*\)$/  \1: \2/p' "$here/requirements.txt"
[ "$requirements" = requirements.txt ] || sed -n 's/^smart-fetch==.*/  &: drive_fhir.py/p' "$here/$requirements"
python3 -m venv "$folder" || fail "the venv could not be made in $folder"
# Only binary packages, because building grpcio would take longer than everything else.
"$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
  --only-binary :all: --requirement "$here/$requirements" \
  || fail "the packages of tests/system/clients/$requirements could not be installed from PyPI"

passed=0
failed=()
for drive in "${drives[@]}"; do
  if "$folder/bin/python" -B "$drive" --server "$server"; then
    passed=$((passed + 1))
  else
    failed+=("$(basename "$drive")")
  fi
done
echo "$passed passed, ${#failed[@]} failed"
[ "${#failed[@]}" -eq 0 ] || fail "failed: ${failed[*]}"
