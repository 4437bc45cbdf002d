package registry

import (
	"context"
	"errors"
	"slices"
	"sync"

	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// maxKept is how many principals of a thing are kept with it in the cache; for a
// thing with more the table is asked.
const maxKept = 8

// known is a thing in the cache. It is not changed once it is there.
type known struct {
	thing      thing
	principals []string
	more       bool // there are others
}

// cache keeps things by name, at most so many, and names that no thing has, of
// which it forgets all when they are many.
type cache struct {
	most   int
	mu     sync.RWMutex
	epoch  uint64 // rises with each forget: what was read before it is not kept
	byKey  map[string]*known
	absent map[string]struct{}
}

func (c *cache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	if name == "" {
		c.byKey, c.absent = nil, nil
	} else {
		delete(c.byKey, name)
		delete(c.absent, name)
	}
}

// maxAbsent is small beside the things: clients choose their ids, and may try many.
const maxAbsent = 8192

func (c *cache) isAbsent(name string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, absent := c.absent[name]
	return absent
}

func (c *cache) putAbsent(name string, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	if c.absent == nil || len(c.absent) >= min(maxAbsent, c.most) {
		c.absent = map[string]struct{}{}
	}
	c.absent[name] = struct{}{}
}

func (c *cache) get(name string) (k *known, epoch uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byKey[name], c.epoch
}

func (c *cache) put(name string, k *known, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	if c.byKey == nil {
		c.byKey = map[string]*known{}
	}
	if len(c.byKey) >= c.most {
		for old := range c.byKey { // any: the order of a map is as good as chance
			delete(c.byKey, old)
			break
		}
	}
	c.byKey[name] = k
}

// find reads a thing through the cache, or from the transaction in ctx:
// store.ErrNotFound when there is none. The result is shared.
func (r *Registry) find(ctx context.Context, name string) (*known, error) {
	joined := store.InTransaction(ctx)
	k, epoch := r.cache.get(name)
	if k != nil && !joined {
		return k, nil
	}
	k = &known{}
	err := r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if k.thing, err = selectThing(tx, name); err != nil || joined {
			return err
		}
		k.principals, err = selectPrincipals(tx, name, "", maxKept+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	if joined {
		k.more = true // not read
		return k, nil
	}
	if len(k.principals) > maxKept {
		k.principals, k.more = k.principals[:maxKept], true
	}
	r.cache.put(name, k, epoch)
	return k, nil
}

// PolicyThing gives what policies may ask of the thing of that name, Attached
// being whether it is attached to the principal; nil when there is no such
// thing. Its Attributes are shared and must not be written to. On another node
// than the one where a thing is made it may be missing for the moment that the
// news takes; DescribeThing always looks.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
func (r *Registry) PolicyThing(ctx context.Context, thingName, principalARN string) (*lang.Thing, error) {
	joined := store.InTransaction(ctx)
	if !joined && r.cache.isAbsent(thingName) {
		return nil, nil
	}
	_, epoch := r.cache.get(thingName)
	k, err := r.find(ctx, thingName)
	if errors.Is(err, store.ErrNotFound) {
		if !joined {
			r.cache.putAbsent(thingName, epoch)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &lang.Thing{Name: k.thing.name, TypeName: k.thing.typeName, Attributes: k.thing.attributes}
	if t.Attached = slices.Contains(k.principals, principalARN); t.Attached || !k.more {
		return t, nil
	}
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		t.Attached, _, err = selectAttachment(tx, thingName, principalARN)
		return err
	})
	return t, err
}

// ThingGroupsOfPrincipal gives the ARNs of the groups that things attached to
// the principal are in, and of all parents of those groups, in order.
func (r *Registry) ThingGroupsOfPrincipal(ctx context.Context, principalARN string) (arns []string, err error) {
	var groups []group
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		groups, err = selectGroupsOfPrincipal(tx, principalARN)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		arns = append(arns, r.arn(groupResource, g.name))
		for _, a := range g.ancestors {
			arns = append(arns, r.arn(groupResource, a))
		}
	}
	slices.Sort(arns)
	return slices.Compact(arns), nil
}
