// Package audit keeps the log of changes: who changed what by the API, when, from where, and what came of it.
//
// [Log.Begin] is called before an operation that changes something; whatever it writes to the store then commits
// together with its record, so that no acknowledged change is without one. What was denied, or changed nothing, is
// recorded by [Log.End] before the answer leaves. Records of a node form a hash chain, whose heads are signed at
// intervals with the node's key (package chain). ADR 0011 has the reasons.
package audit
