package jobs_test

import (
	"context"
	"strings"
	"testing"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
)

func (w *world) Enabled(context.Context, string) bool { return true }

func (w *world) Emit(ctx context.Context, topic string, payload []byte) error {
	w.db.AfterCommit(ctx, func() { _ = w.Publish(ctx, &mqtt.Message{Topic: topic, Payload: payload}) })
	return nil
}

// event waits for an event of a topic below $aws/events/, of which there is one.
func (w *world) event(topic string) (got map[string]any) {
	w.t.Helper()
	w.eventually(topic, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		var found []*mqtt.Message
		for _, m := range w.messages {
			if m.Topic == "$aws/events/"+topic {
				found = append(found, m)
			}
		}
		if len(found) > 1 {
			w.t.Errorf("%s: %d times", topic, len(found))
		}
		if len(found) > 0 {
			got = decode(w.t, found[0].Payload)
		}
		return len(found) > 0
	})
	return got
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/events-jobs.html
func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 2)
		w.create("done", iot.CreateJobRequest{Description: new("d")}, group("g"))
		w.waitCounts("done", "2 QUEUED")
		w.accepted("g-0", "done/update", `{"status":"SUCCEEDED","statusDetails":{"k":"v"}}`)
		w.accepted("g-1", "done/update", `{"status":"REJECTED"}`)
		e := w.event("jobExecution/done/succeeded")
		if e["eventType"] != "JOB_EXECUTION" || e["operation"] != "succeeded" || e["status"] != "SUCCEEDED" || e["thingArn"] != thing("g-0") || e["timestamp"] != 1.8e9 ||
			e["jobId"] != "done" || e["eventId"] == "" || e["statusDetails"].(map[string]any)["k"] != "v" {
			t.Error(e)
		}
		w.event("jobExecution/done/rejected")
		e = w.event("job/done/completed")
		if e["eventType"] != "JOB" || e["status"] != "COMPLETED" || e["createdAt"] != 1.8e12 || e["completedAt"] != 1.8e12 || e["targetSelection"] != "SNAPSHOT" ||
			e["description"] != "d" || e["targets"].([]any)[0] != group("g") || e["jobProcessDetails"].(map[string]any)["numberOfSucceededThings"] != 1.0 {
			t.Error(e)
		}

		w.create("off", iot.CreateJobRequest{}, group("g"))
		w.waitCounts("off", "2 QUEUED")
		if _, err := w.CancelJob(t.Context(), &iot.CancelJobRequest{JobId: "off", Comment: new("c")}); err != nil {
			t.Fatal(err)
		}
		if e := w.event("job/off/cancellation_in_progress"); e["status"] != "CANCELLATION_IN_PROGRESS" || e["comment"] != "c" {
			t.Error(e)
		}
		if e := w.event("job/off/canceled"); e["status"] != "CANCELED" || e["jobProcessDetails"].(map[string]any)["numberOfCanceledThings"] != 2.0 {
			t.Error(e)
		}
		if _, err := w.DeleteJob(t.Context(), &iot.DeleteJobRequest{JobId: "done"}); err != nil {
			t.Fatal(err)
		}
		w.event("job/done/deletion_in_progress")
		if e := w.event("job/done/deleted"); e["status"] != "DELETED" {
			t.Error(e)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		n := 0
		for _, m := range w.messages {
			if strings.HasPrefix(m.Topic, "$aws/events/jobExecution/done/deleted") {
				if e := decode(t, m.Payload); e["status"] == "DELETED" { // it is what it was before
					t.Error(e)
				}
				n++
			}
		}
		if n != 2 {
			t.Errorf("%d executions are said to be deleted", n)
		}
	})
}
