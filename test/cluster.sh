#!/usr/bin/env bash
# Runs the store's suites on PostgreSQL and the end-to-end tests on two nodes over
# PostgreSQL and an external NATS server. Starts both on loopback in a temporary
# directory and ends them, by pid, when done.
set -euo pipefail
cd "$(dirname "$0")/.."

pgbin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
if [ -z "$pgbin" ]; then
  pgbin=$(dirname "$(command -v initdb || true)")
fi
[ -x "$pgbin/initdb" ] || { echo "test-cluster needs PostgreSQL's initdb and postgres (Debian: apt-get install postgresql)" >&2; exit 2; }

dir=$(mktemp -d /tmp/flotilla-cluster.XXXXXX)
chmod 755 "$dir"
as=() # PostgreSQL refuses to run as root
if [ "$(id -u)" = 0 ]; then
  chown postgres "$dir"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
nats_pid=
finish() {
  code=$?
  if [ -n "$nats_pid" ]; then kill "$nats_pid" 2>/dev/null || true; wait "$nats_pid" 2>/dev/null || true; fi
  "${as[@]}" "$pgbin/pg_ctl" -D "$dir/pg" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$dir"
  exit $code
}
trap finish EXIT

free_port() { go run ./test/freeport; }

pgport=$(free_port)
(cd "$dir" && "${as[@]}" "$pgbin/initdb" -D "$dir/pg" -A trust -U postgres >/dev/null)
(cd "$dir" && "${as[@]}" "$pgbin/pg_ctl" -D "$dir/pg" -l "$dir/pg.log" -w \
  -o "-c listen_addresses=127.0.0.1 -p $pgport -k $dir -c max_connections=200" start >/dev/null)

natsport=$(free_port)
go build -o "$dir/nats-server" github.com/nats-io/nats-server/v2
"$dir/nats-server" -a 127.0.0.1 -p "$natsport" -js -sd "$dir/nats" --user flotilla --pass cluster >"$dir/nats.log" 2>&1 &
nats_pid=$!

export FLOTILLA_TEST_POSTGRES="postgres://postgres@127.0.0.1:$pgport/postgres?sslmode=disable"
export FLOTILLA_TEST_NATS="nats://flotilla:cluster@127.0.0.1:$natsport"

go test -count=1 ./internal/store/... ./internal/registry/... ./internal/identity/... ./internal/policy/... \
  ./internal/provision/... ./internal/shadow/... ./internal/rules/... ./internal/gateway/... ./internal/iam/... \
  ./internal/jobs/... ./internal/ota/... ./internal/account/... ./internal/audit/... ./internal/function/... \
  ./internal/index/... ./internal/commands/...
go test -count=1 -v ./test/e2e/... | grep -E '^(=== NAME|--- |\s+--- FAIL|FAIL|ok|PASS|panic)|_test.go' 
