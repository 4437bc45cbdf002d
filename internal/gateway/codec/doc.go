// Package codec is the compact form of a Message in queues and between nodes.
//
// A message is encoded as
//
//	byte     form, 1
//	byte     flags: 1 QoS 1, 2 retain, 4 properties, 8 source, 16 recipient
//	uvarint  milliseconds since 1970 of Received; 0 when it is the zero time
//	text     topic
//	text     properties as in an MQTT 5 PUBLISH          with flag 4
//	text     client id, principal id, protocol, address  with flag 8; four texts, the address of 0, 4 or 16 bytes
//	text     recipient                                   with flag 16
//	bytes    payload, to the end
//
// where a text is its length as a uvarint, then its bytes.
package codec
