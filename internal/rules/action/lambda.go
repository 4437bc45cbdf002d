package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
)

// compileLambda makes an action that invokes the function functionArn asynchronously: the message is done with once the
// invocation is owed, and whether the function succeeds is no matter of the rule. The function must have a permission
// for the rule.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/lambda-rule-action.html
func compileLambda(c *compiler, a *iot.Action) *Action {
	target := c.checked("functionArn", a.Lambda.FunctionArn, func(s string) error {
		if arn, ok := aws.ParseARN(s); !ok || arn.Service != "lambda" || !strings.HasPrefix(arn.Resource, "function:") {
			return fmt.Errorf("functionArn %q is not the ARN of a function", s)
		}
		return nil
	})
	return &Action{open: func(env Env) (Sink, error) {
		if env.Functions == nil {
			return nil, errors.New("lambda: there are no functions")
		}
		return &lambdaSink{env, target}, nil
	}}
}

// lambdaSink owes invocations. target is an index of Record.Fields.
type lambdaSink struct {
	env    Env
	target int
}

// Do invokes the function of the first record with the payloads of all that follow for the same one, then goes on.
func (s *lambdaSink) Do(ctx context.Context, records []Record) (int, error) {
	done := 0
	for done < len(records) {
		arn, rule := records[done].Fields[s.target], records[done].Rule
		var payloads [][]byte
		for _, r := range records[done:] {
			if r.Fields[s.target] != arn || r.Rule != rule || !json.Valid(r.Payload) {
				break
			}
			payloads = append(payloads, r.Payload)
		}
		if payloads == nil {
			return done, Permanent(errors.New("lambda: the payload is not JSON"))
		}
		if err := s.env.Functions.InvokeEvents(aws.WithSource(ctx, s.env.Account.ARN("iot", "rule/"+rule)), arn, payloads); err != nil {
			return done, err
		}
		done += len(payloads)
	}
	return done, nil
}

func (s *lambdaSink) Resource(r *Record) string { return r.Fields[s.target] }

func (s *lambdaSink) Close() error { return nil }
