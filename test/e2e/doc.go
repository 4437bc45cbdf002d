// Package e2e holds the tests of the whole system with strangers' clients: AWS's
// SDK for Go, Eclipse Paho for MQTT 5 and 3.1.1. Each runs on one embedded node,
// and on two nodes over PostgreSQL and NATS under `make test-cluster`, device A on
// the first and device B on the second.
package e2e
