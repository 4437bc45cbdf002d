package provision

import (
	"context"

	"flotilla/internal/aws/iot"
	"flotilla/internal/provision/template"
	"flotilla/internal/store"
)

// CheckJustInTime tells whether a template can provision certificates when they first connect: one that is given by
// its body, or by the name of one of type JITP. Errors: ResourceNotFoundException, InvalidRequestException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jit-provisioning.html
func (t *Templates) CheckJustInTime(ctx context.Context, body, name string) error {
	if name != "" {
		_, _, err := t.justInTimeBody(ctx, name)
		return err
	}
	_, err := template.Parse(body, template.JITP)
	return exception(err)
}

// ProvisionJustInTime is JustInTime for a template that is given by its body or by its name.
func (t *Templates) ProvisionJustInTime(ctx context.Context, body, name string, subject map[string]string) (thingName string, err error) {
	if name != "" {
		var on bool
		if body, on, err = t.justInTimeBody(ctx, name); err != nil {
			return "", err
		}
		if !on {
			return "", invalid("Provisioning template " + name + " is not enabled.")
		}
	}
	return t.JustInTime(ctx, body, subject)
}

// justInTimeBody is the default version of a template of type JITP, and whether that is enabled.
func (t *Templates) justInTimeBody(ctx context.Context, name string) (body string, on bool, err error) {
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		r, err := selectTemplate(tx, name)
		switch {
		case err != nil:
			return noTemplate(err, name)
		case r.kind != iot.TemplateTypeJitp:
			return invalid("Provisioning template " + name + " is not of type JITP.")
		}
		v, err := selectVersion(tx, name, r.defaultVersion)
		if err == nil {
			body, on = v.body, r.enabled
		}
		return err
	})
	return body, on, err
}
