#!/usr/bin/env bash
# Counts the instructions of an accept, a poll and a finish, prints them beside the
# committed counts, and fails if they exceed these by more than the tolerance.
#
#   bash benches/instructions.sh
#   bash benches/instructions.sh --update   # writes benches/instructions.toml
#
# Installs valgrind and gungraun-runner if they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
  echo "benches/instructions.sh: there is no valgrind; installing the Debian package"
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q valgrind libc6-dbg
fi

# The version of the runner has to be that of the library.
version=$(grep -A1 '^name = "gungraun"$' Cargo.lock | sed -n 's/^version = "\(.*\)"$/\1/p')
if [ "$(gungraun-runner --version 2>/dev/null)" != "gungraun-runner $version" ]; then
  echo "benches/instructions.sh: installing gungraun-runner $version"
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --quiet --debug gungraun-runner --version "$version"
  PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi

counted="${CARGO_TARGET_DIR:-target}/gungraun"
numbers=benches/instructions.toml
rm -rf "$counted"
status=0
cargo bench --quiet -p tower-operations-instructions || status=$?

# Prints the count of one operation; each benchmark makes a thousand.
count() {
  local file
  file=$(find "$counted" -name "callgrind.$1.thousand.out")
  [ -n "$file" ] || { echo "benches/instructions.sh: nothing was counted for $1" >&2; return 1; }
  awk '/^(summary|totals):/ { printf "%.0f\n", $2 / 1000; exit }' "$file"
}

printf '\n| instructions | counted | committed | difference |\n| --- | --- | --- | --- |\n'
written="# Instructions an operation, by valgrind; made by \`bash benches/instructions.sh --update\`.
# A poll takes up to 4 % more where its body, of more than a kibibyte, lies worse in the heap,
# which the length of the program's path decides: the dearer of some runs belongs here."
for kind in accept accept_waiting accept_full spawn finish poll; do
  now=$(count "$kind")
  before=$(sed -n "s/^$kind = //p" "$numbers")
  awk -v k="$kind" -v n="$now" -v b="$before" \
    'BEGIN { printf "| %s | %d | %d | %+.1f %% |\n", k, n, b, 100 * (n / b - 1) }'
  written+=$'\n'"$kind = $now"
done

for kind in accept_by_hand accept_by_careful_hand poll_by_hand poll_by_careful_hand; do
  printf '| %s | %s | – | – |\n' "$kind" "$(count "$kind")"
done

if [ "${1:-}" = --update ]; then
  printf '%s\n' "$written" >"$numbers"
  echo "$numbers is written"
  exit 0
fi
[ "$status" = 0 ] || echo "More than the tolerance above $numbers: make it less, or update them and say why." >&2
exit "$status"
