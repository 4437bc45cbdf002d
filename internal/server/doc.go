// Package server plugs the rooms together: it is what `flotilla serve` runs.
//
// [Start] opens the data directory, the store and the bus, makes each room with
// what it needs of the others, lists every operation that has a handler
// (routes.go), and listens. [Server.Close] undoes it in reverse, draining
// connections first. Nothing here decides anything that a room should.
package server
