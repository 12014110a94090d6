#!/usr/bin/env bash
# Prints what this commit is called: its tag (v1.2.3), or the tag before it with what came since (v1.2.3-4-gabc…), or where no tag was yet a version below all others, which grows with the
# moments of commits, as Go has them (v0.0.0-20260102030405-abc…). Changes that are in no commit make it …-dirty, and where there is no git it is "unknown".
set -euo pipefail
cd "$(dirname "$0")/../.."
# Twelve digits: how many git takes by itself depends on how much a clone has.
git describe --tags --match 'v[0-9]*' --dirty --abbrev=12 2>/dev/null ||
  { moment=$(TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd 2>/dev/null) && echo "v0.0.0-$moment-$(git describe --always --dirty --abbrev=12 --exclude='*')"; } ||
  echo unknown
