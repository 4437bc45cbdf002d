// Package sim plays the part of a fleet: devices that enrol, send telemetry, follow their shadows and do jobs, with the
// back end that set everything up. A Story is one pass of all that, whose counts must add up; a Fleet lives for a time by a
// Scenario, with links that go and come back, and is held to what it was promised at the end.
//
// It knows the server by its public face only: the AWS APIs over SigV4, MQTT over mutual TLS, the streams over NATS.
package sim
