package policy

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	maxBases  = 32768 // principals whose policies are kept in process
	maxThings = 250   // things of a principal that are watched one by one; beyond, all are
)

// basis is what the decisions about a principal rest on, but for the thing of a client id: the names of its policies
// in force, and everything whose change may change them. It is immutable but for its generation.
type basis struct {
	generation atomic.Uint64 // for which it is known to be so
	names      []string      // in order
	exclusive  string        // the thing to which it is attached exclusively; "" none
	deps       []dependency
}

// bases keeps what was read about principals, at most maxBases of them. Nothing is taken out when something changes: a
// basis is compared with what has changed since, as the state of a connection is.
type bases struct {
	mu sync.RWMutex
	of map[string]*basis // by ARN
}

func (k *bases) get(arn string) *basis {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.of[arn]
}

func (k *bases) put(arn string, b *basis) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of = map[string]*basis{}
	}
	if _, there := k.of[arn]; !there && len(k.of) >= maxBases {
		for old := range k.of { // any: the order of a map is as good as chance
			delete(k.of, old)
			break
		}
	}
	k.of[arn] = b
}

// basis gives what decisions about a principal rest on, from what was read before if nothing of it has changed.
// That a principal has no policy is not kept: it can do nothing anyway, and it is about to get one perhaps, on
// another node, before it connects here.
func (p *Policies) basis(ctx context.Context, principal aws.Principal) (*basis, error) {
	joined := store.InTransaction(ctx)
	if b := p.bases.get(principal.ARN); b != nil && !joined {
		now, changed := p.changes.since(b.generation.Load(), b.deps)
		if !changed {
			b.generation.Store(now)
			return b, nil
		}
	}
	b := &basis{}
	b.generation.Store(p.changes.generation.Load())                     // first: what changes while we read counts as later
	err := p.db.Read(ctx, func(ctx context.Context, _ store.Tx) error { // one view of the store for all of it
		names, deps, err := p.inForce(ctx, principal.ARN)
		if err != nil {
			return err
		}
		b.names, b.deps, b.exclusive = names, slices.Concat(own(principal), deps), ""
		for _, n := range names {
			b.deps = append(b.deps, dependency{kindPolicy, n})
		}
		if len(deps) > 0 { // else it has no things
			b.exclusive, err = p.exclusiveName(ctx, principal.ARN)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(b.names) > 0 && !joined {
		p.bases.put(principal.ARN, b)
	}
	return b, nil
}

// own is what every decision about a principal rests on.
func own(principal aws.Principal) []dependency {
	return []dependency{{kindCertificate, principal.ID}, {kindPrincipal, principal.ARN}}
}

// inForce names the policies of a principal and of the groups of its things, in order, and what that rests on beside
// the principal.
func (p *Policies) inForce(ctx context.Context, principalARN string) (names []string, deps []dependency, err error) {
	things, err := p.things.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: principalARN, MaxResults: new(int32(maxThings))})
	if err != nil {
		return nil, nil, err
	}
	targets := []string{principalARN}
	if len(things.Things) > 0 {
		for _, t := range things.Things {
			deps = append(deps, dependency{kindThing, t})
		}
		if things.NextToken != nil {
			deps = []dependency{{kindThing, ""}}
		}
		groups, err := p.things.ThingGroupsOfPrincipal(ctx, principalARN)
		if err != nil {
			return nil, nil, err
		}
		for _, g := range groups {
			deps = append(deps, dependency{kindPrincipal, g})
		}
		targets = append(targets, groups...)
	}
	names, err = p.attachedTo(ctx, targets)
	return names, deps, err
}

// with is deps with one more, if it is not there. It does not write to deps, which others share.
func with(deps []dependency, d dependency) []dependency {
	if slices.Contains(deps, d) {
		return deps
	}
	return append(slices.Clip(deps), d)
}
