// Package chain is how the log of changes is made tamper-evident: each record carries a hash over itself and the hash
// of the record before it, and signed heads say what the hash was at a record.
//
// Who can write to the store but does not have a node's key can't alter, remove, insert or reorder records up to the
// last signed head without [Verifier] telling. What came after the last head is chained but not signed: to have it
// cut off, or replaced as a whole, is found only with an [Anchor] that is kept elsewhere.
//
// The package is pure: no I/O, no clock, no goroutine.
package chain
