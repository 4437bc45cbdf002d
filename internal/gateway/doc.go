// Package gateway is the device gateway: it speaks MQTT 3.1.1 and 5.0 with devices.
//
//	accept, TLS, CONNECT     a goroutine of its own, bounded in number and time         listen.go connect.go
//	who it is                certificate, custom authorizer or the signature of an       credentials.go terms.go
//	                         access key, as domain configuration and ALPN say; how
//	                         long that holds
//	WebSocket                an HTTP upgrade, then a socket pair to an event loop        websocket.go
//	then                     the socket is parked in an event loop (netpoll): no        reactor.go
//	                         goroutine, no buffer
//	readable                 packets are parsed in the loop's buffer and served at      connection.go
//	                         once when nothing they need can block: PUBLISH with its
//	                         decision at hand, PUBACK, PINGREQ
//	may block                the connection moves to a worker, which goes on with its   worker.go
//	                         packets in their order and gives it back
//	PUBLISH                  alias, limits, policy, reserved topic, what is owed,       publish.go route.go
//	                         delivery, PUBACK
//	write                    bytes gather in the connection and leave once a turn       output.go
//
// A Session outlives its Connection when it is persistent; all persistent sessions, with
// their subscriptions, are in memory on every node, their queues in the store
// (sessionstore). A PUBACK leaves once what is owed to persistent sessions, the retained
// store and durable rule actions is committed: docs/adr/0002. Other nodes: mesh.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html
package gateway
