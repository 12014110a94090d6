#!/usr/bin/env bash
# test/fuzz.sh TIME MODULE...: every fuzz target of the modules for TIME each.
set -euo pipefail
time=$1
shift
top=$(cd "$(dirname "$0")/.." && pwd)
count=0
for m in "$@"; do
  cd "$top/$m"
  while IFS=: read -r file name; do
    pkg=./$(dirname "$file")
    echo "fuzz $m $pkg $name"
    if ! said=$(GOWORK=off go test "$pkg" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -parallel 2 2>&1); then
      # When the time is over while an input runs, go test may call that a failure (golang/go#48591). A finding names its input.
      if grep -q 'Failing input' <<<"$said" || ! grep -q 'context deadline exceeded' <<<"$said"; then
        echo "$said"
        exit 1
      fi
    fi
    grep -E '^(fuzz: elapsed|ok)' <<<"$said" | tail -1
    count=$((count + 1))
  done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . 2>/dev/null | sed 's/:func /:/' | sort)
done
echo "fuzz: $count targets"
