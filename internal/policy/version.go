package policy

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// CreatePolicyVersion adds a version; with setAsDefault it is in force from now on. A policy keeps five.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreatePolicyVersion.html
func (p *Policies) CreatePolicyVersion(ctx context.Context, in *iot.CreatePolicyVersionRequest) (*iot.CreatePolicyVersionResponse, error) {
	if err := validate(in.PolicyDocument); err != nil {
		return nil, err
	}
	asDefault := isTrue(in.SetAsDefault)
	var number int64
	err := p.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectPolicy(tx, in.PolicyName)
		if err != nil {
			return noPolicy(err, in.PolicyName)
		}
		_, versions, err := countUses(tx, in.PolicyName)
		if err != nil {
			return err
		}
		if versions >= p.cfg.MaxVersions {
			return &iot.VersionsLimitExceededException{Message: fmt.Sprintf("The policy %s already has the maximum number of versions (%d)", in.PolicyName, p.cfg.MaxVersions)}
		}
		r.lastVersion++
		number = r.lastVersion
		r.modified = p.now().UnixMilli()
		r.generation = newGeneration()
		if asDefault {
			r.defaultVersion = number
			p.db.AfterCommit(ctx, func() { p.bus.Changed(kindPolicy, in.PolicyName) })
		}
		if err := updatePolicy(tx, r); err != nil {
			return err
		}
		return insertVersion(tx, in.PolicyName, versionRecord{version: number, created: r.modified, document: in.PolicyDocument, generation: newGeneration()})
	})
	if err != nil {
		return nil, err
	}
	p.advise(ctx, in.PolicyName, in.PolicyDocument)
	return &iot.CreatePolicyVersionResponse{
		PolicyArn: new(p.arn(in.PolicyName)), PolicyDocument: &in.PolicyDocument, PolicyVersionId: versionID(number), IsDefaultVersion: &asDefault,
	}, nil
}

// parseVersion gives 0, which no version has, for what is not a number.
func parseVersion(id string) int64 {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != id {
		return 0
	}
	return n
}

func noVersion(err error, name, version string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Version %s of policy %s was not found.", version, name)}
	}
	return err
}

// GetPolicyVersion gives one version.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetPolicyVersion.html
func (p *Policies) GetPolicyVersion(ctx context.Context, in *iot.GetPolicyVersionRequest) (*iot.GetPolicyVersionResponse, error) {
	var r record
	var v versionRecord
	err := p.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if r, err = selectPolicy(tx, in.PolicyName); err != nil {
			return noPolicy(err, in.PolicyName)
		}
		v, err = selectVersion(tx, in.PolicyName, parseVersion(in.PolicyVersionId))
		return noVersion(err, in.PolicyName, in.PolicyVersionId)
	})
	if err != nil {
		return nil, err
	}
	return &iot.GetPolicyVersionResponse{
		PolicyArn: new(p.arn(r.name)), PolicyName: &r.name, PolicyDocument: &v.document, PolicyVersionId: versionID(v.version),
		IsDefaultVersion: new(v.version == r.defaultVersion), CreationDate: date(v.created), LastModifiedDate: date(v.created),
		GenerationId: &v.generation,
	}, nil
}

// ListPolicyVersions gives all versions, the newest first.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListPolicyVersions.html
func (p *Policies) ListPolicyVersions(ctx context.Context, in *iot.ListPolicyVersionsRequest) (*iot.ListPolicyVersionsResponse, error) {
	out := &iot.ListPolicyVersionsResponse{}
	err := p.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		r, err := selectPolicy(tx, in.PolicyName)
		if err != nil {
			return noPolicy(err, in.PolicyName)
		}
		versions, err := selectVersions(tx, in.PolicyName)
		if err != nil {
			return err
		}
		out.PolicyVersions = nil
		for _, v := range versions {
			out.PolicyVersions = append(out.PolicyVersions, &iot.PolicyVersion{
				VersionId: versionID(v.version), IsDefaultVersion: new(v.version == r.defaultVersion), CreateDate: date(v.created),
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeletePolicyVersion deletes a version that is not the default.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeletePolicyVersion.html
func (p *Policies) DeletePolicyVersion(ctx context.Context, in *iot.DeletePolicyVersionRequest) (*iot.DeletePolicyVersionResponse, error) {
	err := p.changeVersion(ctx, in.PolicyName, in.PolicyVersionId, func(ctx context.Context, tx store.Tx, r record, v versionRecord) error {
		if v.version == r.defaultVersion {
			return &iot.DeleteConflictException{Message: "Cannot delete the default version of a policy"}
		}
		return deleteVersion(tx, r.name, v.version)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeletePolicyVersionResponse{}, nil
}

// SetDefaultPolicyVersion puts a version in force, for connections that are open as well.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_SetDefaultPolicyVersion.html
func (p *Policies) SetDefaultPolicyVersion(ctx context.Context, in *iot.SetDefaultPolicyVersionRequest) (*iot.SetDefaultPolicyVersionResponse, error) {
	err := p.changeVersion(ctx, in.PolicyName, in.PolicyVersionId, func(ctx context.Context, tx store.Tx, r record, v versionRecord) error {
		r.defaultVersion = v.version
		r.modified = p.now().UnixMilli()
		r.generation = newGeneration()
		p.db.AfterCommit(ctx, func() { p.bus.Changed(kindPolicy, r.name) })
		return updatePolicy(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &iot.SetDefaultPolicyVersionResponse{}, nil
}

func (p *Policies) changeVersion(ctx context.Context, name, version string, fn func(context.Context, store.Tx, record, versionRecord) error) error {
	return p.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectPolicy(tx, name)
		if err != nil {
			return noPolicy(err, name)
		}
		v, err := selectVersion(tx, name, parseVersion(version))
		if err != nil {
			return noVersion(err, name, version)
		}
		return fn(ctx, tx, r, v)
	})
}
