#!/usr/bin/env bash
# test/all.sh BIN RACE MODULE...: all tests of the modules, against the programs in BIN. RACE is -race, or empty where there is no C compiler.
#
# Two lanes run side by side: the module test, whose networks of real processes mostly wait, and all the others. In the module test what takes longest begins first, so that nothing
# long is left alone at the end. vet is left to `make lint`, which runs it over every file.
set -euo pipefail
bin=$1 race=$2
shift 2
top=$(cd "$(dirname "$0")/.." && pwd)
failed=$(mktemp)
trap 'rm -f "$failed"' EXIT
export GOWORK=off SHALLOT_BIN=$bin
SHALLOT_BIN_SUM=$(cat "$bin"/shallot* "$bin"/examples/* | cksum)
export SHALLOT_BIN_SUM

# run NAME MODULE ARGUMENT...: go test in a module.
run() {
  local name=$1 module=$2
  shift 2
  echo "== test $name"
  (cd "$top/$module" && go test -vet=off -timeout 20m "$@") || echo "$name" >>"$failed"
}

# What is left out under the race detector, because it follows too few goroutines or because arithmetic takes ten times as long, and memory that it would add to. Built as
# `make build` builds, so that nothing is compiled for it alone.
without_race() {
  [ -n "$race" ] || return 0
  CGO_ENABLED=0 run "test: simulated networks and the judge of links, without the race detector" test -tags grpcnotrace -trimpath ./netsim ./internal/linkage
  CGO_ENABLED=0 run "broker: idle memory, without the race detector" broker -tags grpcnotrace -trimpath -run TestIdleMemory ./internal/adapter/repository
}

long() {
  run test test $race ./suite ./failclosed ./docs ./hostile ./interop ./faults ./leak ./...
}

others() {
  for m in "$@"; do
    [ "$m" = test ] || run "$m" "$m" $race ./...
  done
  without_race
}

long &
lane=$!
others "$@"
wait "$lane" || echo "the lane of the module test" >>"$failed"
[ ! -s "$failed" ] || { echo "failed: $(paste -sd ';' "$failed")" >&2; exit 1; }
