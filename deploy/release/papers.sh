#!/usr/bin/env bash
# What goes along with the programs of one platform: manual pages and completions, from what the programs say of themselves, and bills of materials with licences, from the programs themselves.
#   deploy/release/papers.sh PROGRAMS VERSION OUT [NATIVE]
# NATIVE is a folder with the same programs as they run on this machine, where PROGRAMS are of another platform.
set -euo pipefail
cd "$(dirname "$0")/../.."
programs=$(cd "$1" && pwd) version=$2 native=$(cd "${4:-$1}" && pwd)
mkdir -p "$3"
out=$(cd "$3" && pwd)
: "${SOURCE_DATE_EPOCH:?the seconds since 1970 that manual pages bear}"
export SOURCE_DATE_EPOCH GOWORK=off
(cd cli && go run ./internal/reference -man "$out/man" -programs "$native" -completions "$out/completions" -version "$version")
(cd test && go run ./cmd/sbom -out "$out/sbom" "$programs"/shallot*)
