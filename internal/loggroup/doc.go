// Package loggroup keeps groups of log events in files, as CloudWatch Logs does in its groups.
//
// A group is a directory, named as the group is with + for each / in it; in it are files of
// JSON lines {"timestamp", "ingestionTime", "message"}, times in milliseconds since 1970.
// current.jsonl is being written; when it has Config.FileBytes it gets the name of its
// place in time, and the oldest file goes when there are more than Config.Files.
// Groups are of one node.
package loggroup
