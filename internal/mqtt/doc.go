// Package mqtt is the vocabulary of MQTT 3.1.1 and 5.0 as AWS IoT Core speaks it.
//
// Packets are decoded from byte slices ([Next], [Decode], [Publish.Parse]) and encoded
// by appending to them; nothing here does I/O, starts a goroutine or reads a clock.
// Topic names and filters follow AWS's limits and its one difference from the
// standard: the filter a/# does not match the topic a. [Trie] finds the filters that
// match a topic, [Mux] the handler of a reserved one.
//
// MQTT 3.1.1: https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html
// MQTT 5.0: https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html
package mqtt
