#!/usr/bin/env bash
# Runs each fuzz target on its corpus, and then for so many seconds on changes of it, as
# many targets at once as there are cores:
#
#     fuzz/run.sh                12 seconds each
#     fuzz/run.sh 3600           an hour each
#     fuzz/run.sh 3600 poll      that target alone
#
# What is found stays in fuzz/artifacts, with the command that runs it again. What is new
# and interesting goes to fuzz/work, which is not committed.
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

# What cargo-fuzz does without a sanitizer, of which code without `unsafe` has no need: so
# neither that tool nor a nightly compiler has to be installed. Build scripts are spared
# only if there is a --target.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module"
for argument in level=4 inline-8bit-counters pc-table trace-compares stack-depth; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$argument"
done
RUSTFLAGS="$flags -Cllvm-args=-simplifycfg-branch-fold-threshold=0" \
  CARGO_TARGET_DIR=fuzz/target \
  cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$host"

run() {
  local program=fuzz/target/$1/release/$2 found=fuzz/artifacts/$2/
  mkdir -p "$found" "fuzz/work/$2"
  "$program" "fuzz/work/$2" "fuzz/corpus/$2" -artifact_prefix="$found" \
    -dict=fuzz/http.dict -max_len=4096 -timeout=10 -max_total_time="$3" \
    -verbosity=0 -print_final_stats=1 2>&1 | sed -u "s/^/$2: /" \
    || { echo "$2: again by: $program $found<the file named above>"; return 1; }
}
export -f run
printf '%s\n' "${targets[@]}" \
  | xargs -P "$(nproc)" -I{} bash -euo pipefail -c "run $host {} $seconds"
