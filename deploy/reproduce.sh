#!/usr/bin/env bash
# Builds the programs of all images twice, the second time without anything of the first, and compares their digests. Prints one line a program:
# digest, bytes, name. Ends with 1 when two differ, or when one is larger than it may be.
#   deploy/reproduce.sh            all
#   deploy/reproduce.sh broker     the programs of one target
# It takes two cold builds, some ten minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(broker discovery metric task node gateway cli)
MB=1000000
limit() { # bytes that a program may have
  case $1 in
    shallot-broker) echo $((45 * MB)) ;;
    shallot-executor-wasm) echo $((60 * MB)) ;; # as its engine needs
    *) echo $((30 * MB)) ;;
  esac
}

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
digests() { # digests ROUND TARGET [OPTION...]
  local round=$1 target=$2
  shift 2
  printf 'services: {it: {image: "shallot-reproduce-%s:%s", build: {context: "%s", dockerfile: deploy/Dockerfile, target: "build-%s"}}}\n' "$target" "$round" "$PWD" "$target" >"$out/compose.yml"
  docker compose -p shallot-reproduce -f "$out/compose.yml" build -q --build-arg VERSION="${SHALLOT_VERSION:-unknown}" ${GOPROXY:+--build-arg GOPROXY="$GOPROXY"} "$@" >&2
  docker run --rm --network none --read-only --entrypoint /bin/sh "shallot-reproduce-$target:$round" -c 'cd /out && sha256sum *' >"$out/$target.$round"
}

failed=0
for t in "${targets[@]}"; do
  digests 1 "$t"
  # Another cache, so that nothing compiled comes from the first build; another moment, too.
  digests 2 "$t" --no-cache --build-arg CACHE="second-$$"
  cmp -s "$out/$t.1" "$out/$t.2" || { echo "$t: two builds differ:" >&2; diff "$out/$t.1" "$out/$t.2" >&2; failed=1; }
  while read -r digest name; do
    size=$(docker run --rm --network none --read-only --entrypoint /usr/bin/stat "shallot-reproduce-$t:2" -c %s "/out/$name")
    echo "$digest $size $name"
    ((size <= $(limit "$name"))) || { echo "$name has $size bytes and may have $(limit "$name")" >&2; failed=1; }
  done <"$out/$t.2"
  docker image rm -f "shallot-reproduce-$t:1" "shallot-reproduce-$t:2" >/dev/null
done
exit $failed
