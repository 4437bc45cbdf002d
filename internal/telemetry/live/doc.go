// Package live keeps the telemetry of the last days where it can be asked for: each value of each measure, by time.
//
// A point is a value of a measure of a series at a time. A series is a database, a table, a measure and a set of
// dimensions, as in Amazon Timestream. Points lie in SQLite files, one for each day (UTC) of their own times:
//
//	<dir>/2026-11-25.db
//
//	series     id, database_name, table_name, measure, dimensions (JSON object, names in order)
//	dimension  name, value, series: which series have a dimension
//	point      series, time (ns since 1970), value, version; PRIMARY KEY (series, time)
//
// A value is an INTEGER (BIGINT), a REAL (DOUBLE), a TEXT (VARCHAR), or a BLOB of one byte, 0 or 1 (BOOLEAN).
// Of two points of one series and time the one of the higher version stays, so that writing points again
// changes nothing. One writer commits what waits together; Write returns once it is on stable storage.
//
// A day goes with its file, after KeepDays or when all files are larger than MaxBytes. A file that is damaged
// is set aside under another name.
//
// AWS: https://docs.aws.amazon.com/timestream/latest/developerguide/concepts.html
package live
