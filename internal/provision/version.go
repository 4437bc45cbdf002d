package provision

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

func noVersion(err error, template string, number int64) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Provisioning template %s has no version %d.", template, number)}
	}
	return err
}

// CreateProvisioningTemplateVersion adds a version; numbers are not used again.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateProvisioningTemplateVersion.html
func (t *Templates) CreateProvisioningTemplateVersion(ctx context.Context, in *iot.CreateProvisioningTemplateVersionRequest) (*iot.CreateProvisioningTemplateVersionResponse, error) {
	var number int64
	isDefault := value(in.SetAsDefault)
	old, _, err := t.find(ctx, in.TemplateName)
	if err != nil {
		return nil, err
	}
	if err := check(ctx, in.TemplateBody, old.kind); err != nil { // a type never changes
		return nil, err
	}
	err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		r, err := selectTemplate(tx, in.TemplateName)
		if err != nil {
			return noTemplate(err, in.TemplateName)
		}
		n, err := countVersions(tx, r.name)
		if err != nil {
			return err
		}
		if n >= t.cfg.MaxVersions {
			return &iot.VersionsLimitExceededException{Message: fmt.Sprintf("Provisioning template %s has %d versions, the most allowed.", r.name, n)}
		}
		now := t.nowMS()
		r.lastVersion++
		number = r.lastVersion
		if isDefault {
			r.defaultVersion = number
		}
		r.modified = now
		if err := insertVersion(tx, r.name, &version{number: number, body: in.TemplateBody, created: now}); err != nil {
			return err
		}
		return updateTemplate(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateProvisioningTemplateVersionResponse{
		TemplateArn: new(t.arn(in.TemplateName)), TemplateName: &in.TemplateName, VersionId: new(int32(number)), IsDefaultVersion: &isDefault,
	}, nil
}

// DescribeProvisioningTemplateVersion gives the body of a version.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeProvisioningTemplateVersion.html
func (t *Templates) DescribeProvisioningTemplateVersion(ctx context.Context, in *iot.DescribeProvisioningTemplateVersionRequest) (*iot.DescribeProvisioningTemplateVersionResponse, error) {
	var r *record
	var v *version
	err := t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if r, err = selectTemplate(tx, in.TemplateName); err != nil {
			return noTemplate(err, in.TemplateName)
		}
		v, err = selectVersion(tx, in.TemplateName, int64(in.VersionId))
		return noVersion(err, in.TemplateName, int64(in.VersionId))
	})
	if err != nil {
		return nil, err
	}
	return &iot.DescribeProvisioningTemplateVersionResponse{
		VersionId: &in.VersionId, CreationDate: date(v.created), TemplateBody: &v.body, IsDefaultVersion: new(v.number == r.defaultVersion),
	}, nil
}

// DeleteProvisioningTemplateVersion deletes a version that is not the default.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteProvisioningTemplateVersion.html
func (t *Templates) DeleteProvisioningTemplateVersion(ctx context.Context, in *iot.DeleteProvisioningTemplateVersionRequest) (*iot.DeleteProvisioningTemplateVersionResponse, error) {
	number := int64(in.VersionId)
	err := t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		r, err := selectTemplate(tx, in.TemplateName)
		if err != nil {
			return noTemplate(err, in.TemplateName)
		}
		if number == r.defaultVersion {
			return &iot.DeleteConflictException{Message: fmt.Sprintf("Version %d is the default version of provisioning template %s.", number, r.name)}
		}
		n, err := deleteVersion(tx, r.name, number)
		if err == nil && n == 0 {
			return noVersion(store.ErrNotFound, r.name, number)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteProvisioningTemplateVersionResponse{}, nil
}

// ListProvisioningTemplateVersions lists by number.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListProvisioningTemplateVersions.html
func (t *Templates) ListProvisioningTemplateVersions(ctx context.Context, in *iot.ListProvisioningTemplateVersionsRequest) (*iot.ListProvisioningTemplateVersionsResponse, error) {
	key, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	var after int64
	if key != "" {
		if after, err = strconv.ParseInt(key, 10, 64); err != nil {
			return nil, invalid("Invalid nextToken.")
		}
	}
	limit := pageSize(in.MaxResults)
	var r *record
	var rows []version
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if r, err = selectTemplate(tx, in.TemplateName); err != nil {
			return noTemplate(err, in.TemplateName)
		}
		rows, err = selectVersions(tx, in.TemplateName, after, limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListProvisioningTemplateVersionsResponse{}
	if len(rows) > limit {
		rows = rows[:limit]
		out.NextToken = nextToken(strconv.FormatInt(rows[limit-1].number, 10))
	}
	for _, v := range rows {
		out.Versions = append(out.Versions, &iot.ProvisioningTemplateVersionSummary{
			VersionId: new(int32(v.number)), CreationDate: date(v.created), IsDefaultVersion: new(v.number == r.defaultVersion),
		})
	}
	return out, nil
}

// CreateProvisioningClaim makes a certificate that is valid for five minutes and can do nothing but provision one
// device by the template.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateProvisioningClaim.html
func (t *Templates) CreateProvisioningClaim(ctx context.Context, in *iot.CreateProvisioningClaimRequest) (*iot.CreateProvisioningClaimResponse, error) {
	r, _, err := t.find(ctx, in.TemplateName)
	if err != nil {
		return nil, err
	}
	if r.kind != iot.TemplateTypeFleetProvisioning {
		return nil, invalid("Claims are for templates of type FLEET_PROVISIONING.")
	}
	return t.Issuer.CreateClaim(ctx, r.name)
}
