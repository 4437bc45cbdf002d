package policy

import "flotilla/internal/policy/lang"

// The authorizers that Open and OpenNamed give also answer callers that must not wait. Such a caller asks for these
// methods by an interface of its own.

// Epoch numbers the state that decisions rest on: what Authorize or Cached gave stays true for as long as Epoch
// gives the same number. ok is false when the state has to be read anew first, or when decisions depend on the time.
// It never blocks.
func (a *authorizer) Epoch() (epoch uint64, ok bool) {
	st := a.current()
	if st == nil || st.set != nil && st.set.UsesTime() {
		return 0, false
	}
	return st.serial, true
}

// Cached is Authorize for callers that must not wait: ok is false when the decision needs the store.
func (a *authorizer) Cached(action, resource string) (d lang.Decision, ok bool) {
	st := a.current()
	switch {
	case st == nil:
		return d, false
	case st.set == nil:
		return d, true
	case st.set.UsesTime():
		c := st.conn
		c.Time = a.policies.now()
		return st.set.Evaluate(&c, action, resource), true
	}
	return st.set.Evaluate(&st.conn, action, resource), true
}

// current is the state when it still holds, else nil.
func (a *authorizer) current() *state {
	st := a.state.Load()
	was := st.generation.Load()
	if was == a.policies.changes.generation.Load() {
		return st
	}
	now, changed := a.policies.changes.since(was, st.deps)
	if changed {
		return nil
	}
	st.generation.CompareAndSwap(was, now)
	return st
}
