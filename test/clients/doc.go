// Package clients tries the running server with programs that this project did
// not write: the AWS CLI, boto3, mosquitto's clients, Eclipse Paho's clients for
// Go, and those of the npm packages in package.json (mqtt.js, the AWS IoT Device
// SDK v2, the AWS SDK v3), which the tests install themselves. A missing program
// fails the test when CI is set and skips it otherwise.
//
// TestMatrix plays the same scenarios with every MQTT client; a client is a kit.
package clients
