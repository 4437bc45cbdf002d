package action

import (
	"fmt"
	"regexp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/sql"
)

var kinesisStream = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

// maxPartitionKey is Kinesis's limit, in characters there, in bytes here.
const maxPartitionKey = 256

// compileKinesis makes an action that appends to the stream streamName, with the
// subject kinesis.<stream>.<partition key>. Without a partitionKey all messages
// have the empty one.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/kinesis-rule-action.html
func compileKinesis(c *compiler, a *iot.Action) *Action {
	p := a.Kinesis
	c.role(p.RoleArn)
	name := func(s string) error {
		if !kinesisStream.MatchString(s) {
			return fmt.Errorf("streamName %q has 1 to 128 of the characters a-z A-Z 0-9 _ . -", s)
		}
		return nil
	}
	stream := c.checked("streamName", p.StreamName, name)
	key := c.template("partitionKey", p.PartitionKey, sql.Generic)
	return &Action{open: func(env Env) (Sink, error) {
		if env.Engines.Kinesis == EngineAWS {
			return onAWSKinesis(env, stream, key, name)
		}
		s := &streamSink{env: env, service: "kinesis"}
		s.name = func(r *Record) (string, error) { return r.Fields[stream], name(r.Fields[stream]) }
		s.data = func(r *Record, to *streamed) error {
			to.key = new("")
			if key >= 0 {
				to.key = &r.Fields[key]
			}
			if len(*to.key) > maxPartitionKey {
				return fmt.Errorf("partitionKey has more than %d bytes", maxPartitionKey)
			}
			return nil
		}
		return s.start()
	}}
}
