#!/usr/bin/env bash
# Runs each fuzz target on its corpus, and then for so many seconds on changes of it:
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

if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "installing cargo-fuzz 0.13.2"
  cargo install --locked --quiet cargo-fuzz --version 0.13.2
fi

# Without sanitizers, since nothing here is unsafe: so it is no matter of a nightly compiler.
for target in "${targets[@]}"; do
  mkdir -p "fuzz/work/$target"
  printf '\n== fuzz %s, %s s\n' "$target" "$seconds"
  cargo fuzz run --sanitizer none "$target" "fuzz/work/$target" "fuzz/corpus/$target" -- \
    -dict=fuzz/http.dict -max_len=4096 -timeout=10 -max_total_time="$seconds" \
    -verbosity=0 -print_final_stats=1
done
