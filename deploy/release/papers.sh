#!/usr/bin/env bash
# What goes along with the programs of one platform: manual pages and completions, from the command's own texts, and bills of materials with licences, from the programs themselves.
#   deploy/release/papers.sh PROGRAMS VERSION OUT
set -euo pipefail
cd "$(dirname "$0")/../.."
programs=$(cd "$1" && pwd) version=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
: "${SOURCE_DATE_EPOCH:?the seconds since 1970 that manual pages bear}"
export SOURCE_DATE_EPOCH GOWORK=off
(cd cli && go run ./internal/reference -man "$out/man" -completions "$out/completions" -version "$version")
(cd test && go run ./cmd/sbom -out "$out/sbom" "$programs"/shallot*)
