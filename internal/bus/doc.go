// Package bus is the mesh between nodes and the stream for consumers: NATS,
// embedded in the process by default or an external cluster.
//
// It carries three things: news of what changed (Changed, OnChange), by which
// caches follow the store; the gateway's traffic between nodes (Conn); and the
// streams that rules feed (JetStream). It holds no state that the store does not.
package bus
