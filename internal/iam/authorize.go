package iam

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

const kindIdentity = "identity" // on the bus; key: name of the identity

// Tags knows the tags of resources, for policies that ask for them.
type Tags interface {
	// Tags gives the tags of the resource with an ARN; none for what does not exist or can't have tags.
	Tags(ctx context.Context, arn string) (map[string]string, error)
}

// Identities are who may call the APIs, and what each may do. It is safe for concurrent use.
type Identities struct {
	keys    *Keys
	db      *store.DB
	bus     Changes
	tags    Tags
	managed *managedPolicies

	epoch atomic.Uint64 // rises with each change of an identity
	mu    sync.RWMutex
	byID  map[string]*identity // by name, at most maxCached
}

// NewIdentities makes the part of the room that decides; tags may be nil when no policy will ask for tags of resources.
func NewIdentities(keys *Keys, tags Tags) *Identities {
	i := &Identities{keys: keys, db: keys.db, bus: keys.bus, tags: tags, managed: openManaged(), byID: map[string]*identity{}}
	keys.bus.OnChange(kindIdentity, i.forget)
	return i
}

// identity is an identity that is ready to decide. It is immutable.
type identity struct {
	name string
	set  *lang.Set
	tags map[string]string // keys in lower case
	asks bool              // a policy names tags of resources
}

func (i *Identities) forget(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.epoch.Add(1)
	if name == "" {
		clear(i.byID)
	} else {
		delete(i.byID, name)
	}
}

func (i *Identities) load(ctx context.Context, name string) (*identity, error) {
	i.mu.RLock()
	one := i.byID[name]
	epoch := i.epoch.Load()
	i.mu.RUnlock()
	if one != nil {
		return one, nil
	}
	one = &identity{name: name, tags: map[string]string{}}
	err := i.db.Read(ctx, func(_ context.Context, tx store.Tx) error { return i.read(tx, one) })
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.epoch.Load() != epoch {
		return one, nil
	}
	if len(i.byID) >= maxCached {
		for old := range i.byID { // any
			delete(i.byID, old)
			break
		}
	}
	i.byID[name] = one
	return one, nil
}

// read fills in what an identity may do: nothing when it does not exist.
func (i *Identities) read(tx store.Tx, one *identity) error {
	one.set = lang.Compile()
	r, err := find(tx, one.name)
	if err != nil {
		if _, gone := errors.AsType[aws.Exception](err); gone {
			return nil
		}
		return err
	}
	for k, v := range r.tags {
		one.tags[strings.ToLower(k)] = v
	}
	list, err := policiesOf(tx, one.name)
	if err != nil {
		return err
	}
	var docs []lang.Named
	for _, a := range list {
		doc := i.managed.documents[a.name]
		if a.document != "" {
			if doc, err = lang.Parse(a.document); err != nil {
				return err
			}
		}
		if doc == nil { // a managed policy of another version
			continue
		}
		docs = append(docs, lang.Named{Name: a.name, Document: doc})
		one.asks = one.asks || asksForTags(doc)
	}
	one.set = lang.Compile(docs...)
	return nil
}

const resourceTag = "aws:resourcetag/"

func asksForTags(d *lang.Document) bool {
	for _, s := range d.Statements {
		for _, c := range s.Conditions {
			if strings.HasPrefix(strings.ToLower(c.Key), resourceTag) {
				return true
			}
			for _, v := range c.Values {
				if strings.Contains(strings.ToLower(v), resourceTag) {
					return true
				}
			}
		}
		for _, r := range s.Resources {
			if strings.Contains(strings.ToLower(r), resourceTag) {
				return true
			}
		}
	}
	return false
}

// Authorize decides whether the holder of a key may do an action on a resource, by IAM's evaluation of the policies
// of the key's identity. conn says what else policies may ask of the request; it is not kept.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
func (i *Identities) Authorize(ctx context.Context, p aws.Principal, action, resource string, conn *lang.Connection) (lang.Decision, error) {
	one, err := i.load(ctx, i.keys.userOf(p))
	if err != nil {
		return lang.Decision{}, err
	}
	i.keys.touch(p.ID)
	return i.evaluate(ctx, one, p, action, resource, conn)
}

func (i *Identities) evaluate(ctx context.Context, one *identity, p aws.Principal, action, resource string, conn *lang.Connection) (lang.Decision, error) {
	var failed error
	var tags map[string]string
	c := *conn
	c.Lookup = func(key string) []string {
		if name, ok := strings.CutPrefix(key, "aws:principaltag/"); ok {
			return value(one.tags[name])
		}
		switch key {
		case "aws:username":
			return value(one.name)
		case "aws:userid":
			return value(p.ID)
		case "aws:principalarn":
			return value(p.ARN)
		case "aws:principalaccount":
			return value(i.keys.account.ID)
		case "aws:principaltype":
			return value("User")
		}
		if name, ok := strings.CutPrefix(key, resourceTag); ok {
			if tags == nil && failed == nil {
				tags, failed = i.tagsOf(ctx, resource)
			}
			return value(tags[name])
		}
		if conn.Lookup == nil {
			return nil
		}
		return conn.Lookup(key)
	}
	d := one.set.Evaluate(&c, action, resource)
	if failed != nil { // whatever was decided, it was decided without the tags
		return lang.Decision{}, failed
	}
	return d, nil
}

func value(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// tagsOf gives the tags of a resource, keys in lower case.
func (i *Identities) tagsOf(ctx context.Context, arn string) (map[string]string, error) {
	out := map[string]string{}
	if i.tags == nil || arn == "*" {
		return out, nil
	}
	tags, err := i.tags.Tags(ctx, arn)
	for k, v := range tags {
		out[strings.ToLower(k)] = v
	}
	return out, err
}

// Open gives the authorizer of a connection that an access key has signed: iot:Connect, iot:Publish and so on are
// decided as for the API. Its answers follow every change of the identity.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iam-users-groups-roles.html
func (i *Identities) Open(ctx context.Context, p aws.Principal, conn *lang.Connection) (lang.Authorizer, error) {
	epoch := i.epoch.Load()
	one, err := i.load(ctx, i.keys.userOf(p))
	if err != nil {
		return nil, err
	}
	i.keys.touch(p.ID)
	h := &holder{of: i, p: p, conn: conn}
	h.now.Store(&loaded{one, epoch})
	return h, nil
}

// holder is the lang.Authorizer of a connection.
type holder struct {
	of   *Identities
	p    aws.Principal
	conn *lang.Connection
	now  atomic.Pointer[loaded]
}

// loaded is an identity as it was when Identities had an epoch.
type loaded struct {
	*identity
	epoch uint64
}

// reloadTime bounds how long a decision waits for the store.
const reloadTime = 5 * time.Second

// Authorize implements lang.Authorizer. What can't be decided is denied.
func (h *holder) Authorize(action, resource string) lang.Decision {
	ctx, cancel := context.WithTimeout(context.Background(), reloadTime)
	defer cancel()
	one := h.now.Load()
	if epoch := h.of.epoch.Load(); one.epoch != epoch {
		again, err := h.of.load(ctx, one.name)
		if err != nil {
			h.of.keys.log.Error("the policies of an identity can't be read", "principal", h.p.ID, "err", err)
			return lang.Decision{}
		}
		one = &loaded{again, epoch}
		h.now.Store(one)
	}
	return h.decide(ctx, one.identity, action, resource)
}

func (h *holder) decide(ctx context.Context, one *identity, action, resource string) lang.Decision {
	c := *h.conn
	if one.set.UsesTime() {
		c.Time = h.of.keys.now()
	}
	d, err := h.of.evaluate(ctx, one, h.p, action, resource, &c)
	if err != nil {
		h.of.keys.log.Error("the tags of a resource can't be read", "principal", h.p.ID, "resource", resource, "err", err)
		return lang.Decision{}
	}
	return d
}

// Epoch numbers the state that decisions rest on; ok is false when none may be kept.
func (h *holder) Epoch() (uint64, bool) {
	epoch := h.of.epoch.Load() // before the policies: who sees the old number asks again
	one := h.now.Load()
	return epoch, !one.set.UsesTime() && !one.asks
}

// Cached decides at once; ok is false when that needs the store.
func (h *holder) Cached(action, resource string) (lang.Decision, bool) {
	one := h.now.Load()
	if one.asks || one.epoch != h.of.epoch.Load() {
		return lang.Decision{}, false
	}
	return h.decide(context.Background(), one.identity, action, resource), true
}
