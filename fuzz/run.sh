#!/usr/bin/env bash
# Runs each fuzz target on its corpus and then on mutations of it, for a number of seconds.
# As many targets run at once as there are cores:
#
#     fuzz/run.sh                12 seconds each
#     fuzz/run.sh 3600           an hour each
#     fuzz/run.sh 3600 poll      that target alone
#
# With FUZZ_SEED the inputs are the same each time, as far as the time allows.
#
# A failing input stays in fuzz/artifacts; the command that runs it again is printed. Inputs
# that reach new code, and the log of each target, go to fuzz/work, which is not committed.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-12}
[ $# -gt 1 ] && targets=("${@:2}") || targets=(parsers json stored poll accept)

if ! command -v c++ >/dev/null; then
  echo "fuzz/run.sh: there is no C++ compiler for libFuzzer; installing the Debian package g++"
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q g++
fi

# The flags are those of cargo-fuzz without a sanitizer, so neither that tool nor a nightly
# compiler is needed; safe code has no need of a sanitizer. With a --target, build scripts
# are compiled without them.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module"
for argument in level=4 inline-8bit-counters pc-table trace-compares stack-depth; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$argument"
done
RUSTFLAGS="$flags -Cllvm-args=-simplifycfg-branch-fold-threshold=0" CARGO_TARGET_DIR=fuzz/target \
  cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host"

run() {
  local found=fuzz/artifacts/$1/ log=fuzz/work/$1.log
  mkdir -p "$found" "fuzz/work/$1"
  echo "== fuzz $1, $3 s"
  if ! "$2/$1" "fuzz/work/$1" "fuzz/corpus/$1" -artifact_prefix="$found" -dict=fuzz/http.dict \
    -max_len=4096 -timeout=10 -max_total_time="$3" -print_final_stats=1 ${FUZZ_SEED:+-seed="$FUZZ_SEED"} >"$log" 2>&1
  then
    tail -n 60 "$log"
    echo "== fuzz $1 failed; again: $2/$1 and the file that is named above"
    return 1
  fi
  echo "== fuzz $1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
}
export -f run
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} \
  bash -euo pipefail -c 'run "$@"' run {} "fuzz/target/$host/release" "$seconds"
