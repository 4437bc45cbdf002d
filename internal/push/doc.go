// Package push brings a slice of the fleet to a desired state, through shadows.
//
// For each thing of the slice: its shadow is read; desired is written unless it
// has all of it already; then the shadow is read until it tells what became of it.
//
//	         has it not: write            nothing of it in the delta
//	read ──┬───────────────────▶ PENDING ─────────────────────────▶ APPLIED
//	       └── has it: skip ────▶   │    ─ reported.configStatus ──▶ FAILED
//	                                │    ─ desired has it no more ─▶ SUPERSEDED
//	                                └─ until the time is over       (write refused: REFUSED)
//
// Nothing but the shadows remembers a push, so one that was interrupted is
// resumed by running it again: what is written is not written twice.
//
// A device says that it could not apply a version by reporting
//
//	{"state":{"reported":{"configStatus":{"version":V,"status":"FAILED","reason":"…"}}}}
//
// V being the version of the delta, or of the document, that it acted upon.
// docs/configuration.md is the convention at length.
package push
