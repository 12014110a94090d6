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
    GOWORK=off go test "$pkg" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -parallel 2
    count=$((count + 1))
  done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . 2>/dev/null | sed 's/:func /:/' | sort)
done
echo "fuzz: $count targets"
