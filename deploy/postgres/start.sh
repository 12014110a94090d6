#!/bin/bash
# Makes the database of a node where there is none, and serves it over TLS. What it is given as arguments goes to postgres.
set -euo pipefail
data=/var/lib/postgresql/data/${PG_MAJOR:-15} # a later major version must not find these files: they are brought over with pg_upgrade or a backup
tls=/var/lib/shallot/tls

volume=/var/lib/postgresql/data
[[ -w $volume ]] || {
  echo "shallot-postgres: cannot write to $volume, which belongs to user $(stat -c %u "$volume"), and this process is user $(id -u): give the volume away (chown -R $(id -u):$(id -g)), or mount it so that it can be written" >&2
  exit 1
}
if [[ ! -d $data ]]; then
  # Whole or not at all: who is killed here begins anew.
  rm -rf "$data.new"
  # An empty database in place of one that is there would be a node without its tasks.
  for other in "${data%/*}"/*/PG_VERSION; do
    [[ ! -e $other ]] || { echo "shallot-postgres: the volume has a database of PostgreSQL $(<"$other"), and this is ${PG_MAJOR:-15}: run that version and make a backup, then restore it into a new volume" >&2; exit 1; }
  done
  initdb -D "$data.new" -U postgres -E UTF8 --locale=C.UTF-8 --data-checksums --auth-local=peer --auth-host=reject >/dev/null
  postgres --single -D "$data.new" postgres >/dev/null <<'SQL'
CREATE ROLE shallot LOGIN
CREATE DATABASE shallot OWNER shallot
SQL
  mv "$data.new" "$data"
  sync "$data" /var/lib/postgresql/data
fi

# postgres reads certificates when it is told to. They are links through one that turns when there are new ones.
(
  have=$(readlink "$tls/..data")
  while sleep 5; do
    now=$(readlink "$tls/..data" || true)
    [[ -n $now && $now != "$have" ]] || continue
    pg_ctl reload -D "$data" >&2 && have=$now
  done
) &

exec postgres -D "$data" -c config_file=/etc/shallot/postgresql.conf "$@"
