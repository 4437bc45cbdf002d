#!/bin/sh
# Evaluates one statement with lf-edge/ekuiper's own operators and with ours, in one run: ./ekuiper.sh CLONE [COUNT]
# CLONE is a clone of github.com/lf-edge/ekuiper (measured: 0014e7fab); it is left as it was but for go.mod and one
# test file. Two modules that only its SQL sources need are replaced by empty ones, lest they be downloaded.
set -eu
clone=$1 count=${2:-7}
here=$(cd "$(dirname "$0")" && pwd)
go=${GO:-go}
"$go" -C "$here/../.." test -run '^$' -bench BenchmarkEvaluate -benchmem -count "$count" ./internal/rules/sql
cp "$here/ekuiper/evaluate_test.go.txt" "$clone/internal/topo/operator/zz_evaluate_test.go"
cd "$clone"
export GOWORK=off GOFLAGS=-mod=mod
for module in gohive gomaxcompute; do
  mkdir -p ".empty/$module"
  echo "module sqlflow.org/$module" >".empty/$module/go.mod"
  "$go" mod edit -replace "sqlflow.org/$module=./.empty/$module"
done
"$go" test -run '^$' -bench BenchmarkEvaluateStatement -benchmem -count "$count" ./internal/topo/operator
