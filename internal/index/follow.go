package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

const (
	// atOnce is how many documents one transaction indexes: other writers wait meanwhile.
	atOnce = 64
	// beat is how often a node says that it runs, and deadAfter when it is thought not to.
	beat      = 15 * time.Second
	deadAfter = 2 * time.Minute
	// lookAfter is how often the leader looks for work unasked.
	lookAfter = 5 * time.Second
)

// Run follows what changes until ctx ends; what was changed before it has been indexed when Run returns, unless the store
// fails.
func (x *Index) Run(ctx context.Context) {
	for err := x.begin(ctx); err != nil; err = x.begin(ctx) {
		x.log.Warn("the index can't begin", "err", err)
		if !pause(ctx, time.Second) {
			return
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { x.db.Lead(ctx, "index", x.leads) })
	wg.Go(func() { x.db.Lead(ctx, "fleet-metrics", x.measures) })
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			x.end()
			return
		case <-tick.C:
			if err := x.beat(ctx); err != nil && ctx.Err() == nil {
				x.log.Warn("the index can't say that it runs", "err", err)
			}
		case <-x.wake:
			x.drain(ctx)
		}
	}
}

// pause waits; false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// begin enters the node among those that run. When it is there already it has not ended well.
func (x *Index) begin(ctx context.Context) error {
	return x.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		n, err := tx.Exec(`INSERT INTO index_node (node, seen) VALUES ($1, $2) ON CONFLICT (node) DO NOTHING`, x.deps.NodeID, x.now().UnixMilli())
		if err != nil {
			return err
		}
		if n == 0 {
			if err := x.bereave(tx, x.deps.NodeID); err != nil {
				return err
			}
			if err := x.beatIn(tx); err != nil {
				return err
			}
		}
		s, err := selectSettings(tx)
		if err == nil {
			x.db.AfterCommit(ctx, func() { x.switchTo(s) })
		}
		return err
	})
}

// bereave notes that a node has died: its connections are gone, and what it was to index must be found.
func (x *Index) bereave(tx store.Tx, node string) error {
	_, err := tx.Exec(`UPDATE index_connectivity SET connected = FALSE, at = $2, reason = $3 WHERE node = $1 AND connected`,
		node, x.now().UnixMilli(), "CONNECTION_LOST")
	if err != nil {
		return err
	}
	return x.indexAll(tx)
}

func (x *Index) indexAll(tx store.Tx) error {
	x.metrics.lost.Inc()
	_, err := tx.Exec(`UPDATE index_setting SET generation = generation + 1`)
	return err
}

func (x *Index) beatIn(tx store.Tx) error {
	_, err := tx.Exec(`INSERT INTO index_node (node, seen) VALUES ($1, $2) ON CONFLICT (node) DO UPDATE SET seen = excluded.seen`,
		x.deps.NodeID, x.now().UnixMilli())
	return err
}

func (x *Index) beat(ctx context.Context) error {
	return x.db.Write(ctx, func(_ context.Context, tx store.Tx) error { return x.beatIn(tx) })
}

func (x *Index) switchTo(s *settings) {
	x.on.Store(s.on(things) || s.on(groups))
	x.connectivity.Store(s.connectivity())
}

// endTime bounds what is indexed while the node stops.
const endTime = 5 * time.Second

// end indexes what is left and signs the node off; when that fails everything is indexed anew by another, or later.
func (x *Index) end() {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	if !x.drain(ctx) {
		return
	}
	err := x.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`DELETE FROM index_node WHERE node = $1`, x.deps.NodeID)
		return err
	})
	if err != nil {
		x.log.Warn("the index can't end", "err", err)
	}
}

// drain indexes all marks; false when it could not.
func (x *Index) drain(ctx context.Context) bool {
	for ctx.Err() == nil {
		b := x.marks.take(atOnce)
		if b.empty() {
			return true
		}
		if err := x.apply(ctx, b); err != nil {
			x.marks.back(b)
			if ctx.Err() == nil {
				x.log.Warn("changes can't be indexed yet", "err", err)
			}
			poke(x.wake)
			pause(ctx, time.Second)
			return false
		}
	}
	return false
}

// apply indexes a batch in one transaction.
func (x *Index) apply(ctx context.Context, b batch) error {
	return x.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if b.all {
			if err := x.indexAll(tx); err != nil {
				return err
			}
			x.db.AfterCommit(ctx, func() { poke(x.lead) })
		}
		list := b.marks
		for client, p := range b.presences {
			if err := saveConnectivity(tx, client, x.deps.NodeID, p); err != nil {
				return err
			}
			list = append(list, mark{things, client})
		}
		return x.index(ctx, tx, list)
	})
}

// index brings documents up to date.
func (x *Index) index(ctx context.Context, tx store.Tx, list []mark) error {
	s, err := selectSettings(tx)
	if err != nil {
		return err
	}
	x.db.AfterCommit(ctx, func() { x.switchTo(s) })
	dynamic, err := x.dynamicGroups(ctx)
	if err != nil {
		return err
	}
	w := &writing{x: x, tx: tx, s: s, dynamic: dynamic}
	for kind := range w.known {
		w.known[kind] = map[string]int64{}
	}
	slices.SortFunc(list, func(a, b mark) int { return strings.Compare(a.name, b.name) }) // nodes wait for each other in one order
	for _, m := range list {
		if err := w.one(ctx, m); err != nil {
			return fmt.Errorf("index: %s: %w", m.name, err)
		}
	}
	if err := w.rows.flush(tx, x.db.Name()); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	x.db.AfterCommit(ctx, func() {
		for kind, known := range w.known {
			x.learn(int64(kind), known)
		}
	})
	return nil
}

// writing is a transaction that indexes.
type writing struct {
	x     *Index
	tx    store.Tx
	s     *settings
	known [kinds]map[string]int64 // numbers of fields

	dynamic dynamicGroups
	rows    rowChanges
}

func (w *writing) one(ctx context.Context, m mark) error {
	grouped := m.kind == things && len(w.dynamic) > 0 && w.s.on(things)
	if grouped {
		if _, err := w.x.deps.Dynamic.TouchThing(ctx, m.name); err != nil {
			return err
		}
	}
	d, err := w.x.load(ctx, w.tx, w.s, m.kind, m.name)
	if err != nil {
		return err
	}
	old, err := selectDocument(w.tx, m.kind, m.name)
	if err != nil {
		return err
	}
	var doc query.Document
	if d != nil {
		doc = w.x.document(d, w.s, w.dynamic)
		if grouped {
			if err := w.x.regroup(ctx, w.dynamic, m.name, doc); err != nil {
				return err
			}
		}
	}
	return w.replace(m, old, doc, d != nil)
}

// replace writes a document in the place of the one before.
func (w *writing) replace(m mark, old stored, doc query.Document, exists bool) error {
	if old.number == 0 && !exists {
		return nil
	}
	var content []byte
	if exists {
		if content = encode(doc); bytes.Equal(content, old.content) {
			return nil
		}
	}
	var failed error
	field := func(insert bool) func(string) (int64, bool) {
		return func(name string) (int64, bool) {
			n, ok, err := w.x.field(w.tx, w.known[m.kind], m.kind, name, insert)
			failed = errors.Join(failed, err)
			return n, ok
		}
	}
	var from query.Document
	if old.number != 0 {
		var err error
		if from, err = decode(old.content); err != nil {
			return err
		}
	}
	before := derive(from, field(false))
	after := derive(doc, field(true))
	if failed != nil {
		return failed
	}
	number := old.number
	if exists {
		var err error
		if number, err = saveDocument(w.tx, m.kind, m.name, old, content); err != nil {
			return err
		}
		w.x.metrics.documents.Inc()
	} else if err := deleteDocument(w.tx, number); err != nil {
		return err
	}
	w.rows.replace(number, before, after)
	if w.rows.rows < maxRowChanges {
		return nil
	}
	return w.rows.flush(w.tx, w.x.db.Name())
}

// leads does, on one node, what concerns all: it looks for nodes that died, and indexes everything when that is due.
func (x *Index) leads(ctx context.Context) {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	for {
		if err := x.look(ctx); err != nil && ctx.Err() == nil {
			x.log.Warn("the index can't be built", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-x.lead:
		}
	}
}

func (x *Index) look(ctx context.Context) error {
	if err := x.reap(ctx); err != nil {
		return err
	}
	s, err := x.settings(ctx)
	if err != nil {
		return err
	}
	for kind := range kinds {
		if st := s.state[kind]; st.built != st.generation {
			if err := x.build(ctx, s, kind); err != nil {
				return err
			}
		}
	}
	return x.buildDynamic(ctx)
}

// reap takes nodes that no longer run off the list.
func (x *Index) reap(ctx context.Context) error {
	return x.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		dead, err := selectNames(tx, `SELECT node FROM index_node WHERE seen < $1 AND node <> $2`, x.now().Add(-deadAfter).UnixMilli(), x.deps.NodeID)
		if err != nil {
			return err
		}
		for _, n := range dead {
			if err := x.bereave(tx, n); err != nil {
				return err
			}
			if _, err := tx.Exec(`DELETE FROM index_node WHERE node = $1`, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// build indexes all that there is, then takes out what there is no longer.
func (x *Index) build(ctx context.Context, s *settings, kind int64) error {
	x.log.Info("indexing everything", "index", indexNames[kind])
	if err := x.apply(ctx, batch{setting: true}); err != nil { // what changes from now on is marked
		return err
	}
	if s.on(kind) {
		if err := x.eachName(ctx, kind, func(names []string) error { return x.indexNames(ctx, kind, names) }); err != nil {
			return err
		}
	}
	for after := ""; ; {
		var names []string
		err := x.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
			names, err = selectNames(tx, `SELECT name FROM index_document WHERE kind = $1 AND name > $2 ORDER BY name LIMIT $3`, kind, after, atOnce)
			return err
		})
		if err != nil {
			return err
		}
		if len(names) == 0 {
			break
		}
		after = names[len(names)-1]
		if s.on(kind) {
			if names, err = x.gone(ctx, kind, names); err != nil {
				return err
			}
		}
		if err := x.indexNames(ctx, kind, names); err != nil {
			return err
		}
	}
	return x.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`UPDATE index_setting SET built = $2, ready = $3 WHERE kind = $1 AND generation = $2`, kind, s.state[kind].generation, s.on(kind))
		return err
	})
}

// indexNames indexes documents, a transaction for each part of them.
func (x *Index) indexNames(ctx context.Context, kind int64, names []string) error {
	for len(names) > 0 {
		list := make([]mark, 0, atOnce)
		for _, n := range names[:min(len(names), atOnce)] {
			list = append(list, mark{kind, n})
		}
		names = names[len(list):]
		if err := x.apply(ctx, batch{marks: list}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// eachName calls fn with pages of the names of all things or groups.
func (x *Index) eachName(ctx context.Context, kind int64, fn func([]string) error) error {
	var token *string
	for {
		var names []string
		if kind == groups {
			out, err := x.deps.Registry.ListThingGroups(ctx, &iot.ListThingGroupsRequest{MaxResults: new(int32(250)), NextToken: token})
			if err != nil {
				return err
			}
			for _, g := range out.ThingGroups {
				names = append(names, value(g.GroupName))
			}
			token = out.NextToken
		} else {
			out, err := x.deps.Registry.ListThings(ctx, &iot.ListThingsRequest{MaxResults: new(int32(250)), NextToken: token})
			if err != nil {
				return err
			}
			for _, t := range out.Things {
				names = append(names, value(t.ThingName))
			}
			token = out.NextToken
		}
		if err := fn(names); err != nil {
			return err
		}
		if token == nil {
			return nil
		}
	}
}

// gone gives those of names that the registry no longer has.
func (x *Index) gone(ctx context.Context, kind int64, names []string) (list []string, err error) {
	for _, n := range names {
		if kind == groups {
			_, err = x.deps.Registry.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: n})
		} else {
			_, err = x.deps.Registry.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: n})
		}
		if _, missing := errors.AsType[*iot.ResourceNotFoundException](err); missing {
			list = append(list, n)
		} else if err != nil {
			return nil, err
		}
	}
	return list, nil
}
