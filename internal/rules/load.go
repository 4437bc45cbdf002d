package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/action"
	"flotilla/internal/store"
)

// load makes what the store has of a rule, or of all for the name "", what this node
// does.
func (e *Engine) load(ctx context.Context, name string) error {
	e.loading.Lock()
	defer e.loading.Unlock()
	var records []record
	var actions []actionRecord
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		records = nil
		if name == "" {
			records, err = selectRules(tx, "", 1<<30)
		} else {
			var r record
			if r, err = selectRule(tx, name); err == nil {
				records = []record{r}
			} else if errors.Is(err, store.ErrNotFound) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
		actions, err = selectActions(tx, name)
		return err
	})
	if err != nil {
		return err
	}
	e.makeQueues(actions)
	byRule := map[string][]actionRecord{}
	for _, a := range actions {
		if a.retired == 0 {
			byRule[a.rule] = append(byRule[a.rule], a)
		}
	}
	loaded := map[string]*rule{}
	for _, r := range records {
		loaded[r.name] = e.loadRule(r, byRule[r.name])
	}
	e.swap(name, loaded)
	return nil
}

// loadRule compiles a stored rule. One that is not valid any more does nothing, and
// that is logged.
func (e *Engine) loadRule(rec record, actions []actionRecord) *rule {
	version := rec.payload + "\n" + strconv.FormatBool(rec.disabled)
	for _, a := range actions {
		version += "\n" + strconv.FormatInt(a.id, 10) + " " + strconv.Itoa(a.position)
	}
	e.mu.RLock()
	old := e.byName[rec.name]
	e.mu.RUnlock()
	if old != nil && old.version == version {
		return old
	}
	payload := &iot.TopicRulePayload{}
	err := json.Unmarshal([]byte(rec.payload), payload)
	var r *rule
	if err == nil {
		r, err = e.compile(rec.name, payload)
	}
	if err == nil {
		err = e.connect(r, actions)
	}
	if err != nil {
		e.log.Error("rules: a stored rule can not be used", "rule", rec.name, "err", err)
		r = &rule{name: rec.name, payload: payload}
	}
	r.created, r.disabled, r.stored, r.version = rec.created, rec.disabled, rec.payload, version
	r.counters = e.metrics.rule(rec.name)
	return r
}

// connect gives a compiled rule the queues of its actions.
func (e *Engine) connect(r *rule, actions []actionRecord) error {
	r.queues = make([]*queue, len(r.actions))
	for _, a := range actions {
		q := e.queue(a.id)
		switch {
		case a.position == errorPosition:
			r.errors = q
		case a.position < len(r.queues):
			r.queues[a.position] = q
		}
	}
	if slices.Contains(r.queues, nil) || (r.errors == nil) != (r.errorAction == nil) {
		return errors.New("the store does not have all of its actions")
	}
	return nil
}

func (e *Engine) queue(id int64) *queue {
	e.queuesMu.Lock()
	defer e.queuesMu.Unlock()
	return e.queues[id]
}

// makeQueues makes the queues that this node does not have yet, those that others
// hand their failures to first.
func (e *Engine) makeQueues(actions []actionRecord) {
	e.queuesMu.Lock()
	defer e.queuesMu.Unlock()
	for _, errorActions := range []bool{true, false} {
		for _, a := range actions {
			if (a.position == errorPosition) != errorActions {
				continue
			}
			q := e.queues[a.id]
			if q == nil {
				q = e.newQueue(a)
				e.queues[a.id] = q
			}
			q.errors.Store(e.queues[a.errorAction]) // nil for none
			q.retired.Store(a.retired)
		}
	}
}

// compileAction compiles an action to execute what its templates were filled for.
func compileAction(definition string) (*action.Action, error) {
	a := &iot.Action{}
	if err := json.Unmarshal([]byte(definition), a); err != nil {
		return nil, fmt.Errorf("its definition: %w", err)
	}
	// Templates have been filled; they may use variables of a statement that is gone.
	return action.Compile(a, nil)
}

// swap puts loaded rules in the place of those of that name, or of all for "".
func (e *Engine) swap(name string, loaded map[string]*rule) {
	e.mu.Lock()
	changed := false
	for n, old := range e.byName {
		if r := loaded[n]; (name == "" || n == name) && r != old {
			changed = true
			e.remove(old)
			if r == nil {
				e.metrics.forget(n)
			}
		}
	}
	for n, r := range loaded {
		if e.byName[n] != r {
			changed = true
			e.byName[n] = r
			if r.sql != nil && !r.disabled && r.sql.From() != "" {
				e.trie.Add(r.sql.From(), r)
			}
		}
	}
	e.mu.Unlock()
	if changed {
		e.generation.Add(1)
	}
}

func (e *Engine) remove(r *rule) {
	delete(e.byName, r.name)
	if r.sql != nil && !r.disabled && r.sql.From() != "" {
		e.trie.Remove(r.sql.From(), r)
	}
}

// dropQueues forgets the queues of actions that no rule has had for long and that
// nothing is owed to.
func (e *Engine) dropQueues() {
	before := e.now().Add(-retiredFor).UnixMilli()
	e.queuesMu.Lock()
	defer e.queuesMu.Unlock()
	gone, left := map[string]bool{}, map[string]bool{}
	for id, q := range e.queues {
		if at := q.retired.Load(); at > 0 && at < before && q.stop() {
			delete(e.queues, id)
			gone[q.rule] = true
		}
	}
	for _, q := range e.queues {
		left[q.rule] = true
	}
	for rule := range gone {
		if !left[rule] {
			e.metrics.forgetActions(rule)
		}
	}
}
