package iam_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"flotilla/internal/aws"
	"flotilla/internal/iam"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// bus tells all nodes that were made with it.
type bus struct {
	mu        sync.Mutex
	listeners []func(string)
}

func (b *bus) Changed(_, key string) {
	b.mu.Lock()
	fns := b.listeners
	b.mu.Unlock()
	for _, fn := range fns {
		fn(key)
	}
}

func (b *bus) OnChange(_ string, fn func(string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners = append(b.listeners, fn)
}

func open(db *store.DB, b *bus, passphrase string) *iam.Keys {
	return iam.New(iam.Config{Passphrase: passphrase}, iam.Deps{Account: aws.Account{ID: "123456789012"}, DB: db, Changes: b})
}

func TestAdminKey(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		b := &bus{}
		var wg sync.WaitGroup
		keys := make([]*iam.Key, 4)
		for i := range keys {
			wg.Go(func() {
				k, err := open(db, b, "").EnsureAdmin(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				keys[i] = k
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for _, k := range keys {
			if *k != *keys[0] && (k.ID != keys[0].ID || k.Secret != keys[0].Secret) {
				t.Errorf("two admin keys: %s and %s", k.ID, keys[0].ID)
			}
		}
		k := keys[0]
		if !regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(k.ID) || len(k.Secret) != 40 {
			t.Errorf("key %q, secret of %d characters", k.ID, len(k.Secret))
		}
		want := "[default]\naws_access_key_id = " + k.ID + "\naws_secret_access_key = " + k.Secret + "\n"
		if got := string(k.Credentials()); got != want {
			t.Errorf("credentials file:\n%s", got)
		}
	})
}

// TestChangesReachOtherNodes: what one node changes, another follows.
func TestChangesReachOtherNodes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		b := &bus{}
		one, two := open(db, b, ""), open(db, b, "")
		ctx := t.Context()
		k, err := one.Create(ctx, "ann")
		if err != nil {
			t.Fatal(err)
		}
		check := func(want string) {
			t.Helper()
			for i, keys := range []*iam.Keys{one, two} {
				secret, p, err := keys.AccessKey(ctx, k.ID)
				if err != nil || secret != want {
					t.Errorf("node %d: secret known %v, want %v; %v", i, secret != "", want != "", err)
				}
				if want != "" && p != (aws.Principal{Type: "user", ID: k.ID, ARN: "arn:aws:iam::123456789012:user/ann"}) {
					t.Errorf("node %d: %+v", i, p)
				}
			}
		}
		check(k.Secret)
		for _, step := range []struct{ status, want string }{{iam.Inactive, ""}, {iam.Active, k.Secret}} {
			if err := one.SetStatus(ctx, k.ID, step.status); err != nil {
				t.Fatal(err)
			}
			check(step.want)
		}
		if err := two.Delete(ctx, k.ID); err != nil {
			t.Fatal(err)
		}
		check("")
		if err := two.Delete(ctx, k.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleting what is gone: %v", err)
		}
		if err := one.SetStatus(ctx, k.ID, "Asleep"); err == nil {
			t.Error("an unknown status is taken")
		}
	})
}

// TestAdminKeyOfNodes: nodes with connections of their own to one store.
func TestAdminKeyOfNodes(t *testing.T) {
	server := os.Getenv("FLOTILLA_TEST_POSTGRES")
	if server == "" {
		t.Skip("FLOTILLA_TEST_POSTGRES is not set")
	}
	url := storetest.Postgres(t, server)
	nodes := make([]*iam.Keys, 4)
	for i := range nodes {
		nodes[i] = open(storetest.OpenConfig(t, store.Config{Store: url, NodeID: fmt.Sprint(i)}), &bus{}, "")
	}
	ids := make([]string, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			k, err := n.EnsureAdmin(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("several admin keys: %v", ids)
		}
	}
}

func TestUnknownKeys(t *testing.T) {
	keys := open(storetest.Open(t), &bus{}, "")
	for _, id := range []string{"", "AKIA", "AKIAAAAAAAAAAAAAAAAA", "AKIA'; DROP TABLE access_key", strings.Repeat("A", 500)} {
		if secret, p, err := keys.AccessKey(t.Context(), id); secret != "" || err != nil || p != (aws.Principal{}) {
			t.Errorf("%.20q: %v", id, err)
		}
	}
}

func TestSealedSecrets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		plain, err := open(db, &bus{}, "").Create(ctx, "ann")
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := open(db, &bus{}, "correct horse").EnsureAdmin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Read(ctx, func(_ context.Context, tx store.Tx) error {
			var stored []byte
			err := tx.QueryRow(`SELECT secret FROM access_key WHERE id = $1`, sealed.ID).Scan(&stored)
			if strings.Contains(string(stored), sealed.Secret) {
				t.Error("the secret is stored as it is")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		keys := open(db, &bus{}, "correct horse")
		for _, k := range []*iam.Key{plain, sealed} {
			if secret, _, err := keys.AccessKey(ctx, k.ID); err != nil || secret != k.Secret {
				t.Errorf("%s: %v", k.Owner, err)
			}
		}
		for _, passphrase := range []string{"", "wrong"} {
			if _, err := open(db, &bus{}, passphrase).EnsureAdmin(ctx); err == nil || strings.Contains(err.Error(), sealed.Secret) {
				t.Errorf("passphrase %q: %v", passphrase, err)
			}
		}
	})
}

func BenchmarkAccessKey(b *testing.B) {
	keys := open(storetest.Open(b), &bus{}, "")
	k, err := keys.EnsureAdmin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if secret, _, err := keys.AccessKey(b.Context(), k.ID); err != nil || secret == "" {
			b.Fatal(err)
		}
	}
}
