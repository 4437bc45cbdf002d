package action

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"flotilla/internal/aws/iot"
)

var sqsQueue = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,80}$`)

// compileSQS makes an action that sends to the queue queueUrl: the work-queue
// stream named by the last part of the URL. A full queue takes nothing more.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/sqs-rule-action.html
func compileSQS(c *compiler, a *iot.Action) *Action {
	p := a.Sqs
	c.role(p.RoleArn)
	queue := func(s string) (string, error) {
		u, err := url.Parse(s)
		if err != nil {
			return "", fmt.Errorf("queueUrl %q is not a URL", s)
		}
		name := path.Base(u.Path)
		switch {
		case strings.HasSuffix(name, ".fifo"):
			return "", errors.New("queueUrl: FIFO queues are not supported") // nor by AWS IoT
		case !sqsQueue.MatchString(name):
			return "", fmt.Errorf("queueUrl %q does not end with the name of a queue", s)
		}
		return name, nil
	}
	check := func(s string) error { _, err := queue(s); return err }
	target := c.checked("queueUrl", p.QueueUrl, check)
	encode := value(p.UseBase64)
	return &Action{open: func(env Env) (Sink, error) {
		if env.Engines.SQS == EngineAWS {
			return onAWSSQS(env, target, encode, check)
		}
		s := &streamSink{env: env, service: "sqs", queue: true}
		s.name = func(r *Record) (string, error) { return queue(r.Fields[target]) }
		s.data = func(r *Record, to *streamed) error {
			if encode {
				to.data = base64.StdEncoding.AppendEncode(nil, r.Payload)
			}
			return nil
		}
		return s.start()
	}}
}
