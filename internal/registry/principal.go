package registry

import (
	"context"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// AttachThingPrincipal attaches a certificate to a thing; attaching it again
// changes nothing but the type, if one is given. With EXCLUSIVE_THING the thing
// is the only one that the certificate may be attached to.
//
// Errors: iot.ResourceNotFoundException (thing, certificate), InvalidRequestException (no certificate's ARN, exclusiveness).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AttachThingPrincipal.html
func (r *Registry) AttachThingPrincipal(ctx context.Context, in *iot.AttachThingPrincipalRequest) (*iot.AttachThingPrincipalResponse, error) {
	id, ok := strings.CutPrefix(in.Principal, r.account.ARN("iot", certResource))
	if !ok || id == "" || strings.Trim(id, "0123456789abcdef") != "" { // another spelling of the id would be another principal
		return nil, invalid("Invalid principal: %s", in.Principal)
	}
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := touchThing(tx, in.ThingName); err != nil {
			return noThing(err, in.ThingName)
		}
		if _, err := r.certificates.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: id}); err != nil {
			return err
		}
		return r.attach(ctx, tx, in)
	})
	if err != nil {
		return nil, err
	}
	return &iot.AttachThingPrincipalResponse{}, nil
}

func (r *Registry) attach(ctx context.Context, tx store.Tx, in *iot.AttachThingPrincipalRequest) error {
	if err := touchPrincipal(tx, in.Principal); err != nil {
		return err
	}
	exclusive := value(in.ThingPrincipalType) == iot.ThingPrincipalTypeExclusiveThing
	others, err := selectAttached(tx, in.Principal, "", nil, 2)
	if err != nil {
		return err
	}
	for _, o := range others {
		switch {
		case o.thing == in.ThingName:
			if in.ThingPrincipalType == nil || o.exclusive == exclusive {
				return nil
			}
		case o.exclusive:
			return invalid("Principal %s is attached to another thing exclusively", in.Principal)
		case exclusive:
			return invalid("Principal %s is attached to another thing and can't be attached exclusively", in.Principal)
		}
	}
	if err := upsertAttachment(tx, in.ThingName, in.Principal, exclusive, in.ThingPrincipalType != nil); err != nil {
		return err
	}
	r.changed(ctx, kindThing, in.ThingName)
	r.changed(ctx, kindPrincipal, in.Principal)
	return nil
}

// DetachThingPrincipal detaches a principal from a thing; detaching one that is
// not attached succeeds.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DetachThingPrincipal.html
func (r *Registry) DetachThingPrincipal(ctx context.Context, in *iot.DetachThingPrincipalRequest) (*iot.DetachThingPrincipalResponse, error) {
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := hasThing(tx, in.ThingName); err != nil {
			return noThing(err, in.ThingName)
		}
		was, err := deleteAttachment(tx, in.ThingName, in.Principal)
		if err != nil || !was {
			return err
		}
		left, err := selectAttached(tx, in.Principal, "", nil, 1)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			if err := forgetPrincipal(tx, in.Principal); err != nil {
				return err
			}
		}
		r.changed(ctx, kindThing, in.ThingName)
		r.changed(ctx, kindPrincipal, in.Principal)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.DetachThingPrincipalResponse{}, nil
}

func principalType(exclusive bool) *string {
	if exclusive {
		return new(iot.ThingPrincipalTypeExclusiveThing)
	}
	return new(iot.ThingPrincipalTypeNonExclusiveThing)
}

// wanted is the filter of the V2 lists; nil is any.
func wanted(principalType *string) *bool {
	if principalType == nil {
		return nil
	}
	return new(*principalType == iot.ThingPrincipalTypeExclusiveThing)
}

// ListThingPrincipals lists the ARNs of a thing's principals.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingPrincipals.html
func (r *Registry) ListThingPrincipals(ctx context.Context, in *iot.ListThingPrincipalsRequest) (*iot.ListThingPrincipalsResponse, error) {
	list, next, err := r.principalsOf(ctx, in.ThingName, nil, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &iot.ListThingPrincipalsResponse{NextToken: next}
	for _, a := range list {
		out.Principals = append(out.Principals, a.principal)
	}
	return out, nil
}

// ListThingPrincipalsV2 lists a thing's principals with the type of their
// attachment, those of one type if one is given.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingPrincipalsV2.html
func (r *Registry) ListThingPrincipalsV2(ctx context.Context, in *iot.ListThingPrincipalsV2Request) (*iot.ListThingPrincipalsV2Response, error) {
	list, next, err := r.principalsOf(ctx, in.ThingName, wanted(in.ThingPrincipalType), in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &iot.ListThingPrincipalsV2Response{NextToken: next}
	for _, a := range list {
		out.ThingPrincipalObjects = append(out.ThingPrincipalObjects, &iot.ThingPrincipalObject{
			Principal: a.principal, ThingPrincipalType: principalType(a.exclusive),
		})
	}
	return out, nil
}

func (r *Registry) principalsOf(ctx context.Context, thing string, exclusive *bool, token *string, size *int32) (list []attachment, next *string, err error) {
	from, err := parseToken(token, 1)
	if err != nil {
		return nil, nil, err
	}
	n := pageSize(size)
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if err := hasThing(tx, thing); err != nil {
			return notFound(err, "Failed to list principals for thing %s because the thing does not exist in your account", thing)
		}
		list, err = selectAttachments(tx, thing, from[0], exclusive, n+1)
		list, next = cut(list, n, func(a attachment) string { return a.principal })
		return err
	})
	return list, next, err
}

// ListPrincipalThings lists the names of the things that a principal is attached
// to.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListPrincipalThings.html
func (r *Registry) ListPrincipalThings(ctx context.Context, in *iot.ListPrincipalThingsRequest) (*iot.ListPrincipalThingsResponse, error) {
	list, next, err := r.thingsOf(ctx, in.Principal, nil, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &iot.ListPrincipalThingsResponse{NextToken: next}
	for _, a := range list {
		out.Things = append(out.Things, a.thing)
	}
	return out, nil
}

// ListPrincipalThingsV2 lists the things that a principal is attached to with
// the type of the attachment, those of one type if one is given.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListPrincipalThingsV2.html
func (r *Registry) ListPrincipalThingsV2(ctx context.Context, in *iot.ListPrincipalThingsV2Request) (*iot.ListPrincipalThingsV2Response, error) {
	list, next, err := r.thingsOf(ctx, in.Principal, wanted(in.ThingPrincipalType), in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &iot.ListPrincipalThingsV2Response{NextToken: next}
	for _, a := range list {
		out.PrincipalThingObjects = append(out.PrincipalThingObjects, &iot.PrincipalThingObject{
			ThingName: a.thing, ThingPrincipalType: principalType(a.exclusive),
		})
	}
	return out, nil
}

func (r *Registry) thingsOf(ctx context.Context, principal string, exclusive *bool, token *string, size *int32) (list []attachment, next *string, err error) {
	from, err := parseToken(token, 1)
	if err != nil {
		return nil, nil, err
	}
	n := pageSize(size)
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list, err = selectAttached(tx, principal, from[0], exclusive, n+1)
		list, next = cut(list, n, func(a attachment) string { return a.thing })
		return err
	})
	return list, next, err
}

// attachment is a row of thing_principal.
type attachment struct {
	thing, principal string
	exclusive        bool
}

// touchPrincipal makes nodes that attach a principal at the same time contend.
func touchPrincipal(tx store.Tx, principal string) error {
	_, err := tx.Exec(`INSERT INTO attached_principal (principal, changes) VALUES ($1, 1)
		ON CONFLICT (principal) DO UPDATE SET changes = attached_principal.changes + 1`, principal)
	return err
}

func forgetPrincipal(tx store.Tx, principal string) error {
	_, err := tx.Exec(`DELETE FROM attached_principal WHERE principal = $1`, principal)
	return err
}

// upsertAttachment attaches; the type of one that is there changes only if the
// caller gave it.
func upsertAttachment(tx store.Tx, thing, principal string, exclusive, given bool) error {
	_, err := tx.Exec(`INSERT INTO thing_principal (thing, principal, exclusive) VALUES ($1, $2, $3)
		ON CONFLICT (thing, principal) DO UPDATE SET exclusive = EXCLUDED.exclusive WHERE $4`, thing, principal, exclusive, given)
	return err
}

func deleteAttachment(tx store.Tx, thing, principal string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM thing_principal WHERE thing = $1 AND principal = $2`, thing, principal)
	return n > 0, err
}

// selectAttachment tells whether and how a principal is attached to a thing.
func selectAttachment(tx store.Tx, thing, principal string) (attached, exclusive bool, err error) {
	rows, err := tx.Query(`SELECT exclusive FROM thing_principal WHERE thing = $1 AND principal = $2`, thing, principal)
	list, err := collect(rows, err, func(b *bool) []any { return []any{b} })
	return len(list) > 0, len(list) > 0 && list[0], err
}

func selectPrincipals(tx store.Tx, thing, after string, limit int) ([]string, error) {
	return selectNames(tx, `SELECT principal FROM thing_principal WHERE thing = $1 AND principal > $2 ORDER BY principal LIMIT $3`, thing, after, limit)
}

// selectAttachments pages the principals of a thing; exclusive nil is any.
func selectAttachments(tx store.Tx, thing, after string, exclusive *bool, limit int) ([]attachment, error) {
	query := `SELECT thing, principal, exclusive FROM thing_principal WHERE thing = $1 AND principal > $2`
	return attachments(tx, query, `principal`, []any{thing, after, limit}, exclusive)
}

// selectAttached pages the things of a principal; exclusive nil is any.
func selectAttached(tx store.Tx, principal, after string, exclusive *bool, limit int) ([]attachment, error) {
	query := `SELECT thing, principal, exclusive FROM thing_principal WHERE principal = $1 AND thing > $2`
	return attachments(tx, query, `thing`, []any{principal, after, limit}, exclusive)
}

func attachments(tx store.Tx, query, order string, args []any, exclusive *bool) ([]attachment, error) {
	if exclusive != nil {
		query += ` AND exclusive = $4`
		args = append(args, *exclusive)
	}
	rows, err := tx.Query(query+` ORDER BY `+order+` LIMIT $3`, args...)
	return collect(rows, err, func(a *attachment) []any { return []any{&a.thing, &a.principal, &a.exclusive} })
}
