package iam

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/store"
)

// defaultGrace is how long a rotated key goes on to sign.
const defaultGrace = 24 * time.Hour

// CreateAccessKey makes an active key for an identity. Its secret is not shown again.
func (i *Identities) CreateAccessKey(ctx context.Context, in *flotilla.CreateAccessKeyRequest) (*flotilla.CreateAccessKeyResponse, error) {
	r, err := i.keys.newKey(in.IdentityName)
	if err != nil {
		return nil, err
	}
	err = i.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := find(tx, in.IdentityName); err != nil {
			return err
		}
		if err := room(tx, in.IdentityName); err != nil {
			return err
		}
		return i.keys.add(ctx, tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &flotilla.CreateAccessKeyResponse{AccessKey: i.keyShape(&r.Key), SecretAccessKey: &r.Secret}, nil
}

// room makes sure that an identity may have one more key.
func room(tx store.Tx, owner string) error {
	n, err := countKeys(tx, owner)
	if err == nil && n >= maxKeys {
		return limitExceeded("An identity has at most %d access keys.", maxKeys)
	}
	return err
}

// ListAccessKeys lists keys by id, without their secrets.
func (i *Identities) ListAccessKeys(ctx context.Context, in *flotilla.ListAccessKeysRequest) (*flotilla.ListAccessKeysResponse, error) {
	most, after := page(in.MaxResults, in.NextToken)
	out := &flotilla.ListAccessKeysResponse{AccessKeys: []*flotilla.AccessKey{}}
	owner := ""
	if in.IdentityName != nil {
		owner = *in.IdentityName
	}
	err := i.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if owner != "" {
			if _, err := find(tx, owner); err != nil {
				return err
			}
		}
		list, err := selectKeys(tx, owner, after, most+1)
		if err != nil {
			return err
		}
		if len(list) > most {
			list, out.NextToken = list[:most], &list[most-1].ID
		}
		for _, r := range list {
			out.AccessKeys = append(out.AccessKeys, i.keyShape(&r.Key))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// UpdateAccessKey makes a key Active or Inactive. An inactive key signs nothing, and the connections that were made
// with it end.
func (i *Identities) UpdateAccessKey(ctx context.Context, in *flotilla.UpdateAccessKeyRequest) (*flotilla.UpdateAccessKeyResponse, error) {
	err := i.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if in.Status == Inactive {
			if err := i.notTheLast(tx, in.AccessKeyId); err != nil {
				return err
			}
		}
		return i.keys.SetStatus(ctx, in.AccessKeyId, in.Status)
	})
	if err != nil {
		return nil, noKey(err, in.AccessKeyId)
	}
	return &flotilla.UpdateAccessKeyResponse{}, nil
}

// DeleteAccessKey deletes a key, as UpdateAccessKey makes it inactive.
func (i *Identities) DeleteAccessKey(ctx context.Context, in *flotilla.DeleteAccessKeyRequest) (*flotilla.DeleteAccessKeyResponse, error) {
	err := i.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := i.notTheLast(tx, in.AccessKeyId); err != nil {
			return err
		}
		return i.keys.Delete(ctx, in.AccessKeyId)
	})
	if err != nil {
		return nil, noKey(err, in.AccessKeyId)
	}
	return &flotilla.DeleteAccessKeyResponse{}, nil
}

// RotateAccessKey makes a new active key for the identity of an active one, which becomes inactive by itself after a
// time of grace: a day when it is not given, at once when it is 0.
func (i *Identities) RotateAccessKey(ctx context.Context, in *flotilla.RotateAccessKeyRequest) (*flotilla.RotateAccessKeyResponse, error) {
	grace := defaultGrace
	if in.GraceSeconds != nil {
		grace = time.Duration(*in.GraceSeconds) * time.Second
	}
	var made, old *record
	err := i.db.Write(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		if old, err = selectKey(tx, in.AccessKeyId); err != nil {
			return err
		}
		now := i.keys.now()
		if !old.active(now) {
			return conflict("The access key %s is not active.", in.AccessKeyId)
		}
		if err := room(tx, old.Owner); err != nil {
			return err
		}
		if made, err = i.keys.newKey(old.Owner); err != nil {
			return err
		}
		if err := i.keys.add(ctx, tx, made); err != nil {
			return err
		}
		if grace == 0 {
			old.Status, old.Expires = Inactive, time.Time{}
			return i.keys.SetStatus(ctx, old.ID, Inactive)
		}
		if until := now.Add(grace); old.Expires.IsZero() || until.Before(old.Expires) {
			old.Expires = until
		}
		i.keys.changed(ctx, old.ID)
		return updateExpires(tx, old.ID, old.Expires)
	})
	if err != nil {
		return nil, noKey(err, in.AccessKeyId)
	}
	return &flotilla.RotateAccessKeyResponse{AccessKey: i.keyShape(&made.Key), SecretAccessKey: &made.Secret, Rotated: i.keyShape(&old.Key)}, nil
}

// notTheLast refuses to lock everybody out: the built-in identity keeps an active key that does not expire.
func (i *Identities) notTheLast(tx store.Tx, id string) error {
	r, err := selectKey(tx, id)
	if err != nil || r.Owner != Admin {
		return err
	}
	list, err := selectKeys(tx, Admin, "", maxKeys+1)
	if err != nil {
		return err
	}
	for _, other := range list {
		if other.ID != id && other.Status == Active && other.Expires.IsZero() {
			return nil
		}
	}
	return conflict("%s is the last key of the identity %s; rotate it.", id, Admin)
}

func (i *Identities) keyShape(k *Key) *flotilla.AccessKey {
	status := k.Status
	if !k.active(i.keys.now()) {
		status = Inactive
	}
	return &flotilla.AccessKey{
		AccessKeyId: &k.ID, IdentityName: &k.Owner, Status: &status, CreationDate: timestamp(k.Created),
		ExpirationDate: timestamp(k.Expires), LastUsedDate: timestamp(k.LastUsed),
	}
}

func noKey(err error, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return notFound("There is no access key %s.", id)
	}
	return err
}
