package jobs_test

import (
	"testing"

	"flotilla/internal/aws/iot"
)

// A job of a namespace has topics of its own, as the core device's software of Greengrass uses them, and is no matter of
// those without.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateJob.html (namespaceId)
func TestNamespace(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const space = "namespace-aws-gg-deployment"
		w.fleet("g", 1)
		w.create("gg", iot.CreateJobRequest{NamespaceId: new("aws-gg-deployment")}, thing("g-0"))
		w.waitCounts("gg", "1 QUEUED")
		w.create("plain", iot.CreateJobRequest{}, thing("g-0"))
		w.waitCounts("plain", "1 QUEUED")
		next := func(topic, want string) {
			t.Helper()
			w.eventually(topic, func() bool {
				list := w.told("g-0", topic)
				for _, n := range list {
					if e, ok := n["execution"].(map[string]any); ok && e["jobId"] != want || !ok && want != "" {
						t.Errorf("%s: %v", topic, n)
					}
				}
				return len(list) > 0
			})
		}
		next("notify-next-"+space, "gg")
		next("notify-next", "plain")
		for topic, want := range map[string]string{"notify": "plain", "notify-" + space: "gg"} {
			for _, n := range w.told("g-0", topic) {
				if list := n["jobs"].(map[string]any)["QUEUED"].([]any); len(list) != 1 || list[0].(map[string]any)["jobId"] != want {
					t.Errorf("%s: %v", topic, n)
				}
			}
		}
		if a := w.accepted("g-0", "get", ``); len(a["queuedJobs"].([]any)) != 1 {
			t.Error(a)
		}
		if e := w.accepted("g-0", "$next/get", ``)["execution"].(map[string]any); e["jobId"] != "plain" {
			t.Error(e)
		}
		if e := w.accepted("g-0", "$next/"+space+"/get", ``)["execution"].(map[string]any); e["jobId"] != "gg" || e["jobDocument"] == nil {
			t.Error(e)
		}
		if e := w.accepted("g-0", "start-next", ``)["execution"].(map[string]any); e["jobId"] != "plain" {
			t.Error(e)
		}
		w.refused("g-0", "plain/"+space+"/get", ``, "ResourceNotFound")
		w.refused("g-0", "gg/namespace-other/update", `{"status":"IN_PROGRESS"}`, "ResourceNotFound")
		w.accepted("g-0", "gg/"+space+"/update", `{"status":"IN_PROGRESS"}`)
		w.accepted("g-0", "gg/"+space+"/get", ``)
		w.told("g-0", "notify-next-"+space)
		w.accepted("g-0", "gg/"+space+"/update", `{"status":"SUCCEEDED","expectedVersion":2}`)
		next("notify-next-"+space, "")
		w.waitStatus("gg", "COMPLETED")

		ctx := t.Context()
		other := new("other")
		_, err := w.DeleteJob(ctx, &iot.DeleteJobRequest{JobId: "gg", NamespaceId: other})
		is[*iot.ResourceNotFoundException](t, err)
		_, err = w.UpdateJob(ctx, &iot.UpdateJobRequest{JobId: "plain", NamespaceId: other})
		is[*iot.ResourceNotFoundException](t, err)
		_, err = w.DeleteJobExecution(ctx, &iot.DeleteJobExecutionRequest{JobId: "gg", ThingName: "g-0", ExecutionNumber: 1, NamespaceId: other})
		is[*iot.ResourceNotFoundException](t, err)
		_, err = w.AssociateTargetsWithJob(ctx, &iot.AssociateTargetsWithJobRequest{JobId: "plain", Targets: []string{thing("g-0")}, NamespaceId: other})
		is[*iot.ResourceNotFoundException](t, err)
		list, err := w.ListJobs(ctx, &iot.ListJobsRequest{NamespaceId: new("aws-gg-deployment")})
		if err != nil || len(list.Jobs) != 1 {
			t.Errorf("%+v %v", list, err)
		}
		if _, err := w.DeleteJob(ctx, &iot.DeleteJobRequest{JobId: "gg", NamespaceId: new("aws-gg-deployment")}); err != nil {
			t.Error(err)
		}
	})
}
