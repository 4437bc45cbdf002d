package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/policy/lang"
)

const (
	maxSets      = 1024 // compiled sets kept in process
	maxDocuments = 4096 // parsed documents kept in process
	maxChanges   = 8192 // changes remembered one by one, in each of two generations
	maxDecisions = 16   // decisions kept for a connection

	rebuildDeadline = 5 * time.Second
)

// changes remembers what changed when, in a bounded way. The zero value is ready.
type changes struct {
	generation atomic.Uint64
	serial     atomic.Uint64 // of states
	mu         sync.Mutex
	at         map[dependency]uint64
	before     map[dependency]uint64 // those before the first of at
	kinds      map[string]uint64     // the last change of each kind
	floor      uint64                // everything may have changed up to here
	turned     uint64                // the last change in before
}

// dependency is what a decision rests on: a kind of the bus, and its key, "" being all of the kind.
type dependency struct{ kind, key string }

// changed notes a change; key "" is everything of the kind.
func (c *changes) changed(kind, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.generation.Load() + 1
	if c.kinds == nil {
		c.kinds = map[string]uint64{}
	}
	c.kinds[kind] = next
	if key == "" {
		c.at, c.before, c.floor, c.turned = nil, nil, next, next
	} else {
		if len(c.at) >= maxChanges { // the older half is forgotten: what rests on it and was not looked at since is read again
			c.at, c.before, c.floor, c.turned = nil, c.at, c.turned, next-1
		}
		if c.at == nil {
			c.at = map[dependency]uint64{}
		}
		c.at[dependency{kind, key}] = next
	}
	c.generation.Store(next) // last: who reads it finds the entry
}

// since reports whether one of deps changed after generation g, and the generation for which that is so.
func (c *changes) since(g uint64, deps []dependency) (now uint64, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now = c.generation.Load()
	if c.floor > g {
		return now, true
	}
	for _, d := range deps {
		if c.at[d] > g || c.before[d] > g || d.key == "" && c.kinds[d.kind] > g {
			return now, true
		}
	}
	return now, false
}

// compiled caches parsed documents by policy name, and sets by the names in them.
type compiled struct {
	mu        sync.Mutex
	epoch     uint64 // rises with each forget: what was read before it is not kept
	documents map[string]*lang.Document
	sets      map[string]*lang.Set
}

func (c *compiled) forget(policy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.sets = nil
	if policy == "" {
		c.documents = nil
	} else {
		delete(c.documents, policy)
	}
}

// set gives the compiled set of the policies that exist among names, which it sorts.
func (p *Policies) set(ctx context.Context, names []string) (*lang.Set, error) {
	slices.Sort(names)
	names = slices.Compact(names)
	key := strings.Join(names, "\x00")
	p.compiled.mu.Lock()
	s, epoch := p.compiled.sets[key], p.compiled.epoch
	p.compiled.mu.Unlock()
	if s != nil {
		return s, nil
	}
	var named []lang.Named
	for _, n := range names {
		d, err := p.document(ctx, n, epoch)
		if err != nil {
			return nil, err
		}
		if d != nil {
			named = append(named, lang.Named{Name: n, Document: d})
		}
	}
	s = lang.Compile(named...)
	p.compiled.mu.Lock()
	defer p.compiled.mu.Unlock()
	if p.compiled.epoch == epoch { // else it may be old already
		if p.compiled.sets == nil || len(p.compiled.sets) >= maxSets {
			p.compiled.sets = map[string]*lang.Set{}
		}
		p.compiled.sets[key] = s
	}
	return s, nil
}

// document gives the default version of a policy, parsed; nil when there is no such policy.
func (p *Policies) document(ctx context.Context, name string, epoch uint64) (*lang.Document, error) {
	p.compiled.mu.Lock()
	d := p.compiled.documents[name]
	p.compiled.mu.Unlock()
	if d != nil {
		return d, nil
	}
	text, err := p.defaultDocument(ctx, name)
	if err != nil || text == "" {
		return nil, err
	}
	if d, err = lang.Parse(text); err != nil {
		return nil, fmt.Errorf("policy: stored document of %s: %w", name, err)
	}
	p.compiled.mu.Lock()
	defer p.compiled.mu.Unlock()
	if p.compiled.epoch == epoch {
		if p.compiled.documents == nil || len(p.compiled.documents) >= maxDocuments {
			p.compiled.documents = map[string]*lang.Document{}
		}
		p.compiled.documents[name] = d
	}
	return d, nil
}

// authorizer is the lang.Authorizer of one connection.
type authorizer struct {
	policies  *Policies
	principal aws.Principal // zero: governed by the policy named
	named     string
	conn      lang.Connection
	state     atomic.Pointer[state]
	rebuild   sync.Mutex
}

// state is what a connection's decisions rest on, as of a generation.
type state struct {
	generation atomic.Uint64
	serial     uint64    // no other state has it
	set        *lang.Set // nil: nothing is allowed
	confined   bool
	conn       lang.Connection
	deps       []dependency

	mu   sync.Mutex
	kept []kept // a ring of decisions
	next int
}

type kept struct {
	action, resource string
	decision         *lang.Decision
}

// Open gives the authorizer of a connection that has identified itself as principal. conn is copied; its Thing is
// looked up here, by client id, and again whenever it changes. A principal that may no longer act (its certificate
// is not ACTIVE) is denied everything; a claim certificate may do nothing but provisioning by its template.
//
// Authorize may read the store, once after each change that concerns the connection; when that fails it denies.
// It needs no closing.
func (p *Policies) Open(ctx context.Context, principal aws.Principal, conn *lang.Connection) (lang.Authorizer, error) {
	a := &authorizer{policies: p, principal: principal, conn: *conn}
	return a.open(ctx)
}

// OpenNamed gives the authorizer of a connection without a principal, governed by one policy, which need not exist
// yet: without it everything is denied.
func (p *Policies) OpenNamed(ctx context.Context, policyName string, conn *lang.Connection) (lang.Authorizer, error) {
	a := &authorizer{policies: p, named: policyName, conn: *conn}
	return a.open(ctx)
}

func (a *authorizer) open(ctx context.Context) (lang.Authorizer, error) {
	st, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	a.state.Store(st)
	return a, nil
}

// Confined tells whether the connection's certificate is a claim certificate: it shares client ids with devices
// that it must not disturb.
func (a *authorizer) Confined() bool { return a.state.Load().confined }

// Authorize implements lang.Authorizer.
func (a *authorizer) Authorize(action, resource string) lang.Decision {
	st := a.state.Load()
	if st.generation.Load() != a.policies.changes.generation.Load() {
		if st = a.renew(); st == nil {
			return lang.Decision{}
		}
	}
	if st.set == nil {
		return lang.Decision{}
	}
	if st.set.UsesTime() {
		c := st.conn
		c.Time = a.policies.now()
		return st.set.Evaluate(&c, action, resource)
	}
	return st.decide(action, resource)
}

// decide evaluates through the cache.
func (st *state) decide(action, resource string) lang.Decision {
	st.mu.Lock()
	for i := range st.kept {
		k := &st.kept[i]
		if k.resource == resource && k.action == action {
			d := *k.decision
			st.mu.Unlock()
			return d
		}
	}
	st.mu.Unlock()
	d := st.set.Evaluate(&st.conn, action, resource)
	k := kept{strings.Clone(action), strings.Clone(resource), &d}
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.kept) < maxDecisions {
		st.kept = append(st.kept, k)
	} else {
		st.kept[st.next] = k
		st.next = (st.next + 1) % maxDecisions
	}
	return d
}

// renew brings the state up to the present generation: nil when that fails.
func (a *authorizer) renew() *state {
	a.rebuild.Lock()
	defer a.rebuild.Unlock()
	st := a.state.Load()
	now, changed := a.policies.changes.since(st.generation.Load(), st.deps)
	if !changed {
		st.generation.Store(now)
		return st
	}
	ctx, cancel := context.WithTimeout(context.Background(), rebuildDeadline)
	defer cancel()
	st, err := a.load(ctx)
	if err != nil {
		a.policies.log.Error("policies of a connection can't be read: denying", "principal", a.principal.ID, "clientId", a.conn.ClientID, "err", err)
		return nil
	}
	a.state.Store(st)
	return st
}

// load reads what the decisions rest on.
func (a *authorizer) load(ctx context.Context) (*state, error) {
	p := a.policies
	st := &state{conn: a.conn, serial: p.changes.serial.Add(1)}
	st.generation.Store(p.changes.generation.Load()) // first: what changes while we read counts as later
	if a.principal == (aws.Principal{}) {
		st.deps = []dependency{{kindPolicy, a.named}}
		set, err := p.set(ctx, []string{a.named})
		st.set = set
		return st, err
	}
	active, template, err := p.principals.Standing(ctx, a.principal.ID)
	switch {
	case err != nil:
		return nil, err
	case !active:
		st.deps = own(a.principal)
		return st, nil
	case template != "":
		st.deps, st.set, st.confined = own(a.principal), claimSet(p.account, template), true
		return st, nil
	}
	b, err := p.basis(ctx, a.principal)
	if err != nil {
		return nil, err
	}
	st.deps = b.deps
	if st.set, err = p.set(ctx, slices.Clone(b.names)); err != nil {
		return nil, err
	}
	if !st.set.UsesThing() {
		return st, nil
	}
	if a.conn.ClientID != "" {
		st.deps = with(st.deps, dependency{kindThing, a.conn.ClientID})
		if st.conn.Thing, err = p.things.PolicyThing(ctx, a.conn.ClientID, a.principal.ARN); err != nil {
			return nil, err
		}
	}
	if b.exclusive != "" && (st.conn.Thing == nil || !st.conn.Thing.Attached) {
		st.conn.Thing, err = p.exclusively(ctx, b.exclusive, a.principal.ARN, st.conn.Thing)
	}
	return st, err
}
