package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// Filters are the topics that ServeMQTT serves.
func Filters() []string {
	return []string{
		"$aws/commands/things/+/executions/+/response", "$aws/commands/things/+/executions/+/response/+",
		"$aws/commands/clients/+/executions/+/response", "$aws/commands/clients/+/executions/+/response/+",
	}
}

// Bounds of an answer.
const (
	maxAnswer  = 32 << 10
	maxResults = 100
)

var (
	reasonCode = regexp.MustCompile(`^[A-Z0-9_-]{1,64}$`)
	resultName = regexp.MustCompile(`^[a-zA-Z0-9:_.-]{1,64}$`)
	// decoder of strangers' CBOR.
	decoder = func() cbor.DecMode {
		m, err := cbor.DecOptions{MaxNestedLevels: 16, MaxArrayElements: 1024, MaxMapPairs: 1024, DupMapKey: cbor.DupMapKeyEnforcedAPF, TagsMd: cbor.TagsForbidden}.DecMode()
		if err != nil {
			panic("commands: " + err.Error()) // the options are constant
		}
		return m
	}()
)

// answer is what a device says of an execution.
type answer struct {
	Status       string            `json:"status" cbor:"status"`
	StatusReason *reason           `json:"statusReason" cbor:"statusReason"`
	Result       map[string]result `json:"result" cbor:"result"`
}

type reason struct {
	Code        string `json:"reasonCode" cbor:"reasonCode"`
	Description string `json:"reasonDescription" cbor:"reasonDescription"`
}

type result struct {
	S   *string `json:"s" cbor:"s"`
	B   *bool   `json:"b" cbor:"b"`
	Bin []byte  `json:"bin" cbor:"bin"`
}

// Codes of refusals.
const (
	invalidRequest  = "InvalidRequest"
	invalidState    = "InvalidStateTransition"
	terminalState   = "TerminalStateReached"
	notFound        = "ResourceNotFound"
	internalProblem = "InternalError"
)

// refusal is why an answer is not taken.
type refusal struct{ code, message string }

func (r *refusal) Error() string { return r.code + ": " + r.message }

func refuse(code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// read reads an answer.
func read(payload []byte, format string) (*answer, error) {
	if len(payload) > maxAnswer {
		return nil, refuse(invalidRequest, "An answer has at most %d bytes", maxAnswer)
	}
	a := new(answer)
	var err error
	if format == "cbor" {
		err = decoder.Unmarshal(payload, a)
	} else {
		err = json.Unmarshal(payload, a)
	}
	if err != nil {
		return nil, refuse(invalidRequest, "The payload is not a valid answer")
	}
	if r := a.StatusReason; r != nil {
		if !reasonCode.MatchString(r.Code) {
			return nil, refuse(invalidRequest, "reasonCode has 1 to 64 of A-Z, 0-9, _ and -")
		}
		if len(r.Description) > 1024 || strings.ContainsFunc(r.Description, func(c rune) bool { return c < ' ' }) {
			return nil, refuse(invalidRequest, "reasonDescription has at most 1024 characters, none a control character")
		}
	}
	if len(a.Result) > maxResults {
		return nil, refuse(invalidRequest, "A result has at most %d members", maxResults)
	}
	for name, v := range a.Result {
		n := 0
		for _, is := range []bool{v.S != nil, v.B != nil, v.Bin != nil} {
			if is {
				n++
			}
		}
		if n != 1 || !resultName.MatchString(name) {
			return nil, refuse(invalidRequest, "A member of result has a name of 1 to 64 characters and just one of s, b and bin")
		}
	}
	return a, nil
}

// ServeMQTT takes a device's answer, and answers it on the topic with /accepted or /rejected after response. It returns
// once the status is durable. An answer that is refused is told so, and is no error.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/reserved-topics.html#reserved-topics-commands
func (c *Commands) ServeMQTT(ctx context.Context, m *mqtt.Message) error {
	target, id, format, ok := parseTopic(m.Topic)
	if !ok {
		return fmt.Errorf("commands: %s: %w", m.Topic, mqtt.TopicNameInvalid)
	}
	a, err := read(m.Payload, format)
	if err == nil {
		err = c.take(ctx, target, id, a)
	}
	said := map[string]any{"executionId": id}
	outcome := "accepted"
	if err != nil {
		outcome = "rejected"
		r, refused := errors.AsType[*refusal](err)
		if !refused {
			r = &refusal{internalProblem, "The answer can't be taken now"}
		} else {
			err = nil
		}
		said["error"], said["errorMessage"] = r.code, r.message
	}
	topic := topicOf(target, id) + "response/" + outcome
	var payload []byte
	if format == "cbor" {
		var encoding error
		payload, encoding = cbor.Marshal(said)
		err = errors.Join(err, encoding)
	} else {
		payload, _ = json.Marshal(said) // of strings: it can't fail
	}
	if format != "" {
		topic += "/" + format
	}
	return errors.Join(err, c.Publisher.Publish(ctx, &mqtt.Message{Topic: topic, Payload: payload, QoS: 1, Received: c.Now()}))
}

// parseTopic takes the topic of an answer apart.
func parseTopic(topic string) (target, id, format string, ok bool) {
	p := strings.Split(topic, "/")
	if len(p) != 7 && len(p) != 8 || p[0] != "$aws" || p[1] != "commands" || p[4] != "executions" || p[6] != "response" || p[3] == "" || p[5] == "" {
		return "", "", "", false
	}
	kind, plural := strings.CutSuffix(p[2], "s")
	if len(p) == 8 {
		format = p[7]
	}
	return kind + "/" + p[3], p[5], format, plural && (kind == "thing" || kind == "client") && (format == "" || format == "json" || format == "cbor")
}

// take changes an execution as its device says.
func (c *Commands) take(ctx context.Context, target, id string, a *answer) error {
	return c.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		// Nodes that answer for the same execution wait for each other.
		n, err := tx.Exec(`UPDATE command_execution SET modified = modified WHERE target = $1 AND id = $2`, target, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return refuse(notFound, "There is no execution %s of this target", id)
		}
		e, err := selectExecution(tx, target, id)
		if err != nil {
			return err
		}
		was := e.status
		switch {
		case e.final:
			return refuse(terminalState, "The execution is %s", was)
		case !e.move(a.Status, true, c.nowMS()):
			return refuse(invalidState, "The execution is %s and can't be %.32q", was, a.Status)
		}
		e.reason, e.result = nil, nil
		if r := a.StatusReason; r != nil {
			e.reason = &iot.StatusReason{ReasonCode: r.Code, ReasonDescription: &r.Description}
		}
		for name, v := range a.Result {
			if e.result == nil {
				e.result = map[string]*iot.CommandExecutionResult{}
			}
			e.result[name] = &iot.CommandExecutionResult{S: v.S, B: v.B, BIN: v.Bin}
		}
		return errors.Join(saveExecution(tx, e), c.event(ctx, e))
	})
}
