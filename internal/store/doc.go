// Package store holds all state of a deployment in one SQL schema, on SQLite
// (one node, embedded) or on PostgreSQL (any number of nodes).
//
// All writes go through one writer goroutine that group-commits: whatever is
// waiting is run in one transaction, and each caller is answered only after
// that transaction is on stable storage. Reads run beside it on a few
// connections of their own.
//
// SQL is written once, in the subset that both engines take: TEXT, BIGINT,
// BYTEA, BOOLEAN and DOUBLE PRECISION columns, $N placeholders, ON CONFLICT ...
// DO UPDATE, RETURNING, row values for keyset pages. Times are BIGINT
// milliseconds since 1970, JSON is TEXT or BYTEA. The comment /*WITHOUT ROWID*/
// after a table's closing parenthesis makes it such a table on SQLite. A text
// column whose order or prefixes matter is declared TEXT COLLATE "C", so that
// both engines compare its bytes.
package store
