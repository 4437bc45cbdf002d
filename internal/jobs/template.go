package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs/rollout"
	"flotilla/internal/store"
)

// templateDefinition is what a job template was created with, or from.
type templateDefinition struct {
	iot.CreateJobTemplateRequest
	Text string `json:"text"` // the job document, before substitution
}

func (j *Jobs) templateARN(id string) string { return j.Account.ARN("iot", "jobtemplate/"+id) }

func noTemplate(id string) error {
	return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Job template %s cannot be found.", id)}
}

// CreateJobTemplate creates a template from what is given, over what the job that jobArn names has.
//
// Errors: InvalidRequestException, ConflictException (it exists), ResourceNotFoundException (the job).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateJobTemplate.html
func (j *Jobs) CreateJobTemplate(ctx context.Context, in *iot.CreateJobTemplateRequest) (*iot.CreateJobTemplateResponse, error) {
	d := templateDefinition{CreateJobTemplateRequest: *in}
	d.Tags = nil
	if in.JobArn != nil {
		if err := j.fromJob(ctx, &d); err != nil {
			return nil, err
		}
	} else {
		var err error
		if d.Text, err = j.textOf(ctx, in.Document, in.DocumentSource); err != nil {
			return nil, err
		}
	}
	if len(in.DestinationPackageVersions) > 0 {
		return nil, invalid("destinationPackageVersions: the software package catalog is not implemented")
	}
	if err := j.checkDocument(ctx, d.Text, d.PresignedUrlConfig); err != nil {
		return nil, err
	}
	if err := checkConfigs(d.JobExecutionsRolloutConfig, d.AbortConfig, d.TimeoutConfig, d.JobExecutionsRetryConfig, j.cfg.Limits == "aws"); err != nil {
		return nil, err
	}
	if _, err := rollout.ParseSchedule(&iot.SchedulingConfig{MaintenanceWindows: d.MaintenanceWindows}, j.cfg.Now(), j.bounds); err != nil {
		return nil, invalid("%v", err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	err = j.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := j.mayKeepTemplate(tx); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO job_template (job_template_id, definition, created) VALUES ($1, $2, $3)`, in.JobTemplateId, string(text), j.nowMS())
		if errors.Is(err, store.ErrConflict) {
			return &iot.ConflictException{Message: fmt.Sprintf("Job template %s already exists.", in.JobTemplateId), ResourceId: in.JobTemplateId}
		}
		if err != nil || len(in.Tags) == 0 {
			return err
		}
		_, err = j.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: j.templateARN(in.JobTemplateId), Tags: in.Tags})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateJobTemplateResponse{JobTemplateArn: new(j.templateARN(in.JobTemplateId)), JobTemplateId: &in.JobTemplateId}, nil
}

// fromJob fills what a template does not say itself from the job that it names. The job's document keeps the values of
// its parameters.
func (j *Jobs) fromJob(ctx context.Context, d *templateDefinition) error {
	id, ok := strings.CutPrefix(*d.JobArn, j.arn(""))
	if !ok {
		return invalid("jobArn: %s is no job of this account", *d.JobArn)
	}
	if d.Document != nil || d.DocumentSource != nil {
		return invalid("With jobArn the document is that of the job")
	}
	b, err := j.readJob(ctx, id)
	if err != nil {
		return err
	}
	d.Text, d.DocumentSource = b.parametersIn(b.def.Text), b.def.DocumentSource
	inherit(&d.PresignedUrlConfig, b.def.PresignedUrlConfig)
	inherit(&d.JobExecutionsRolloutConfig, b.def.JobExecutionsRolloutConfig)
	inherit(&d.AbortConfig, b.def.AbortConfig)
	inherit(&d.TimeoutConfig, b.def.TimeoutConfig)
	inherit(&d.JobExecutionsRetryConfig, b.def.JobExecutionsRetryConfig)
	if s := b.def.SchedulingConfig; s != nil && len(d.MaintenanceWindows) == 0 {
		d.MaintenanceWindows = s.MaintenanceWindows
	}
	return nil
}

// inherit sets what is not set.
func inherit[T any](to **T, v *T) {
	if *to == nil {
		*to = v
	}
}

func (j *Jobs) readTemplate(ctx context.Context, id string) (d *templateDefinition, created int64, err error) {
	var text string
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT definition, created FROM job_template WHERE job_template_id = $1`, id).Scan(&text, &created)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, noTemplate(id)
	}
	if err != nil {
		return nil, 0, err
	}
	d = &templateDefinition{}
	if err := json.Unmarshal([]byte(text), d); err != nil {
		return nil, 0, fmt.Errorf("jobs: template %s: %w", id, err)
	}
	return d, created, nil
}

// DescribeJobTemplate gives a template. Errors: ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeJobTemplate.html
func (j *Jobs) DescribeJobTemplate(ctx context.Context, in *iot.DescribeJobTemplateRequest) (*iot.DescribeJobTemplateResponse, error) {
	d, created, err := j.readTemplate(ctx, in.JobTemplateId)
	if err != nil {
		return nil, err
	}
	return &iot.DescribeJobTemplateResponse{
		JobTemplateArn: new(j.templateARN(in.JobTemplateId)), JobTemplateId: &in.JobTemplateId, Description: &d.Description, DocumentSource: d.DocumentSource,
		Document: &d.Text, CreatedAt: timeOf(&created), PresignedUrlConfig: d.PresignedUrlConfig, JobExecutionsRolloutConfig: d.JobExecutionsRolloutConfig,
		AbortConfig: d.AbortConfig, TimeoutConfig: d.TimeoutConfig, JobExecutionsRetryConfig: d.JobExecutionsRetryConfig, MaintenanceWindows: d.MaintenanceWindows,
	}, nil
}

// ListJobTemplates lists templates by their id.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListJobTemplates.html
func (j *Jobs) ListJobTemplates(ctx context.Context, in *iot.ListJobTemplatesRequest) (*iot.ListJobTemplatesResponse, error) {
	p, err := newPage(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	var list []*iot.JobTemplateSummary
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list = []*iot.JobTemplateSummary{}
		rows, err := tx.Query(`SELECT job_template_id, definition, created FROM job_template WHERE job_template_id > $1 ORDER BY job_template_id LIMIT $2`, p.after, p.size+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, text string
			var created int64
			var d templateDefinition
			if err := errors.Join(rows.Scan(&id, &text, &created), json.Unmarshal([]byte(text), &d)); err != nil {
				return err
			}
			list = append(list, &iot.JobTemplateSummary{JobTemplateArn: new(j.templateARN(id)), JobTemplateId: &id, Description: &d.Description, CreatedAt: timeOf(&created)})
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListJobTemplatesResponse{}
	out.JobTemplates, out.NextToken = cut(p, list, func(s *iot.JobTemplateSummary) string { return *s.JobTemplateId })
	return out, nil
}

// DeleteJobTemplate deletes a template; jobs that were made from it stay. Errors: ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteJobTemplate.html
func (j *Jobs) DeleteJobTemplate(ctx context.Context, in *iot.DeleteJobTemplateRequest) (*iot.DeleteJobTemplateResponse, error) {
	err := j.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		n, err := tx.Exec(`DELETE FROM job_template WHERE job_template_id = $1`, in.JobTemplateId)
		if err == nil && n == 0 {
			return noTemplate(in.JobTemplateId)
		}
		return errors.Join(err, j.Tags.DeleteTags(ctx, j.templateARN(in.JobTemplateId)))
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteJobTemplateResponse{}, nil
}

// TemplateTaggable tells whether a job template exists; for tags.
func (j *Jobs) TemplateTaggable(ctx context.Context, id string) error {
	_, _, err := j.readTemplate(ctx, id)
	return err
}

// useTemplate gives a new job what its template says and the request does not.
func (j *Jobs) useTemplate(ctx context.Context, b *job) error {
	in := &b.def.CreateJobRequest
	if in.Document != nil || in.DocumentSource != nil {
		return invalid("With jobTemplateArn the document is that of the template")
	}
	arn := *in.JobTemplateArn
	if name, ok := strings.CutPrefix(arn, fmt.Sprintf("arn:aws:iot:%s::jobtemplate/", j.Account.Region)); ok {
		name, version, versioned := strings.Cut(name, ":")
		m, ok := managedTemplate(name)
		if !ok || versioned && version != managedVersion {
			return &iot.ResourceNotFoundException{Message: fmt.Sprintf("There is no managed job template %s.", arn)}
		}
		inherit(&in.Description, &m.description)
		b.def.Text = m.document
		return m.check(in.DocumentParameters)
	}
	id, ok := strings.CutPrefix(arn, j.templateARN(""))
	if !ok {
		return invalid("jobTemplateArn: %s is no job template of this account", arn)
	}
	if len(in.DocumentParameters) > 0 {
		return invalid("documentParameters are for jobs from managed templates")
	}
	d, _, err := j.readTemplate(ctx, id)
	if err != nil {
		return err
	}
	b.def.Text, in.DocumentSource = d.Text, d.DocumentSource
	inherit(&in.Description, &d.Description)
	inherit(&in.PresignedUrlConfig, d.PresignedUrlConfig)
	inherit(&in.JobExecutionsRolloutConfig, d.JobExecutionsRolloutConfig)
	inherit(&in.AbortConfig, d.AbortConfig)
	inherit(&in.TimeoutConfig, d.TimeoutConfig)
	inherit(&in.JobExecutionsRetryConfig, d.JobExecutionsRetryConfig)
	if len(d.MaintenanceWindows) > 0 {
		s := iot.SchedulingConfig{}
		if in.SchedulingConfig != nil {
			s = *in.SchedulingConfig
		}
		if len(s.MaintenanceWindows) == 0 {
			s.MaintenanceWindows = d.MaintenanceWindows
		}
		in.SchedulingConfig = &s
	}
	return nil
}
