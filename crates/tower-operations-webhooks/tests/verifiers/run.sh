#!/usr/bin/env bash
# Runs the published verifiers of Standard Webhooks for Python and Node against what this crate
# sends, and their signers against what it verifies.
#
#   bash crates/tower-operations-webhooks/tests/verifiers/run.sh
#
# The script needs cargo, Python 3.11 or newer with its venv, Node 18 or newer, npm, PyPI and the
# registry of npm. The packages are installed into a temporary folder, which is removed at the end.
set -euo pipefail

fail() {
  echo "tests/verifiers/run.sh: $*" >&2
  exit 1
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  || fail "Python 3.11 with venv is missing; install the Debian packages python3 and python3-venv"
command -v node >/dev/null && command -v npm >/dev/null \
  || fail "Node is missing; install the Debian packages nodejs and npm"

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cp "$here"/receiver.{py,js} "$here"/package.json "$folder"
echo "installing the packages standardwebhooks of PyPI and npm into $folder"
python3 -m venv "$folder/venv" || fail "the venv could not be made in $folder"
"$folder/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
  --only-binary :all: --requirement "$here/requirements.txt" \
  || fail "standardwebhooks could not be installed from PyPI"
npm install --prefix "$folder" --silent --ignore-scripts --no-audit --no-fund --no-package-lock \
  || fail "standardwebhooks could not be installed from npm"

export WEBHOOK_VERIFIERS="$folder"
cd "$here/../../../.."
# With the features of all other tests, so that nothing is built again.
cargo test --quiet --workspace --all-features --test published_verifiers
