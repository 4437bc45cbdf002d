# What people and .ci/run call. Needs Go alone, but for test-clients, test-cluster
# and the benchmarks, which say what they miss.
GO ?= go
FUZZTIME ?= 60s

.PHONY: build test lint test-cluster test-clients fuzz generate bench-gateway bench-idle bench-endurance bench-shadow bench-provision bench-policy bench-registry bench-rules

build: ## the one static binary, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/flotilla ./cmd/flotilla

# Packages without goroutines of their own run without the race detector: it finds
# nothing there and costs minutes.
PURE := ./internal/aws/... ./internal/mqtt ./internal/policy/lang ./internal/policy/lint ./internal/rules/sql ./internal/shadow/doc ./internal/provision/template ./internal/archtest ./cmd/...
# Suites with programs that this project did not write have targets of their own.
CLIENTS := flotilla/test/clients

test: ## everything that needs Go alone
	$(GO) test -shuffle=on $(PURE)
	$(GO) test -race -timeout 30m -shuffle=on $$($(GO) list ./... | grep -vxF "$$($(GO) list $(PURE) $(CLIENTS))")

lint: ## formatting, vet, staticcheck
	@files=$$($(GO) tool gofumpt -l cmd internal test bench examples); if [ -n "$$files" ]; then echo "gofumpt would change:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

test-clients: ## AWS CLI, boto3, mosquitto, Paho, mqtt.js, AWS's device SDK and JavaScript SDK (npm) against a real server
	$(GO) test -count=1 -v ./test/clients/...

test-cluster: ## two nodes over PostgreSQL and an external NATS server
	./test/cluster.sh

fuzz: ## each fuzz target for FUZZTIME
	@GO=$(GO) FUZZTIME=$(FUZZTIME) ./test/fuzz.sh

generate: ## code and pages that are written by programs
	$(GO) generate ./...
	$(GO) run ./cmd/flotilla config-doc > docs/config.md
	$(GO) test ./internal/server -run TestCoverage -update

bench-gateway: ## server CPU per message and connect beside nats-server, mosquitto, flashmq (if on PATH) and a floor
	python3 bench/gateway.py

bench-idle: ## memory of 10,000 and 19,000 idle connections beside them
	python3 bench/gateway.py --reps 3 idle-10k idle-19k idle-plain-19k idle-wss-5k

bench-endurance: ## a million subscriptions, reconnect storm, slow clients, floods, ten minutes' soak
	python3 bench/endurance.py

bench-shadow: ## durable shadow updates through MQTT
	$(GO) run ./bench/shadow

bench-provision: ## the whole claim flow, beside the bare cost of its handshakes and signature
	$(GO) run ./bench/provision

bench-policy: ## policy decisions beside Open Policy Agent and Cedar (a module of its own: the first run downloads them), then cached ones
	cd bench/policy && $(GO) test -run TestSameAnswers -bench . -count 7
	$(GO) test -run '^$$' -bench 'AuthorizeCached|Evaluate' -count 7 ./internal/policy ./internal/policy/lang

bench-registry: ## a million things and certificates beside a thousand; bench/postgres.sh go run ./bench/registry -store does so on PostgreSQL
	$(GO) run ./bench/registry

bench-rules: ## SQL on a message, then gateway -> rule -> stream and archive, acknowledged (EKUIPER=clone: beside lf-edge/ekuiper)
	$(if $(EKUIPER),bench/rules/ekuiper.sh $(EKUIPER),$(GO) test -run '^$$' -bench Evaluate -benchmem -count 7 ./internal/rules/sql)
	$(GO) test -run '^$$' -bench BenchmarkEvaluate -benchmem -count 7 ./internal/rules
	$(GO) run ./bench/rules
	$(GO) run ./bench/rules -to firehose
	$(GO) run ./bench/rules -rate 10000
	$(GO) run ./bench/rules -rules 1000
