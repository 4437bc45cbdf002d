// Package clients tries the running server with programs that this project did
// not write: the AWS CLI, boto3, mosquitto's clients, and those of the npm
// packages in package.json. A missing program fails the test when CI is set and
// skips it otherwise.
package clients
