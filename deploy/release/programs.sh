#!/usr/bin/env bash
# Builds the programs of one platform: deploy/release/programs.sh OS ARCH VERSION FOLDER. Prints the engine of the wasm executor to stdout.
#
# Nothing of the machine gets into a program: no path, no time, no id of a linker. All are static: the executor too, whose engine is in C; where there is no C compiler for the
# platform it gets the engine that is in Go.
set -euo pipefail
cd "$(dirname "$0")/../.."
os=$1 arch=$2 version=$3 out=$4
mkdir -p "$out"
out=$(cd "$out" && pwd)
export GOOS=$os GOARCH=$arch GOWORK=off GOFLAGS=-buildvcs=false
# What a C compiler would be told by the environment, other machines are not.
unset CGO_CFLAGS CGO_CXXFLAGS CGO_CPPFLAGS CGO_LDFLAGS CFLAGS LDFLAGS GOAMD64 GOARM64
ldflags="-s -w -buildid= -X github.com/shallot-net/shallot/kit/version.Version=$version"

build() { # MODULE PROGRAM...: without C
  local module=$1 p
  shift
  for p in "$@"; do
    (cd "$module" && CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags "$ldflags" -o "$out/" "./cmd/$p")
  done
}
build broker shallot-broker shallot-onion
build services/discovery shallot-discovery
build services/metric shallot-metric
build services/task shallot-task
build services/node shallot-node
build gateway shallot-gateway
build cli shallot

compiler() { # the C compiler for the platform, if there is one
  [ "$os" = linux ] || return 0
  local triple=
  case $arch in amd64) triple=x86_64-linux-gnu ;; arm64) triple=aarch64-linux-gnu ;; *) return 0 ;; esac
  if [ "$(go env GOHOSTOS)/$(go env GOHOSTARCH)" = "$os/$arch" ] && command -v cc >/dev/null; then echo cc; else command -v "$triple-gcc" || true; fi
}
cc=$(compiler)
if [ -n "$cc" ]; then
  # What glibc's linker says of functions that a static program cannot have whole is about looking up users and hosts, which the executor does not.
  (cd services/task && CC=$cc CGO_ENABLED=1 CGO_CFLAGS="-O2 -ffile-prefix-map=$PWD=." go build -trimpath -tags grpcnotrace,netgo,osusergo \
    -ldflags "$ldflags -linkmode external -extldflags '-static -Wl,--build-id=none'" -o "$out/" ./cmd/shallot-executor-wasm) 2> >(grep -v -e 'statically linked applications requires' -e 'in function' -e '^# ' >&2 || true)
  echo wasmtime
else
  build services/task shallot-executor-wasm
  echo wazero
fi
