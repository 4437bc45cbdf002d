// Package pattern matches events against the event patterns of EventBridge rules.
//
// A pattern has the structure of the events that it selects. Its leaves are arrays
// of what a field may be: values, or comparisons such as {"prefix": "us-"}. An
// event matches when each field of the pattern does; a field that is an array in
// the event matches when one of its elements does, and of an array of objects one
// and the same object has to match all fields under it.
//
//	p, err := pattern.Parse([]byte(`{"source": ["aws.iot"], "detail": {"operation": [{"anything-but": "DELETED"}]}}`))
//	event, err := pattern.ParseEvent(data)
//	p.Match(event)
//
// The cost of a match is bounded by the size of the pattern times that of the event.
//
// AWS: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html
package pattern
