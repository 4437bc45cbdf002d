// Package object is where objects are, in buckets and under keys as S3 has them: files of a directory, or a service that
// speaks S3. Rules, jobs, streams and bulk registration share it.
package object
