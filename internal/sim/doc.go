// Package sim plays the part of a fleet: devices that provision themselves, send
// telemetry and follow their shadow, and the back end that set everything up.
// It knows the server by its public face only: the AWS APIs through AWS's SDK,
// MQTT over mutual TLS, the streams over NATS.
package sim
