#!/usr/bin/env bash
# Packs the programs of one Linux platform, with all that goes along, into an archive and a Debian package:
#   deploy/release/pack.sh PROGRAMS PAPERS ARCH VERSION OUT
# PROGRAMS is a folder with the programs, PAPERS one with man/, completions/ and sbom/ (deploy/release/papers.sh). The archive unpacks over /usr/local, the package installs below /usr.
# UNITS is a folder with other units for systemd than those of this commit.
# One commit gives the same bytes whoever packs it, whenever and where: names are sorted, root owns everything, and every file is of SOURCE_DATE_EPOCH.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
programs=$1 papers=$2 arch=$3 version=$4 out=$5
: "${SOURCE_DATE_EPOCH:?the seconds since 1970 that files are of}"
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
units=${UNITS:-$top/deploy/systemd}
umask 022
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

put() { # MODE FOLDER FILE...
  local mode=$1 folder=$2
  shift 2
  install -d -m 0755 "$folder"
  install -m "$mode" -t "$folder" "$@"
}
of_the_commit() { find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +; }

# The archive: a prefix, as /usr/local is one. systemd looks below /usr/local/lib, too.
name=shallot-$version-linux-$arch
tree=$work/$name
put 0755 "$tree/bin" "$programs"/shallot*
put 0644 "$tree/share/man/man1" "$papers"/man/*.1
put 0644 "$tree/share/man/man8" "$papers"/man/*.8
cp -r --no-preserve=all "$papers/completions/." "$tree/share/"
put 0644 "$tree/lib/systemd/system" "$units"/*.service "$units/shallot.target"
install -d "$tree/lib/sysusers.d" "$tree/lib/tmpfiles.d"
install -m 0644 "$units/shallot.sysusers" "$tree/lib/sysusers.d/shallot.conf"
install -m 0644 "$units/shallot.tmpfiles" "$tree/lib/tmpfiles.d/shallot.conf"
doc=$tree/share/doc/shallot
put 0644 "$doc" "$top"/{README,SECURITY,ARCHITECTURE,CHANGELOG}.md "$top/LICENSE" "$papers/sbom/LICENCES.md"
put 0644 "$doc/sbom" "$papers"/sbom/*.cdx.json
# The pages that README names, without what makes a site of them.
mkdir "$doc/docs"
(cd "$top/docs" && find . -mindepth 1 -type d \( -name node_modules -o -name '.*' \) -prune -o -type f \( -name '*.md' -o -name '*.svg' -o -name '*.png' -o -name '*.yaml' \) -print0 |
  xargs -0 cp --no-preserve=all --parents -t "$doc/docs")
put 0644 "$doc/examples" "$units/shallot.env" "$units/broker-anonymous.conf"
# The target takes its services along when it starts: whoever does not want one masks it.
install -d "$tree/lib/systemd/system/shallot.target.wants"
for s in broker discovery metric task node gateway; do ln -s "../shallot-$s.service" "$tree/lib/systemd/system/shallot.target.wants/"; done
of_the_commit "$tree"
tar --create --sort=name --owner=0 --group=0 --numeric-owner --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
  --mtime="@$SOURCE_DATE_EPOCH" -C "$work" "$name" | gzip -n >"$out/$name.tar.gz"

# The package: the same below /usr, in Debian's places.
root=$work/package
install -d "$root/etc/shallot" "$root/DEBIAN"
cp -r "$tree" "$root/usr"
for f in "$root"/usr/lib/systemd/system/*.service "$root/usr/share/doc/shallot/examples/broker-anonymous.conf" "$root/usr/lib/systemd/system/shallot.target"; do
  sed -i 's|/usr/local/bin|/usr/bin|g' "$f"
done
gzip -n -9 "$root"/usr/share/man/man?/*.? "$root/usr/share/doc/shallot/LICENCES.md"
rm "$root/usr/share/doc/shallot/LICENSE" # /usr/share/common-licenses has it
install -d "$root/usr/share/zsh/vendor-completions"
mv "$root/usr/share/zsh/site-functions/_shallot" "$root/usr/share/zsh/vendor-completions/" && rmdir "$root/usr/share/zsh/site-functions"
install -m 0644 "$top/deploy/debian/copyright" "$root/usr/share/doc/shallot/copyright"
install -m 0640 "$units/shallot.env" "$root/etc/shallot/shallot.env"

gzip -n -9 "$root/usr/share/doc/shallot/CHANGELOG.md"

# A version of Debian's begins with a digit and grows: v1.2.3-4-gabc is 1.2.3+4.gabc, and a bare commit is ordered by its moment.
debian=${version#v}
if [[ $debian =~ ^[0-9]+\.[0-9] ]]; then debian=$(sed -E 's/-([0-9]+)-g/+\1.g/; s/-dirty$/+dirty/; s/-/~/g' <<<"$debian"); else debian=0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).${debian//-/.}; fi
# Debian's own list of changes is of another form, and is told by the people's.
cat >"$root/usr/share/doc/shallot/changelog" <<EOF
shallot ($debian) stable; urgency=medium

  * What is new is in CHANGELOG.md.gz, beside this file.

 -- $(sed -n 's/^Maintainer: //p' "$top/deploy/debian/control")  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
gzip -n -9 "$root/usr/share/doc/shallot/changelog"
install -D -m 0644 "$top/deploy/debian/lintian-overrides" "$root/usr/share/lintian/overrides/shallot"
size=$(du -sk --apparent-size "$root/usr" "$root/etc" | awk '{n += $1} END {print n}')
sed -e "s/@VERSION@/$debian/; s/@ARCH@/$arch/; s/@SIZE@/$size/" "$top/deploy/debian/control" >"$root/DEBIAN/control"
install -m 0755 "$top"/deploy/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
echo /etc/shallot/shallot.env >"$root/DEBIAN/conffiles"
(cd "$root" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
of_the_commit "$root"
dpkg-deb --root-owner-group --threads-max=1 -Zzstd -z9 --build "$root" "$out/shallot_${debian}_$arch.deb" >/dev/null
