package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"flotilla/internal/api"
	"flotilla/internal/audit"
	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/bus"
	"flotilla/internal/iam"
	"flotilla/internal/registry"
	"flotilla/internal/store"
)

// signatures are who signs connections, and what they may do.
type signatures struct {
	*api.Server
	*iam.Identities
}

// resourceTags are the tags of resources, for the policies of identities.
type resourceTags struct{ registry *registry.Registry }

// Tags implements iam.Tags.
func (r resourceTags) Tags(ctx context.Context, arn string) (map[string]string, error) {
	out, err := r.registry.ListTagsForResource(ctx, &iot.ListTagsForResourceRequest{ResourceArn: arn})
	if err != nil {
		if exc, ok := errors.AsType[aws.Exception](err); ok && exc.StatusCode() < 500 { // there is no such resource, or no tags for its kind
			return nil, nil
		}
		return nil, err
	}
	tags := map[string]string{}
	for _, t := range out.Tags {
		if t.Value != nil {
			tags[t.Key] = *t.Value
		}
	}
	return tags, nil
}

// keepCredentials writes the key of the built-in identity to the credentials file, and again whenever keys change.
func (s *Server) keepCredentials(ctx context.Context, keys *iam.Keys, file string, news *bus.Bus) error {
	admin, err := keys.EnsureAdmin(ctx)
	if err != nil {
		return err
	}
	text := admin.Credentials()
	if err := writeFileAtomic(file, text, 0o600); err != nil {
		return err
	}
	wake := make(chan struct{}, 1)
	news.OnChange("accesskey", func(string) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	s.background(func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			admin, err := keys.EnsureAdmin(ctx)
			if err == nil && !bytes.Equal(text, admin.Credentials()) {
				text = admin.Credentials()
				err = writeFileAtomic(file, text, 0o600)
			}
			if err != nil && ctx.Err() == nil {
				s.log.Error("the credentials file can't be kept", "err", err)
			}
		}
	})
	return nil
}

func auditKey(secret string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("flotilla audit key\n" + secret))
	return ed25519.NewKeyFromSeed(seed[:])
}

// ReadAuditKey gives the name of the node with a data directory, and the public key that its log of changes is signed
// with.
func ReadAuditKey(data string) (node string, public ed25519.PublicKey, err error) {
	name, err := os.ReadFile(filepath.Join(data, "node-id"))
	if err != nil {
		return "", nil, err
	}
	secret, err := os.ReadFile(filepath.Join(data, "audit-key"))
	if err != nil {
		return "", nil, err
	}
	return strings.TrimSpace(string(name)), auditKey(strings.TrimSpace(string(secret))).Public().(ed25519.PublicKey), nil
}

// openAudit opens the log of changes. The key that signs its heads is made from a secret of the data directory.
func (s *Server) openAudit(ctx context.Context, dir *dataDir, db *store.DB, nodeID string) (*audit.Log, error) {
	secret, err := dir.secret("audit-key")
	if err != nil {
		return nil, err
	}
	l, err := audit.New(ctx, s.cfg.Audit, audit.Deps{DB: db, NodeID: nodeID, Key: auditKey(secret), Log: s.log})
	if err != nil {
		return nil, err
	}
	s.background(l.Run)
	return l, nil
}
