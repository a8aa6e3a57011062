#!/usr/bin/env bash
# Runs every test: unit, property, model checking, documentation, examples, and
# a hundred thousand operations over loopback.
#
#   bash tests/run.sh
#
# It needs Rust, and a C compiler to link with, which it installs where it is
# missing.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
  echo "tests/run.sh: cargo is missing; install Rust 1.89 or newer (https://rustup.rs)" >&2
  exit 1
fi
if ! command -v cc >/dev/null; then
  echo "tests/run.sh: there is no C compiler to link with; installing the Debian package gcc"
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root apt-get update -q
  $as_root apt-get install -y -q gcc libc6-dev
fi

cargo test --all-features
