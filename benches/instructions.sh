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

# Prints instructions and misses of one operation; each benchmark makes a thousand. Of a process
# with several threads the second argument names one.
count() {
  local file
  file=$(find "$counted" -name "callgrind.$1.thousand${2:-}.out")
  [ -n "$file" ] || { echo "benches/instructions.sh: nothing was counted for $1" >&2; return 1; }
  # The events are Ir Dr Dw I1mr …
  awk '/^(summary|totals):/ { printf "%.0f %.0f\n", $2 / 1000, $5 / 1000; exit }' "$file"
}

# Prints the committed count of this kind.
committed() {
  sed -n "s/^$1 = .*$2 = \([0-9]*\).*/\1/p" "$numbers"
}

printf '\n| an operation | instructions | committed | difference | misses | committed | difference |\n'
printf '| --- | --- | --- | --- | --- | --- | --- |\n'
written=$(sed -n '/^#/p' "$numbers")
for kind in accept accept_waiting accept_live accept_full accept_redb accept_redb_answers accept_redb_writer spawn finish poll; do
  case "$kind" in
    # The threads of the process are counted one by one, the first one with the set-up.
    accept_redb)
      read -r now misses < <(count accept_redb .t1.p1)
      read -r setup setup_misses < <(count accept_redb_nothing .t1.p1)
      now=$((now - setup)) misses=$((misses - setup_misses))
      ;;
    accept_redb_answers) read -r now misses < <(count accept_redb .t2.p1) ;;
    accept_redb_writer) read -r now misses < <(count accept_redb .t3.p1) ;;
    *) read -r now misses < <(count "$kind") ;;
  esac
  before=$(committed "$kind" instructions) misses_before=$(committed "$kind" misses)
  awk -v k="$kind" -v n="$now" -v b="$before" -v m="$misses" -v mb="$misses_before" 'BEGIN {
    printf "| %s | %d | %d | %+.1f %% | %d | %d | %s |\n",
      k, n, b, 100 * (n / b - 1), m, mb, mb ? sprintf("%+.1f %%", 100 * (m / mb - 1)) : "–"
  }'
  # The benchmark itself does not check these. The threads take turns, so the counts vary.
  if [[ "$kind" == accept_redb* ]] &&
    { [ "$now" -gt $((before * 110 / 100)) ] || [ "$misses" -gt $((misses_before * 115 / 100)) ]; }; then
    status=1
  fi
  written+=$'\n'"$kind = { instructions = $now, misses = $misses }"
done

for kind in accept_by_hand accept_by_careful_hand accept_live_by_careful_hand poll_by_hand poll_by_careful_hand; do
  read -r now misses < <(count "$kind")
  printf '| %s | %s | – | – | %s | – | – |\n' "$kind" "$now" "$misses"
done

if [ "${1:-}" = --update ]; then
  printf '%s\n' "$written" >"$numbers"
  echo "$numbers is written"
  exit 0
fi
[ "$status" = 0 ] || echo "More than the tolerance above $numbers: make it less, or update them and say why." >&2
exit "$status"
