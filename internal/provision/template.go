package provision

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/provision/template"
	"flotilla/internal/store"
)

// hookPayloadVersion is the only version of what hooks are sent.
const hookPayloadVersion = "2020-04-01"

const defaultPage = 25

// CreateProvisioningTemplate makes a template with version 1 as the default; its type is FLEET_PROVISIONING unless
// said otherwise, and it is disabled unless said otherwise.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateProvisioningTemplate.html
func (t *Templates) CreateProvisioningTemplate(ctx context.Context, in *iot.CreateProvisioningTemplateRequest) (*iot.CreateProvisioningTemplateResponse, error) {
	now := t.nowMS()
	r := &record{
		name: in.TemplateName, kind: value(in.Type), description: value(in.Description), enabled: value(in.Enabled),
		roleARN: in.ProvisioningRoleArn, defaultVersion: 1, lastVersion: 1, created: now, modified: now,
	}
	if r.kind == "" {
		r.kind = iot.TemplateTypeFleetProvisioning
	}
	if r.kind != iot.TemplateTypeFleetProvisioning && r.kind != iot.TemplateTypeJitp {
		return nil, invalid("Invalid template type: " + r.kind)
	}
	if err := t.setHook(r, in.PreProvisioningHook); err != nil {
		return nil, err
	}
	if err := check(ctx, in.TemplateBody, r.kind); err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 && t.Tags == nil {
		return nil, invalid("tags of provisioning templates are not supported")
	}
	err := t.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		n, err := countTemplates(tx)
		if err != nil {
			return err
		}
		if _, err := selectTemplate(tx, r.name); err == nil {
			return &iot.ResourceAlreadyExistsException{
				Message: "Provisioning template " + r.name + " exists already.", ResourceId: r.name, ResourceArn: t.arn(r.name),
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if n >= t.cfg.MaxTemplates {
			return &iot.LimitExceededException{Message: fmt.Sprintf("There are %d provisioning templates, the most allowed.", n)}
		}
		if err := insertTemplate(tx, r); err != nil {
			return err
		}
		if err := insertVersion(tx, r.name, &version{number: 1, body: in.TemplateBody, created: now}); err != nil {
			return err
		}
		if len(in.Tags) > 0 {
			_, err = t.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: t.arn(r.name), Tags: in.Tags})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateProvisioningTemplateResponse{TemplateArn: new(t.arn(r.name)), TemplateName: &r.name, DefaultVersionId: new(int32(1))}, nil
}

// check parses a template for its type, and warns of what will go wrong only when a device is provisioned.
func check(ctx context.Context, body, kind string) error {
	tpl, err := template.Parse(body, template.Flow(kind))
	if err != nil {
		return exception(err)
	}
	for _, f := range tpl.Lint() {
		aws.Warn(ctx, f.String())
	}
	return nil
}

// setHook sets or refuses a pre-provisioning hook; nil leaves it as it is.
func (t *Templates) setHook(r *record, h *iot.ProvisioningHook) error {
	switch {
	case h == nil:
		return nil
	case r.kind != iot.TemplateTypeFleetProvisioning:
		return invalid("preProvisioningHook is for templates of type FLEET_PROVISIONING.")
	case t.Hook == nil:
		return invalid("preProvisioningHook is not supported yet: it comes with functions.")
	case value(h.PayloadVersion) != "" && *h.PayloadVersion != hookPayloadVersion:
		return invalid("payloadVersion of preProvisioningHook must be " + hookPayloadVersion + ".")
	case h.TargetArn == "":
		return invalid("targetArn of preProvisioningHook is missing.")
	}
	r.hookARN = h.TargetArn
	return nil
}

func (r *record) hook() *iot.ProvisioningHook {
	if r.hookARN == "" {
		return nil
	}
	return &iot.ProvisioningHook{PayloadVersion: new(hookPayloadVersion), TargetArn: r.hookARN}
}

// DescribeProvisioningTemplate gives a template with the body of its default version.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeProvisioningTemplate.html
func (t *Templates) DescribeProvisioningTemplate(ctx context.Context, in *iot.DescribeProvisioningTemplateRequest) (*iot.DescribeProvisioningTemplateResponse, error) {
	r, v, err := t.find(ctx, in.TemplateName)
	if err != nil {
		return nil, err
	}
	return &iot.DescribeProvisioningTemplateResponse{
		TemplateArn: new(t.arn(r.name)), TemplateName: &r.name, Description: optional(r.description),
		CreationDate: date(r.created), LastModifiedDate: date(r.modified), DefaultVersionId: new(int32(r.defaultVersion)),
		TemplateBody: &v.body, Enabled: &r.enabled, ProvisioningRoleArn: &r.roleARN,
		PreProvisioningHook: r.hook(), Type: &r.kind,
	}, nil
}

// find reads a template and its default version.
func (t *Templates) find(ctx context.Context, name string) (r *record, v *version, err error) {
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if r, err = selectTemplate(tx, name); err != nil {
			return err
		}
		v, err = selectVersion(tx, name, r.defaultVersion)
		return err
	})
	if err != nil {
		return nil, nil, noTemplate(err, name)
	}
	return r, v, nil
}

// UpdateProvisioningTemplate changes everything but name, type and bodies.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateProvisioningTemplate.html
func (t *Templates) UpdateProvisioningTemplate(ctx context.Context, in *iot.UpdateProvisioningTemplateRequest) (*iot.UpdateProvisioningTemplateResponse, error) {
	if in.PreProvisioningHook != nil && value(in.RemovePreProvisioningHook) {
		return nil, invalid("preProvisioningHook and removePreProvisioningHook can't be given together.")
	}
	err := t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		r, err := selectTemplate(tx, in.TemplateName)
		if err != nil {
			return noTemplate(err, in.TemplateName)
		}
		if in.Description != nil {
			r.description = *in.Description
		}
		if in.Enabled != nil {
			r.enabled = *in.Enabled
		}
		if in.ProvisioningRoleArn != nil {
			r.roleARN = *in.ProvisioningRoleArn
		}
		if value(in.RemovePreProvisioningHook) {
			r.hookARN = ""
		}
		if err := t.setHook(r, in.PreProvisioningHook); err != nil {
			return err
		}
		if in.DefaultVersionId != nil {
			r.defaultVersion = int64(*in.DefaultVersionId)
			if _, err := selectVersion(tx, r.name, r.defaultVersion); err != nil {
				return noVersion(err, r.name, r.defaultVersion)
			}
		}
		r.modified = t.nowMS()
		return updateTemplate(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateProvisioningTemplateResponse{}, nil
}

// DeleteProvisioningTemplate deletes a template with all its versions.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteProvisioningTemplate.html
func (t *Templates) DeleteProvisioningTemplate(ctx context.Context, in *iot.DeleteProvisioningTemplateRequest) (*iot.DeleteProvisioningTemplateResponse, error) {
	err := t.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := selectTemplate(tx, in.TemplateName); err != nil {
			return noTemplate(err, in.TemplateName)
		}
		if t.Tags != nil {
			if err := t.Tags.DeleteTags(ctx, t.arn(in.TemplateName)); err != nil {
				return err
			}
		}
		return deleteTemplate(tx, in.TemplateName)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteProvisioningTemplateResponse{}, nil
}

// ListProvisioningTemplates lists by name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListProvisioningTemplates.html
func (t *Templates) ListProvisioningTemplates(ctx context.Context, in *iot.ListProvisioningTemplatesRequest) (*iot.ListProvisioningTemplatesResponse, error) {
	after, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := pageSize(in.MaxResults)
	var rows []record
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		rows, err = selectTemplates(tx, after, limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListProvisioningTemplatesResponse{}
	if len(rows) > limit {
		rows = rows[:limit]
		out.NextToken = nextToken(rows[limit-1].name)
	}
	for i := range rows {
		r := &rows[i]
		out.Templates = append(out.Templates, &iot.ProvisioningTemplateSummary{
			TemplateArn: new(t.arn(r.name)), TemplateName: &r.name, Description: optional(r.description),
			CreationDate: date(r.created), LastModifiedDate: date(r.modified), Enabled: &r.enabled, Type: &r.kind,
		})
	}
	return out, nil
}

func pageSize(n *int32) int {
	if n == nil || *n <= 0 {
		return defaultPage
	}
	return min(int(*n), 250)
}

func nextToken(key string) *string { return new(base64.RawURLEncoding.EncodeToString([]byte(key))) }

// parseToken reverses nextToken; "" for the first page.
func parseToken(token *string) (string, error) {
	key, err := base64.RawURLEncoding.DecodeString(value(token))
	if err != nil {
		return "", invalid("Invalid nextToken.")
	}
	return string(key), nil
}

// value is what p points to, the zero value when it is nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// optional is nil for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
