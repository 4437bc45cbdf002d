// Package registry keeps things and what they are sorted by: thing types, static
// thing groups, billing groups, the principals that are attached to things, and
// the tags of all resources.
//
// Its tables hold for millions of things: every list is a page of an index that
// goes on behind the last key of the page before, nothing is counted, and a page
// that filters by two criteria reads a bounded number of rows, so that it may be
// short, or empty, and still have a successor.
//
// A thing is in at most one group of a hierarchy. A group's parent never
// changes, so that its ancestors are written down with it, and a membership with
// all groups above:
//
//	thing_group         pumps ── ancestors [plant, hall]
//	thing_group_member  (pump-1, pumps)
//	thing_group_reach   (hall, pump-1) (plant, pump-1)
//
// Policies decide by things, attributes, attachments and memberships. What
// changes one of them is announced after its commit: kind "thing" with the
// thing's name, kind "principal" with the ARN of a principal or of a group.
// Memberships and groups are announced too, as kinds "membership" and "group",
// for those who follow a fleet.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/thing-registry.html
package registry
