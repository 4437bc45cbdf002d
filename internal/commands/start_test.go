package commands_test

import (
	"errors"
	"strings"
	"testing"

	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/commands"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// A token is of one request: another target does not get what it is told that it gets.
func TestClientToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		w.create("c", "x", "")
		w.create("other", "x", "")
		start := func(command, target string, timeout *int64) (string, error) {
			out, err := w.StartCommandExecution(w.ctx, &iotjobsdata.StartCommandExecutionRequest{
				CommandArn: arn + "command/" + command, TargetArn: arn + target, ClientToken: new("t"), ExecutionTimeoutSeconds: timeout,
			})
			if err != nil {
				return "", err
			}
			return *out.ExecutionId, nil
		}
		requests := func() (n int) {
			for _, m := range w.said() {
				if strings.Contains(m.Topic, "/request") {
					n++
				}
			}
			return n
		}
		w.fail = errors.New("a queue is full")
		if _, err := start("c", "thing/lamp", nil); err == nil {
			t.Fatal("it was not sent")
		}
		if _, err := start("c", "thing/lamp", nil); err == nil {
			t.Fatal("again it was not sent")
		}
		w.fail = nil
		id := ok[string](t)(start("c", "thing/lamp", nil))
		if n := requests(); n != 1 {
			t.Errorf("%d requests once they can be sent", n)
		}
		if again := ok[string](t)(start("c", "thing/lamp", nil)); again != id || requests() != 0 {
			t.Errorf("%s, not %s, or sent again", again, id)
		}
		for what, call := range map[string]func() (string, error){
			"another thing":   func() (string, error) { return start("c", "thing/door", nil) },
			"another command": func() (string, error) { return start("other", "thing/lamp", nil) },
			"another timeout": func() (string, error) { return start("c", "thing/lamp", new(int64(60))) },
		} {
			if _, err := call(); !errors.As(err, new(*iotjobsdata.ConflictException)) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// A parameter that stands in a template many times does not make a payload of gigabytes, and what is kept of an execution
// is no longer than a payload.
func TestLongParameters(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		template := `["` + strings.Repeat("${aws:iot:commandexecution::parameter:p}", 800) + `"]`
		ok[*iot.CreateCommandResponse](t)(w.CreateCommand(w.ctx, &iot.CreateCommandRequest{
			CommandId: "c", PayloadTemplate: &template, MandatoryParameters: []*iot.CommandParameter{{Name: "p"}},
		}))
		for size, good := range map[int]bool{1: true, 30: true, 100: false, 32_000: false, 1_000_000: false} {
			_, err := w.StartCommandExecution(w.ctx, &iotjobsdata.StartCommandExecutionRequest{
				CommandArn: arn + "command/c", TargetArn: arn + "thing/lamp",
				Parameters: map[string]*iotjobsdata.CommandParameterValue{"p": {S: new(strings.Repeat("x", size))}},
			})
			if (err == nil) != good || err != nil && (!errors.As(err, new(*iotjobsdata.ValidationException)) || !strings.Contains(err.Error(), "bytes")) {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	})
}
