// Package sessionstore holds what MQTT sessions leave behind in the store.
//
// A session has a row by its client id: who holds the connection (a node and an
// epoch that rises with each), until when it lives, and the will that is owed
// after a crash. A session that outlives its connection has a number, by which
// the store knows its subscriptions and its queue. Client ids whose connections
// leave nothing behind may have a row too, as a lease and for the epoch, which
// stays known for an hour.
//
// A queue holds QoS 1 messages, a row each; the owner deletes it after the
// client's PUBACK. When a message is owed to many sessions its body is stored
// once; bodies without rows are collected later by Expire. Queues are bounded:
// Reserve refuses a message before anything of it is written.
//
// Of messages on one topic that have a place (mqtt.Message) only the last stays in the
// queue of a session whose client is not connected.
//
// A shared subscription with persistent members has a number and a queue of its
// own, for messages that come while no member is connected: members Claim them,
// and give back what they have not acknowledged when they disconnect.
//
// # Several nodes
//
// Every node writes to every queue. The connection of a client id belongs to
// one node, fenced by its epoch: what an earlier holder does comes to nothing
// (ErrFenced). Counters of queues are exact on SQLite; with several nodes they are
// estimates that are corrected against the store, so that a queue may exceed its
// bound by a quarter for each other node.
package sessionstore
