#!/usr/bin/env bash
# Runs every test: unit, property, model checking, documentation, examples, and
# a hundred thousand operations over loopback, and client libraries of other vendors.
#
#   bash tests/run.sh
#
# It needs Rust, a C compiler to link with, the servers that the tests start for
# themselves, on free ports in temporary folders: PostgreSQL and Redis, and Python and
# Node. All but Rust it installs where it is missing; the packages of Python and Node go
# to a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
  echo "tests/run.sh: cargo is missing; install Rust 1.94 or newer (https://rustup.rs)" >&2
  exit 1
fi

# Installs Debian packages, and says what for.
install() {
  echo "tests/run.sh: there is no $1; installing the Debian packages: ${*:2}"
  local as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${@:2}"
}

command -v cc >/dev/null || install "C compiler to link with" gcc libc6-dev
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || install "PostgreSQL" postgresql
command -v redis-server >/dev/null || command -v valkey-server >/dev/null \
  || install "Redis" redis-server

python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  || install "Python 3.11 with venv" python3 python3-venv

command -v npm >/dev/null || install "Node" nodejs npm

cargo test --workspace --all-features

# Verifiers and signers of webhooks in other languages.
bash crates/tower-operations-webhooks/tests/verifiers/run.sh

# The clients of other vendors, unchanged, against the server that was built for that.
bash tests/system/clients/run.sh
