// Package index is fleet indexing: things and thing groups are found by what they are, what they report and whether they are
// connected.
//
//	change of a thing ── Changed ──> marks (in memory, per node) ── batch ──> index_document, index_term, index_number, index_location
//	query ── query.Parse ── compile ──> SQL over these tables
//
// A document is the values of a thing (package query); its rows are derived from them, and a change writes the difference.
// Marks are lost with a node that is killed: it is found in index_node, and everything is indexed anew in the background,
// as after a change of configuration. One node leads that.
//
// Fleet metrics are aggregations that one node evaluates again and again, for Prometheus.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-indexing.html
package index
