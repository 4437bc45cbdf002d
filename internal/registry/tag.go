package registry

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	maxTagKey   = 128 // characters
	maxTagValue = 256
)

// TagResource gives a resource tags, in the place of those with the same keys.
// Thing types, thing groups and billing groups have tags, and whatever other
// rooms have registered with [Registry.Use].
//
// Errors: iot.ResourceNotFoundException, LimitExceededException, InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_TagResource.html
func (r *Registry) TagResource(ctx context.Context, in *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := r.resource(ctx, tx, in.ResourceArn); err != nil {
			return err
		}
		return r.tagNew(tx, in.ResourceArn, in.Tags)
	})
	if err != nil {
		return nil, err
	}
	return &iot.TagResourceResponse{}, nil
}

// UntagResource takes tags away; keys that the resource does not have are passed
// over.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UntagResource.html
func (r *Registry) UntagResource(ctx context.Context, in *iot.UntagResourceRequest) (*iot.UntagResourceResponse, error) {
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := r.resource(ctx, tx, in.ResourceArn); err != nil {
			return err
		}
		for _, key := range in.TagKeys {
			if err := deleteTag(tx, in.ResourceArn, key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.UntagResourceResponse{}, nil
}

// ListTagsForResource lists all tags of a resource, by key.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListTagsForResource.html
func (r *Registry) ListTagsForResource(ctx context.Context, in *iot.ListTagsForResourceRequest) (*iot.ListTagsForResourceResponse, error) {
	out := &iot.ListTagsForResourceResponse{}
	err := r.db.Read(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		if err := r.resource(ctx, tx, in.ResourceArn); err != nil {
			return err
		}
		out.Tags, err = selectTags(tx, in.ResourceArn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteTags takes all tags from a resource that is being deleted; it joins a
// Write in ctx.
func (r *Registry) DeleteTags(ctx context.Context, resourceARN string) error {
	return r.db.Write(ctx, func(_ context.Context, tx store.Tx) error { return deleteTags(tx, resourceARN) })
}

// resource checks that a resource exists that may have tags.
func (r *Registry) resource(ctx context.Context, tx store.Tx, arn string) error {
	rest, ok := strings.CutPrefix(arn, r.account.ARN("iot", ""))
	kind, name, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || name == "" {
		return invalid("Invalid resource ARN: %s", arn)
	}
	switch kind + "/" {
	case typeResource:
		_, err := selectType(tx, name)
		return noType(err, name)
	case groupResource:
		_, err := selectGroup(tx, name)
		return noGroup(err, name)
	case billingResource:
		_, err := selectBillingGroup(tx, name)
		return noBillingGroup(err, name)
	}
	if exists := r.taggable[kind]; exists != nil {
		return exists(ctx, name)
	}
	return invalid("Resources of this kind can't have tags: %s", arn)
}

// tagNew gives tags to a resource that is known to exist.
func (r *Registry) tagNew(tx store.Tx, arn string, tags []*iot.Tag) error {
	if len(tags) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for _, t := range tags {
		switch {
		case t == nil || t.Key == "" || utf8.RuneCountInString(t.Key) > maxTagKey || utf8.RuneCountInString(value(t.Value)) > maxTagValue:
			return invalid("A tag's key must have 1 to %d characters, its value at most %d", maxTagKey, maxTagValue)
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
			return invalid("Tag keys that start with aws: are reserved")
		case seen[t.Key]:
			return invalid("Duplicate tag key: %s", t.Key)
		}
		seen[t.Key] = true
		if err := upsertTag(tx, arn, t.Key, value(t.Value)); err != nil {
			return err
		}
	}
	list, err := selectTags(tx, arn)
	if err != nil {
		return err
	}
	if len(list) > r.cfg.MaxTags {
		return &iot.LimitExceededException{Message: fmt.Sprintf("A resource can have at most %d tags", r.cfg.MaxTags)}
	}
	return nil
}

func upsertTag(tx store.Tx, arn, key, value string) error {
	_, err := tx.Exec(`INSERT INTO tag (resource, key, value) VALUES ($1, $2, $3)
		ON CONFLICT (resource, key) DO UPDATE SET value = EXCLUDED.value`, arn, key, value)
	return err
}

func deleteTag(tx store.Tx, arn, key string) error {
	_, err := tx.Exec(`DELETE FROM tag WHERE resource = $1 AND key = $2`, arn, key)
	return err
}

func deleteTags(tx store.Tx, arn string) error {
	_, err := tx.Exec(`DELETE FROM tag WHERE resource = $1`, arn)
	return err
}

func selectTags(tx store.Tx, arn string) ([]*iot.Tag, error) {
	rows, err := tx.Query(`SELECT key, value FROM tag WHERE resource = $1 ORDER BY key`, arn)
	type row struct{ key, value string }
	list, err := collect(rows, err, func(r *row) []any { return []any{&r.key, &r.value} })
	var out []*iot.Tag
	for _, t := range list {
		out = append(out, &iot.Tag{Key: t.key, Value: &t.value})
	}
	return out, err
}
