package jobs_test

import (
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs"
)

// A job takes from its template what it does not say itself, and a template from a job.
func TestTemplates(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.fleet("g", 1)
		in := &iot.CreateJobTemplateRequest{
			JobTemplateId: "t", Description: "from t", Document: new(`{"a":1}`), TimeoutConfig: &iot.TimeoutConfig{InProgressTimeoutInMinutes: new(int64(7))},
			AbortConfig: &iot.AbortConfig{CriteriaList: []*iot.AbortCriteria{{FailureType: "FAILED", Action: "CANCEL", ThresholdPercentage: 50, MinNumberOfExecutedThings: 4}}},
		}
		made, err := w.CreateJobTemplate(ctx, in)
		if err != nil || *made.JobTemplateArn != account.ARN("iot", "jobtemplate/t") {
			t.Fatalf("%+v %v", made, err)
		}
		_, err = w.CreateJobTemplate(ctx, in)
		is[*iot.ConflictException](t, err)
		w.from("j", iot.CreateJobRequest{JobTemplateArn: made.JobTemplateArn, TimeoutConfig: &iot.TimeoutConfig{InProgressTimeoutInMinutes: new(int64(9))}}, thing("g-0"))
		w.waitCounts("j", "1 QUEUED")
		d := w.describe("j")
		if *d.Description != "from t" || *d.TimeoutConfig.InProgressTimeoutInMinutes != 9 || d.AbortConfig == nil || *d.JobTemplateArn != *made.JobTemplateArn {
			t.Errorf("%+v", d)
		}
		if e := w.accepted("g-0", "j/get", ``)["execution"].(map[string]any); e["jobDocument"].(map[string]any)["a"] != 1.0 {
			t.Error(e)
		}
		_, err = w.CreateJobTemplate(ctx, &iot.CreateJobTemplateRequest{JobTemplateId: "u", Description: "u", JobArn: new(account.ARN("iot", "job/j"))})
		if err != nil {
			t.Fatal(err)
		}
		u, err := w.DescribeJobTemplate(ctx, &iot.DescribeJobTemplateRequest{JobTemplateId: "u"})
		if err != nil || *u.Document != `{"a":1}` || *u.TimeoutConfig.InProgressTimeoutInMinutes != 9 || *u.Description != "u" {
			t.Errorf("%+v %v", u, err)
		}
		list, err := w.ListJobTemplates(ctx, &iot.ListJobTemplatesRequest{MaxResults: new(int32(1))})
		if err != nil || len(list.JobTemplates) != 1 || *list.JobTemplates[0].JobTemplateId != "t" || list.NextToken == nil {
			t.Errorf("%+v %v", list, err)
		}
		if _, err := w.DeleteJobTemplate(ctx, &iot.DeleteJobTemplateRequest{JobTemplateId: "t"}); err != nil {
			t.Error(err)
		}
		_, err = w.DeleteJobTemplate(ctx, &iot.DeleteJobTemplateRequest{JobTemplateId: "t"})
		is[*iot.ResourceNotFoundException](t, err)
		_, err = w.CreateJob(ctx, &iot.CreateJobRequest{JobId: "k", Targets: []string{thing("g-0")}, JobTemplateArn: made.JobTemplateArn})
		is[*iot.ResourceNotFoundException](t, err)
		_, err = w.CreateJobTemplate(ctx, &iot.CreateJobTemplateRequest{JobTemplateId: "v", Description: "v"})
		is[*iot.InvalidRequestException](t, err)
	})
}

// from creates a job whose document is its template's.
func (w *world) from(id string, in iot.CreateJobRequest, targets ...string) {
	w.t.Helper()
	in.JobId, in.Targets = id, targets
	if _, err := w.CreateJob(w.t.Context(), &in); err != nil {
		w.t.Fatal(err)
	}
}

// Managed templates are those that AWS lists, with the parameters that its documents name, and ours.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-templates-managed.html
func TestManagedTemplates(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.fleet("g", 1)
		list, err := w.ListManagedJobTemplates(ctx, &iot.ListManagedJobTemplatesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range list.ManagedJobTemplates {
			names = append(names, strings.TrimPrefix(*m.TemplateName, "AWS-"))
		}
		if got := strings.Join(names, " "); got != "Download-File Install-Application Reboot Remove-Application Restart-Application Run-Command Start-Application Stop-Application "+jobs.RotateCertificate {
			t.Error(got)
		}
		d, err := w.DescribeManagedJobTemplate(ctx, &iot.DescribeManagedJobTemplateRequest{TemplateName: "AWS-Download-File"})
		if err != nil || *d.TemplateArn != "arn:aws:iot:us-east-1::jobtemplate/AWS-Download-File:1.0" || len(d.DocumentParameters) != 4 ||
			*d.Document != `{"version":"1.0","steps":[{"action":{"name":"Download-File","type":"runHandler","input":{"handler":"download-file.sh","args":["${aws:iot:parameter:downloadUrl}","${aws:iot:parameter:filePath}"],"path":"${aws:iot:parameter:pathToHandler}"},"runAsUser":"${aws:iot:parameter:runAsUser}"}}]}` {
			t.Errorf("%+v %v", d, err)
		}
		_, err = w.DescribeManagedJobTemplate(ctx, &iot.DescribeManagedJobTemplateRequest{TemplateName: "AWS-Reboot", TemplateVersion: new("2.0")})
		is[*iot.ResourceNotFoundException](t, err)
		for _, parameters := range []map[string]string{nil, {"command": "a", "x": "y"}, {"command": "a", "runAsUser": strings.Repeat("u", 257)}} {
			_, err = w.CreateJob(ctx, &iot.CreateJobRequest{
				JobId: "j", Targets: []string{thing("g-0")}, JobTemplateArn: new("arn:aws:iot:us-east-1::jobtemplate/AWS-Run-Command:1.0"), DocumentParameters: parameters,
			})
			is[*iot.InvalidRequestException](t, err)
		}
		w.from("j", iot.CreateJobRequest{JobTemplateArn: new("arn:aws:iot:us-east-1::jobtemplate/AWS-Run-Command:1.0"), DocumentParameters: map[string]string{"command": `echo,"<a&b>\"`}}, thing("g-0"))
		w.waitCounts("j", "1 QUEUED")
		action := w.accepted("g-0", "j/get", ``)["execution"].(map[string]any)["jobDocument"].(map[string]any)["steps"].([]any)[0].(map[string]any)["action"].(map[string]any)
		if action["input"].(map[string]any)["command"] != `echo,"<a&b>\"` || action["runAsUser"] != "" {
			t.Error(action)
		}
		before, err := w.GetJobDocument(ctx, &iot.GetJobDocumentRequest{JobId: "j", BeforeSubstitution: new(true)})
		if err != nil || !strings.Contains(*before.Document, "${aws:iot:parameter:command}") {
			t.Errorf("%+v %v", before, err)
		}
	})
}

// A document comes from an object store, and its presigned URLs are made when a thing fetches it.
func TestDocumentSource(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		for i, source := range []string{
			"https://s3.amazonaws.com/b/dir/k", "https://s3.us-east-1.amazonaws.com/b/dir/k", "https://b.s3.us-east-1.amazonaws.com/dir/k", "https://b.s3.amazonaws.com/dir/k", "s3://b/dir/k",
		} {
			w.mu.Lock()
			w.objects["b/dir/k"] = `{"url":"${aws:iot:s3-presigned-url:` + source + `}","v2":"${aws:iot:s3-presigned-url-v2:` + source + `}"}`
			w.mu.Unlock()
			id := "j" + string(rune('0'+i))
			w.from(id, iot.CreateJobRequest{DocumentSource: &source, PresignedUrlConfig: &iot.PresignedUrlConfig{RoleArn: new("r"), ExpiresInSec: new(int64(60))}}, thing("g-0"))
			w.waitCounts(id, "1 QUEUED")
			d := w.accepted("g-0", id+"/get", ``)["execution"].(map[string]any)["jobDocument"].(map[string]any)
			want := "https://signed/b/dir/k?expires=" + time.Minute.String() + "&role=r"
			if d["url"] != want || d["v2"] != want {
				t.Errorf("%s: %v", source, d)
			}
			w.accepted("g-0", id+"/update", `{"status":"SUCCEEDED"}`)
		}
	})
}
