package action

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
)

var snsTopic = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,256}$`)

const (
	// headerStructure is "json" when the message is a JSON object with a text for
	// each protocol of the topic's subscribers, and "default" for the others.
	headerStructure = "Flotilla-Message-Structure"
	headerTopicARN  = "Flotilla-Topic-Arn"
)

// compileSNS makes an action that publishes to the topic targetArn: a message in
// the stream of that name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/sns-rule-action.html
func compileSNS(c *compiler, a *iot.Action) *Action {
	p := a.Sns
	c.role(p.RoleArn)
	topic := func(s string) (string, error) {
		arn, ok := aws.ParseARN(s)
		switch {
		case !ok || arn.Service != "sns":
			return "", fmt.Errorf("targetArn %q is not the ARN of an SNS topic", s)
		case strings.HasSuffix(arn.Resource, ".fifo"):
			return "", errors.New("targetArn: FIFO topics are not supported") // nor by AWS IoT
		case !snsTopic.MatchString(arn.Resource):
			return "", fmt.Errorf("targetArn %q is not the ARN of an SNS topic", s)
		}
		return arn.Resource, nil
	}
	check := func(s string) error { _, err := topic(s); return err }
	target := c.checked("targetArn", p.TargetArn, check)
	structured := false
	switch format := value(p.MessageFormat); format {
	case "", "RAW":
	case "JSON":
		structured = true
	default:
		c.refuse("messageFormat %q is neither RAW nor JSON", format)
	}
	return &Action{open: func(env Env) (Sink, error) {
		if env.Engines.SNS == EngineAWS {
			return onAWSSNS(env, target, structured, check)
		}
		s := &streamSink{env: env, service: "sns"}
		s.name = func(r *Record) (string, error) { return topic(r.Fields[target]) }
		s.data = func(r *Record, to *streamed) error {
			to.header[headerTopicARN] = []string{headerText(r.Fields[target])}
			if !structured {
				return nil
			}
			to.header[headerStructure] = []string{"json"}
			var texts map[string]json.RawMessage
			var text string
			if json.Unmarshal(r.Payload, &texts) != nil || json.Unmarshal(texts["default"], &text) != nil {
				return errors.New("invalid parameter: Message Structure - No default entry in JSON message body")
			}
			return nil
		}
		return s.start()
	}}
}
