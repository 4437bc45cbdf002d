// Package telemetry keeps messages for analysis: an archive of Parquet files.
//
// An Archive writes batches of messages to files under
//
//	<dir>/<stream>/year=2026/month=11/day=24/<source>-<first>-<last>.parquet
//
// partitioned by the day (UTC) in which the broker received them. A file appears
// under its name only whole and on stable storage. Each row carries the identity
// of its message, so that a batch that is written again after a crash leaves out
// what files already hold.
//
// Compact merges small files; a partition's manifest then tells which of its files
// count, so that readers see each row once at any moment (docs/format/archive.md).
// Query, List and Verify read an archive, also beside a server that writes it.
//
// The columns of a file come from the messages in it: members of JSON objects
// become columns, nested objects become columns named parent.child, arrays are
// JSON text; a column that holds whole numbers in one message and fractions in
// another is DOUBLE, and STRING when the types have nothing in common. All of
// them are optional. Columns that begin with flotilla_ describe the message. A stream
// may declare its columns (SchemaName); Fit tells which rows fit them.
package telemetry
