package authorizer

import (
	"context"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// SetDefaultAuthorizer names the authorizer of requests that name none, in place of the one before. AWS does not say
// what a second call does.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_SetDefaultAuthorizer.html
func (a *Authorizers) SetDefaultAuthorizer(ctx context.Context, in *iot.SetDefaultAuthorizerRequest) (*iot.SetDefaultAuthorizerResponse, error) {
	err := a.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := selectAuthorizer(tx, in.AuthorizerName); err != nil {
			return notFound(err, in.AuthorizerName)
		}
		a.changed(ctx, "")
		return upsertDefault(tx, in.AuthorizerName)
	})
	if err != nil {
		return nil, err
	}
	return &iot.SetDefaultAuthorizerResponse{AuthorizerName: &in.AuthorizerName, AuthorizerArn: new(a.arn(in.AuthorizerName))}, nil
}

// DescribeDefaultAuthorizer describes the default one.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeDefaultAuthorizer.html
func (a *Authorizers) DescribeDefaultAuthorizer(ctx context.Context, _ *iot.DescribeDefaultAuthorizerRequest) (*iot.DescribeDefaultAuthorizerResponse, error) {
	var r *record
	err := a.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		name, err := selectDefault(tx)
		if err != nil {
			return err
		}
		if name == "" {
			return noDefault()
		}
		r, err = selectAuthorizer(tx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.DescribeDefaultAuthorizerResponse{AuthorizerDescription: a.describe(r)}, nil
}

// ClearDefaultAuthorizer leaves requests that name no authorizer without one.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ClearDefaultAuthorizer.html
func (a *Authorizers) ClearDefaultAuthorizer(ctx context.Context, _ *iot.ClearDefaultAuthorizerRequest) (*iot.ClearDefaultAuthorizerResponse, error) {
	err := a.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		was, err := deleteDefault(tx)
		if err != nil {
			return err
		}
		if !was {
			return noDefault()
		}
		a.changed(ctx, "")
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.ClearDefaultAuthorizerResponse{}, nil
}

func noDefault() error {
	return &iot.ResourceNotFoundException{Message: "There is no default authorizer."}
}
