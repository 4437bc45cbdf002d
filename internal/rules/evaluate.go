package rules

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/mqtt"
	"flotilla/internal/rules/action"
	"flotilla/internal/rules/sql"
	"flotilla/internal/store"
)

// Generation changes whenever the set of rules does.
func (e *Engine) Generation() uint64 { return e.generation.Load() }

// Selects tells whether a rule has a topic in its FROM, or is named by it (Basic
// Ingest), and whether Evaluate may wait for other systems on it. It never blocks.
func (e *Engine) Selects(topic string) (any, mayBlock bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if name, _, basic := mqtt.BasicIngest(topic); basic {
		r := e.byName[name]
		return true, r != nil && r.mayBlock // an unknown rule is counted by Evaluate
	}
	e.trie.Match(topic, func(r *rule) { any, mayBlock = true, mayBlock || r.mayBlock })
	return any, mayBlock
}

// matching gives the rules for a message: enabled, and by their FROM.
func (e *Engine) matching(m *mqtt.Message, to []*rule) []*rule {
	e.mu.RLock()
	defer e.mu.RUnlock()
	name, _, basic := mqtt.BasicIngest(m.Topic)
	if !basic {
		e.trie.Match(m.Topic, func(r *rule) { to = append(to, r) })
		return to
	}
	switch r := e.byName[name]; {
	case r == nil, r.disabled, r.sql == nil:
		e.metrics.notFound.Inc()
		if e.metrics.notFoundLogged.due(e.now()) {
			e.log.Warn("Basic Ingest names a rule that does not exist or is disabled; further ones within a minute are only counted",
				"rule", name, "clientId", m.Source.ClientID)
		}
	case r.sql.Matches(m.Topic):
		to = append(to, r)
	}
	return to
}

// Evaluate runs the rules on a message that is being published. owed inserts what
// they owe to their actions and belongs into the publish's own write; nil says that
// nothing is owed. The error is mqtt.QuotaExceeded when an action's outbox is full:
// then the message must not be acknowledged.
//
// A message with a Recipient is shown to no rule.
func (e *Engine) Evaluate(ctx context.Context, m *mqtt.Message) (owed store.Func, err error) {
	if m.Recipient != "" {
		return nil, nil
	}
	var few [4]*rule
	matching := e.matching(m, few[:0])
	if len(matching) == 0 {
		return nil, nil
	}
	ev, _ := e.evaluations.Get().(*evaluation)
	if ev == nil {
		ev = &evaluation{e: e}
	}
	defer ev.end()
	ev.m, ev.topic = m, m.Topic
	if _, rest, basic := mqtt.BasicIngest(m.Topic); basic {
		ev.topic = rest
	}
	ev.prepare(ctx, matching)
	for _, r := range matching {
		if err := ev.run(r); err != nil {
			return nil, err
		}
	}
	if len(ev.rows) == 0 {
		return nil, nil
	}
	return e.owe(ev.rows), nil
}

// owe makes the function that inserts rows, and wakes their dispatchers after the commit.
func (e *Engine) owe(rows []outboxRow) store.Func {
	return func(ctx context.Context, tx store.Tx) error {
		writer, ok := e.currentWriter()
		if !ok {
			return mqtt.ServerBusy
		}
		if err := insertRows(tx, writer, e.d.DB.NextID, rows); err != nil {
			return err
		}
		e.d.DB.AfterCommit(ctx, func() {
			for _, r := range rows {
				r.queue.committed(int64(len(r.body)))
			}
		})
		return nil
	}
}

// end keeps the evaluation for another message.
func (ev *evaluation) end() {
	ev.m, ev.rows, ev.in, ev.ctx = nil, nil, sql.Input{}, nil
	ev.e.evaluations.Put(ev)
}

// evaluation is the work on one message.
type evaluation struct {
	e     *Engine
	m     *mqtt.Message
	topic string // as rules see it
	ctx   context.Context
	in    sql.Input
	rows  []outboxRow
}

func (ev *evaluation) prepare(ctx context.Context, matching []*rule) {
	e, m := ev.e, ev.m
	ev.ctx = ctx
	ev.in = sql.Input{
		Topic: m.Topic, Payload: m.Payload, AccountID: e.d.Account.ID, ClientID: m.Source.ClientID, PrincipalID: m.Source.PrincipalID,
		Properties: m.Properties, Now: e.now(), Rand: rand.Float64, NewUUID: uuid.NewString, Context: ctx,
	}
	for _, r := range matching {
		if r.usesTrace && ev.in.TraceID == "" {
			ev.in.TraceID = uuid.NewString()
		}
		if r.usesSource && ev.in.SourceIP == "" && m.Source.Address.IsValid() {
			ev.in.SourceIP = m.Source.Address.Unmap().String()
		}
		if r.mayBlock && ev.in.Failed == nil {
			ev.in.External = e.d.External
			ev.in.Failed = func(function string, err error) {
				e.log.Warn("rules: a function failed", "op", function, "topic", ev.topic, "err", err)
			}
		}
	}
}

// run evaluates one rule and adds what it owes.
func (ev *evaluation) run(r *rule) error {
	r.counters.match.Inc()
	if r.mayBlock {
		ev.in.Context = aws.WithSource(ev.ctx, ev.e.arn(r.name))
	}
	out, selected, err := r.sql.Evaluate(&ev.in)
	if err != nil {
		// As in AWS, no action and no error action.
		r.counters.sqlError.Inc()
		if r.counters.logged.due(ev.in.Now) {
			ev.e.log.Warn("rules: the SQL failed on a message", "rule", r.name, "topic", ev.topic, "err", err)
		}
		return nil
	}
	if !selected {
		return nil
	}
	received := ev.m.Received
	if received.IsZero() {
		received = ev.in.Now
	}
	var fail *failure
	if r.errors != nil && len(r.actions) > 0 {
		fail = &failure{trace: ev.in.TraceID, original: ev.m.Payload}
		fail.fields, fail.fault = ev.expand(r.errorAction)
	}
	for i, a := range r.actions {
		q := r.queues[i]
		if q.full() {
			q.counters.refused.Inc()
			return fmt.Errorf("rules: the outbox of an action of rule %s is full: %w", r.name, mqtt.QuotaExceeded)
		}
		n := entry{Record: action.Record{Topic: ev.topic, ClientID: ev.m.Source.ClientID, Received: received, Payload: out.Payload, Hops: ev.m.Hops}, failure: fail}
		n.Fields, n.fault = ev.expand(a)
		ev.rows = append(ev.rows, outboxRow{q, appendEntry(make([]byte, 0, entrySize(&n)), &n)})
	}
	return nil
}

// expand fills the templates of an action; fault tells why it can not be executed.
func (ev *evaluation) expand(a *action.Action) (fields []string, fault string) {
	if len(a.Templates) == 0 {
		return nil, ""
	}
	fields = make([]string, len(a.Templates))
	for i, t := range a.Templates {
		text, err := t.Expand(&ev.in)
		if err != nil {
			return fields, err.Error()
		}
		fields[i] = text
	}
	return fields, ""
}
