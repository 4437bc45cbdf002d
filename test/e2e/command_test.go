package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server/servertest"
)

// A command reaches its device on another node, which answers; the answer and the events of it are there.
func TestCommand(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	pump(t, n)
	ctx := t.Context()
	made, err := n.IoT().CreateCommand(ctx, &iot.CreateCommandInput{
		CommandId: new("set-speed"), PayloadTemplate: new(`{"speed":"${aws:iot:commandexecution::parameter:speed}"}`),
		MandatoryParameters: []types.CommandParameter{{Name: new("speed"), Type: types.CommandParameterTypeInteger}},
		Tags:                []types.Tag{{Key: new("env"), Value: new("test")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := n.Identity(t, "pump", "iot:Connect client/*", "iot:Publish topic/$aws/commands/things/pump/executions/*",
		"iot:Receive topic/$aws/commands/things/pump/executions/*", "iot:Receive topic/$aws/events/*",
		"iot:Subscribe topicfilter/$aws/commands/things/pump/executions/*", "iot:Subscribe topicfilter/$aws/events/*")
	watch := connect5(t, d.Node(0), id, "watch")
	watch.subscribe(t, 1, "$aws/events/commandExecution/+/#")
	dev := connect5(t, d.Node(1), id, "pump")
	dev.subscribe(t, 1, "$aws/commands/things/pump/executions/+/request/json", "$aws/commands/things/pump/executions/+/response/accepted/json")

	target := "arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump"
	body, err := json.Marshal(map[string]any{
		"commandArn": *made.CommandArn, "targetArn": target, "parameters": map[string]any{"speed": map[string]any{"I": 7}}, "executionTimeoutSeconds": 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	status, _, answer := signed(t, n, admin(n), "iot-jobs-data", "POST", "/command-executions", body)
	var started struct{ ExecutionID string }
	if err := json.Unmarshal(answer, &started); err != nil || status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	base := "$aws/commands/things/pump/executions/" + started.ExecutionID
	if p := dev.next(t); p.Topic != base+"/request/json" || string(p.Payload) != `{"speed":7}` || p.Properties.ContentType != "application/json" || p.Properties.ResponseTopic != base+"/response/json" {
		t.Fatalf("%s %s", p.Topic, p.Payload)
	}
	dev.publish(t, base+"/response/json", `{"status":"SUCCEEDED","statusReason":{"reasonCode":"DONE"},"result":{"rpm":{"s":"700"}}}`, 1)
	if p := dev.next(t); p.Topic != base+"/response/accepted/json" || !strings.Contains(string(p.Payload), started.ExecutionID) {
		t.Errorf("%s %s", p.Topic, p.Payload)
	}
	e, err := n.IoT().GetCommandExecution(ctx, &iot.GetCommandExecutionInput{ExecutionId: &started.ExecutionID, TargetArn: &target, IncludeResult: new(true)})
	if err != nil || e.Status != types.CommandExecutionStatusSucceeded || *e.Result["rpm"].S != "700" || *e.StatusReason.ReasonCode != "DONE" {
		t.Errorf("%+v, %v", e, err)
	}
	seen := ""
	for range 2 {
		p := watch.next(t)
		seen += " " + strings.TrimPrefix(p.Topic, "$aws/events/commandExecution/set-speed/")
	}
	if seen != " CREATED SUCCEEDED" {
		t.Errorf("events%s", seen)
	}
	// Time passes without an answer.
	body, err = json.Marshal(map[string]any{
		"commandArn": *made.CommandArn, "targetArn": target, "parameters": map[string]any{"speed": map[string]any{"I": 8}}, "executionTimeoutSeconds": 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, answer = signed(t, n, admin(n), "iot-jobs-data", "POST", "/command-executions", body); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	for deadline := time.Now().Add(patience); ; {
		if p := watch.next(t); strings.HasSuffix(p.Topic, "/TIMED_OUT") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not time out")
		}
	}
	list, err := n.IoT().ListCommandExecutions(ctx, &iot.ListCommandExecutionsInput{TargetArn: &target})
	if err != nil || len(list.CommandExecutions) != 2 || list.CommandExecutions[0].Status != types.CommandExecutionStatusTimedOut {
		t.Errorf("%+v, %v", list, err)
	}
}
