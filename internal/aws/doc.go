// Package aws holds what every AWS API here has in common: accounts and names
// of resources, who calls, times on the wire, operations, and exceptions.
//
// The shapes and operations of the services are in its subpackages iot, iotdata
// and iotjobsdata, and those of what operators ask of this server beyond AWS's
// APIs, described in the same way, in flotilla; gen writes them from the
// interface descriptions in models.
// They are the types that the rooms speak: a room's method takes an operation's
// request, returns its response or an exception, and is the handler. What
// models call required is a value in Go; other scalars, and all structures, are
// pointers, nil when absent. Enumerations are strings, with a constant for each
// value.
package aws

//go:generate go run ./gen -out .
