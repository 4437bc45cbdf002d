package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"

	"flotilla/internal/server/servertest"
)

// A continuous job follows a dynamic group: a thing gets its execution when what it reports brings it into the group, and
// loses it when it leaves. A snapshot job goes to those that the group has then.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/dynamic-thing-groups.html
func TestJobForADynamicGroup(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	ctx, api := t.Context(), n.IoT()
	if _, err := api.UpdateIndexingConfiguration(ctx, &iot.UpdateIndexingConfigurationInput{ThingIndexingConfiguration: &types.ThingIndexingConfiguration{
		ThingIndexingMode: types.ThingIndexingModeRegistryAndShadow,
	}}); err != nil {
		t.Fatal(err)
	}
	report := func(thing string, battery int) {
		t.Helper()
		if _, err := n.Data().UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{
			ThingName: &thing, Payload: fmt.Appendf(nil, `{"state":{"reported":{"battery":%d}}}`, battery),
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, thing := range []string{"early", "late"} {
		if _, err := api.CreateThing(ctx, &iot.CreateThingInput{ThingName: &thing}); err != nil {
			t.Fatal(err)
		}
	}
	report("early", 10)
	report("late", 90)
	if _, err := api.CreateDynamicThingGroup(ctx, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("low"), QueryString: new("shadow.reported.battery<20")}); err != nil {
		t.Fatal(err)
	}
	members := func(want int) func() bool {
		return func() bool {
			out, err := api.ListThingsInThingGroup(ctx, &iot.ListThingsInThingGroupInput{ThingGroupName: new("low")})
			return err == nil && len(out.Things) == want
		}
	}
	eventually(t, "the group to have its thing", members(1))

	id := n.Identity(t, "late", "iot:Connect client/late", "iot:Subscribe topicfilter/$aws/things/late/jobs/*", "iot:Receive topic/$aws/things/late/jobs/*")
	dev := connect5(t, d.Node(1), id, "late")
	dev.subscribe(t, 1, "$aws/things/late/jobs/notify-next")
	told := func(want string) {
		t.Helper()
		var m struct {
			Execution struct {
				JobID string `json:"jobId"`
			}
		}
		if p := dev.next(t); json.Unmarshal(p.Payload, &m) != nil || m.Execution.JobID != want {
			t.Fatalf("%s: %s, not %q", p.Topic, p.Payload, want)
		}
	}
	for job, selection := range map[string]types.TargetSelection{"charge": types.TargetSelectionContinuous, "once": types.TargetSelectionSnapshot} {
		if _, err := api.CreateJob(ctx, &iot.CreateJobInput{
			JobId: &job, Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thinggroup/low"}, Document: new(`{"operation":"charge"}`), TargetSelection: selection,
		}); err != nil {
			t.Fatal(err)
		}
	}
	status := func(thing, job string, want types.JobExecutionStatus) func() bool {
		return func() bool {
			out, err := api.DescribeJobExecution(ctx, &iot.DescribeJobExecutionInput{JobId: &job, ThingName: &thing})
			return err == nil && out.Execution.Status == want
		}
	}
	for _, job := range []string{"charge", "once"} {
		eventually(t, "early to have its execution of "+job, status("early", job, types.JobExecutionStatusQueued))
	}
	report("late", 5)
	told("charge")
	report("late", 80)
	told("")
	eventually(t, "late to have left", status("late", "charge", types.JobExecutionStatusRemoved))
	report("early", 70)
	eventually(t, "early to have left", status("early", "charge", types.JobExecutionStatusRemoved))
	out, err := api.ListJobExecutionsForJob(ctx, &iot.ListJobExecutionsForJobInput{JobId: new("once")})
	if err != nil || len(out.ExecutionSummaries) != 1 || out.ExecutionSummaries[0].JobExecutionSummary.Status != types.JobExecutionStatusQueued {
		t.Errorf("the snapshot has changed: %+v %v", out, err)
	}
}
