#!/usr/bin/env bash
# Makes all that a release of this commit is, in OUT (dist/release): archives and Debian packages for Linux, checksums, bills of materials, and NOTES.md, which says what is what.
#   deploy/release/release.sh OUT VERSION
# PLATFORMS and CHECKED, words such as linux/amd64, say what is packed and what is only seen to compile. The same commit gives the same bytes: `make test-release` builds it twice.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$1 version=$2
read -ra platforms <<<"${PLATFORMS-linux/amd64 linux/arm64}"
read -ra checked <<<"${CHECKED-darwin/arm64 darwin/amd64 freebsd/amd64}"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null)} ||
  { echo "make release needs to know when the commit was made: do it in a clone, or set SOURCE_DATE_EPOCH to the seconds since 1970" >&2; exit 1; }
export SOURCE_DATE_EPOCH
command -v dpkg-deb >/dev/null || { echo "make release needs dpkg-deb; Debian has it, elsewhere: the package dpkg" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
made=$work/release # OUT is whole, or as it was
mkdir "$made"
step() { printf '%s %s\n' "$(date -u +%H:%M:%S)" "$*" >&2; }
for p in "${platforms[@]}"; do
  [[ $p = linux/* ]] || { echo "$p cannot be packed, only Linux can: give it in CHECKED" >&2; exit 1; }
done
# Manual pages are what programs say of themselves, so that those of this machine are needed whatever is packed.
here=$(go env GOHOSTOS)/$(go env GOHOSTARCH)
native=$work/${here#*/}/bin
step "build $here"
engine_here=$(deploy/release/programs.sh "${here%/*}" "${here#*/}" "$version" "$native")
engines=()
for p in "${platforms[@]}"; do
  arch=${p#*/}
  if [ "$p" = "$here" ]; then
    engine=$engine_here
  else
    step "build $p"
    engine=$(deploy/release/programs.sh linux "$arch" "$version" "$work/$arch/bin")
  fi
  engines+=("$p: $engine")
  step "papers of $p"
  deploy/release/papers.sh "$work/$arch/bin" "$version" "$work/$arch/papers" "$native" >&2
  step "pack $p"
  deploy/release/pack.sh "$work/$arch/bin" "$work/$arch/papers" "$arch" "$version" "$made"
done
for p in "${checked[@]}"; do
  step "compile $p"
  deploy/release/programs.sh "${p%/*}" "${p#*/}" "$version" "$work/checked" >/dev/null
  rm -rf "$work/checked"
done
{
  printf '# Shallot %s\n\n' "$version"
  printf 'Programs are static: they need nothing of the system that they run on but its kernel.\n\n'
  printf -- '- `shallot-%s-linux-ARCH.tar.gz`: unpack with `tar -xzf FILE -C /usr/local --strip-components=1`, then `/usr/local/lib/systemd/system/shallot.target` says how to go on, or just `shallot dev`.\n' "$version"
  printf -- '- `shallot_*_ARCH.deb`: `apt-get install ./FILE`, for Debian 12 or later and its like. Nothing starts by itself: look through `/etc/shallot/shallot.env`, then `systemctl enable --now shallot.target`.\n'
  printf -- '- `SHA256SUMS`: `sha256sum --check --ignore-missing SHA256SUMS`. The same commit, built by the same Go and C compiler, gives the same sums: `make release`.\n\n'
  printf 'The documentation, bills of materials (CycloneDX) and the licences of all parts are in `share/doc/shallot`, manual pages and completions for bash, zsh and fish beside it.\n\n'
  printf 'WebAssembly is run by wasmtime, or by wazero, which is 1 to 4 times slower on whole programs and is used where no C compiler for the platform was there:\n\n'
  printf -- '- %s\n' "${engines[@]}"
  if [ ${#checked[@]} -gt 0 ]; then
    printf '\nThe programs compile for these, without the sandbox of Linux (namespaces, seccomp) and without any test there, so there are no packages for them:\n\n'
    printf -- '- %s\n' "${checked[@]}"
  fi
  printf '\nBuilt by %s' "$(go env GOVERSION)"
  command -v cc >/dev/null && printf ' and %s' "$(cc --version | head -1)"
  printf '.\n'
} >"$made/NOTES.md"
(cd "$made" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS)
rm -rf "$out"
mkdir -p "$(dirname "$out")"
mv "$made" "$out"
step "done: $out"
ls -l "$out" >&2
