#!/usr/bin/env bash
# Runs a command with a fresh PostgreSQL on loopback, whose URL is added as last argument:
#   bench/postgres.sh go run ./bench/shadow -reps 1 -store
# PostgreSQL's settings are its defaults; it is ended when the command is.
set -euo pipefail
pgbin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
[ -n "$pgbin" ] || pgbin=$(dirname "$(command -v initdb || true)")
[ -x "$pgbin/initdb" ] || { echo "bench/postgres.sh needs PostgreSQL's initdb and postgres (Debian: apt-get install postgresql)" >&2; exit 2; }
dir=$(mktemp -d /tmp/flotilla-bench-pg.XXXXXX)
as=() # PostgreSQL refuses to run as root
if [ "$(id -u)" = 0 ]; then
  chown postgres "$dir"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
finish() {
  code=$?
  (cd "$dir" && "${as[@]}" "$pgbin/pg_ctl" -D "$dir/pg" -m immediate -w stop >/dev/null 2>&1) || true
  rm -rf "$dir"
  exit $code
}
trap finish EXIT
port=$(go run ./test/freeport)
(cd "$dir" && "${as[@]}" "$pgbin/initdb" -D "$dir/pg" -A trust -U postgres >/dev/null)
(cd "$dir" && "${as[@]}" "$pgbin/pg_ctl" -D "$dir/pg" -l "$dir/pg.log" -w -o "-c listen_addresses=127.0.0.1 -p $port -k $dir" start >/dev/null)
"$@" "postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
