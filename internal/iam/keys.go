package iam

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/store"
)

const (
	kindAccessKey = "accesskey" // on the bus; key: access key id

	// Admin is the IAM user whose key is made at the first start.
	Admin = "admin"

	maxCached = 1024
)

// Status of an access key.
const (
	Active   = "Active"
	Inactive = "Inactive"
)

// Changes carries news of changes between the rooms of this node and of others.
type Changes interface {
	Changed(kind, key string)
	OnChange(kind string, fn func(key string))
}

// Config is the room's part of the configuration; its zero value works.
type Config struct {
	Passphrase       string        `name:"iam.passphrase" help:"Seals the secrets of access keys in the store."`
	LastUsedInterval time.Duration `name:"iam.last-used-interval" default:"30s" help:"How often the times at which access keys were last used are written down."`
}

// Deps are the others that the room works with.
type Deps struct {
	Account aws.Account
	DB      *store.DB
	Changes Changes
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // time.Now when nil
}

// Key is an access key.
type Key struct {
	ID, Secret string
	Owner      string // name of the IAM user
	Status     string // Active or Inactive
	Created    time.Time
	Expires    time.Time // becomes Inactive by itself; zero = never
	LastUsed   time.Time // give or take Config.LastUsedInterval; zero = not known
}

// active tells whether the key signs.
func (k *Key) active(now time.Time) bool {
	return k.Status == Active && (k.Expires.IsZero() || now.Before(k.Expires))
}

// Credentials is the key as an AWS shared-credentials file, profile default.
//
// AWS: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
func (k *Key) Credentials() []byte {
	return fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", k.ID, k.Secret)
}

// Keys is the room. It is safe for concurrent use.
type Keys struct {
	account aws.Account
	db      *store.DB
	bus     Changes
	now     func() time.Time
	log     *slog.Logger
	cfg     Config
	sealer  *sealer // nil without a passphrase
	cache   cache
	wake    chan struct{} // holds one: keys have changed
}

// New makes the room and subscribes it to changes.
func New(cfg Config, d Deps) *Keys {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.LastUsedInterval <= 0 {
		cfg.LastUsedInterval = 30 * time.Second
	}
	k := &Keys{account: d.Account, db: d.DB, bus: d.Changes, now: d.Now, log: d.Log, cfg: cfg, wake: make(chan struct{}, 1)}
	if cfg.Passphrase != "" {
		k.sealer = &sealer{passphrase: cfg.Passphrase}
	}
	d.Changes.OnChange(kindAccessKey, func(id string) {
		k.cache.forget(id)
		select {
		case k.wake <- struct{}{}:
		default:
		}
	})
	return k
}

// EnsureAdmin returns the oldest active key of the admin that is not about to
// expire, and makes one when there is none. Nodes that start together on one store get the same.
func (k *Keys) EnsureAdmin(ctx context.Context) (*Key, error) {
	for {
		key, err := k.admin(ctx)
		if !errors.Is(err, store.ErrNotFound) {
			return key, err
		}
		made, err := k.newKey(Admin)
		if err != nil {
			return nil, err
		}
		first := true
		err = k.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			if err := oneAtATime(tx); err != nil {
				return err
			}
			_, err := selectActive(tx, Admin, k.now())
			if first = errors.Is(err, store.ErrNotFound); !first {
				return err
			}
			return k.add(ctx, tx, made)
		})
		if err != nil {
			return nil, err
		}
		if first {
			return &made.Key, nil
		}
	}
}

func (k *Keys) admin(ctx context.Context) (*Key, error) {
	var r *record
	err := k.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		r, err = selectActive(tx, Admin, k.now())
		return err
	})
	if err != nil {
		return nil, err
	}
	return k.open(r)
}

// Create makes an active key for an IAM user. Its secret is not shown again.
func (k *Keys) Create(ctx context.Context, owner string) (*Key, error) {
	r, err := k.newKey(owner)
	if err != nil {
		return nil, err
	}
	err = k.db.Write(ctx, func(ctx context.Context, tx store.Tx) error { return k.add(ctx, tx, r) })
	if err != nil {
		return nil, err
	}
	return &r.Key, nil
}

func (k *Keys) add(ctx context.Context, tx store.Tx, r *record) error {
	k.changed(ctx, r.ID)
	return insertKey(tx, r)
}

func (k *Keys) changed(ctx context.Context, id string) {
	k.db.AfterCommit(ctx, func() { k.bus.Changed(kindAccessKey, id) })
}

// SetStatus makes a key Active or Inactive; an inactive one signs nothing.
// store.ErrNotFound when there is no such key.
func (k *Keys) SetStatus(ctx context.Context, id, status string) error {
	if status != Active && status != Inactive {
		return fmt.Errorf("iam: status %q is neither %s nor %s", status, Active, Inactive)
	}
	return k.change(ctx, id, func(tx store.Tx) (int64, error) { return updateStatus(tx, id, status) })
}

// Delete deletes a key. store.ErrNotFound when there is no such key.
func (k *Keys) Delete(ctx context.Context, id string) error {
	return k.change(ctx, id, func(tx store.Tx) (int64, error) { return deleteKey(tx, id) })
}

func (k *Keys) change(ctx context.Context, id string, fn func(store.Tx) (int64, error)) error {
	return k.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		n, err := fn(tx)
		if err != nil {
			return err
		}
		if n == 0 {
			return store.ErrNotFound
		}
		k.changed(ctx, id)
		return nil
	})
}

// AccessKey gives the secret of an active key and the user it belongs to; the
// secret is "" when there is no such key, or it is not active.
func (k *Keys) AccessKey(ctx context.Context, id string) (secret string, p aws.Principal, err error) {
	if !validID(id) {
		return "", aws.Principal{}, nil
	}
	cached, epoch := k.cache.get(id)
	var key *Key
	if cached != nil {
		key = &cached.Key
	} else {
		var r *record
		err := k.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
			r, err = selectKey(tx, id)
			return err
		})
		if errors.Is(err, store.ErrNotFound) {
			return "", aws.Principal{}, nil
		}
		if err != nil {
			return "", aws.Principal{}, err
		}
		if key, err = k.open(r); err != nil {
			return "", aws.Principal{}, err
		}
		k.cache.put(key, epoch)
	}
	if !key.active(k.now()) {
		return "", aws.Principal{}, nil
	}
	return key.Secret, aws.Principal{Type: "user", ID: key.ID, ARN: k.userARN(key.Owner)}, nil
}

// userARN names an identity as IAM names its users.
func (k *Keys) userARN(name string) string { return "arn:aws:iam::" + k.account.ID + ":user/" + name }

// userOf is the identity that a principal's ARN names; "" for others than users of this account.
func (k *Keys) userOf(p aws.Principal) string {
	name, ok := strings.CutPrefix(p.ARN, k.userARN(""))
	if !ok || p.Type != "user" {
		return ""
	}
	return name
}

// record is a key as the store has it.
type record struct {
	Key
	stored []byte // the secret, sealed or not
	sealed bool
}

func (k *Keys) newKey(owner string) (*record, error) {
	r := &record{Key: Key{ID: newID(), Secret: newSecret(), Owner: owner, Status: Active, Created: k.now()}}
	r.stored = []byte(r.Secret)
	if k.sealer == nil {
		return r, nil
	}
	var err error
	r.sealed = true
	r.stored, err = k.sealer.seal(r.ID, r.Secret)
	return r, err
}

func (k *Keys) open(r *record) (*Key, error) {
	switch {
	case !r.sealed:
		r.Secret = string(r.stored)
		return &r.Key, nil
	case k.sealer == nil:
		return nil, fmt.Errorf("iam: access key %s is sealed: iam.passphrase is needed", r.ID)
	}
	var err error
	if r.Secret, err = k.sealer.unseal(r.ID, r.stored); err != nil {
		return nil, fmt.Errorf("iam: access key %s can't be unsealed with this passphrase", r.ID)
	}
	return &r.Key, nil
}

// letters are those of access key ids: base 32.
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// newID makes an id as AWS's look: AKIA and 16 letters and digits.
func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = letters[b[i]%byte(len(letters))]
	}
	return "AKIA" + string(b)
}

// newSecret makes 240 random bits, in 40 characters as AWS's secrets have.
func newSecret() string {
	b := make([]byte, 30)
	rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

func validID(id string) bool {
	if len(id) < 16 || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// cache keeps keys by id, at most maxCached.
type cache struct {
	mu    sync.RWMutex
	epoch uint64 // rises with each forget: what was read before it is not kept
	byID  map[string]*cachedKey
	used  map[string]int64 // uses that are to be written, of keys that were dropped; at most maxCached
}

// cachedKey is a key with the time of its last use, which is to be written; 0 = none.
type cachedKey struct {
	Key
	used atomic.Int64
}

func (c *cache) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	if id != "" {
		c.drop(id)
		return
	}
	for id := range c.byID {
		c.drop(id)
	}
}

// drop drops a key, but not what is to be written of it.
func (c *cache) drop(id string) {
	k := c.byID[id]
	if k == nil {
		return
	}
	delete(c.byID, id)
	if at := k.used.Load(); at != 0 && len(c.used) < maxCached {
		if c.used == nil {
			c.used = map[string]int64{}
		}
		c.used[id] = at
	}
}

func (c *cache) get(id string) (key *cachedKey, epoch uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id], c.epoch
}

func (c *cache) put(key *Key, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	if c.byID == nil {
		c.byID = map[string]*cachedKey{}
	}
	if len(c.byID) >= maxCached {
		for old := range c.byID { // any: the order of a map is as good as chance
			c.drop(old)
			break
		}
	}
	c.byID[key.ID] = &cachedKey{Key: *key}
}

// uses takes what is to be written, by id, in milliseconds.
func (c *cache) uses() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.used
	if out == nil {
		out = map[string]int64{}
	}
	c.used = nil
	for id, k := range c.byID {
		if at := k.used.Swap(0); at != 0 {
			out[id] = at
		}
	}
	return out
}
