package shadow

import (
	"context"
	"errors"
	"strconv"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow/doc"
	"flotilla/internal/store"
)

// What is done to a shadow, in its history.
const (
	opUpdate  = "update"
	opDelete  = "delete"
	opRestore = "restore"
)

// maxHistory entries of a shadow fit the answer that lists them.
const maxHistory = 100

// author is who changes a shadow.
type author struct{ principal, client string }

// authorOf is who makes the request that ctx belongs to, or sent m; m may be nil.
func authorOf(ctx context.Context, m *mqtt.Message) author {
	var a author
	if caller := aws.CallerFrom(ctx); caller != nil {
		if a.principal = caller.ARN; a.principal == "" && caller.ID != "" {
			a.principal = caller.Type + "/" + caller.ID
		}
	}
	if m != nil {
		a.client = m.Source.ClientID
		if a.principal == "" && m.Source.PrincipalID != "" {
			a.principal = m.Source.PrincipalType + "/" + m.Source.PrincipalID
		}
	}
	return a
}

// recorded tells whether a change that was made belongs into the history.
func (s *Shadows) recorded(c *change) bool {
	return s.cfg.History > 0 && (c.sent == nil || c.sent.Desires() || s.cfg.HistoryReported)
}

// ring gathers entries of histories. Of two for one place the later stays: a
// statement changes a row once.
type ring struct {
	places map[place]int
	args   []any
}

type place struct {
	shadow ref
	slot   int64
}

const entryColumns = 11

var insertEntries = store.NewMany(`INSERT INTO shadow_history (thing, name, slot, number, version, time, operation, principal, client, change, document) VALUES `,
	`($, $, $, $, $, $, $, $, $, $, $)`, ` ON CONFLICT (thing, name, slot) DO UPDATE SET number = EXCLUDED.number, version = EXCLUDED.version, time = EXCLUDED.time,
	operation = EXCLUDED.operation, principal = EXCLUDED.principal, client = EXCLUDED.client, change = EXCLUDED.change, document = EXCLUDED.document`)

// add records c, which made r what it is; size is that of the ring.
func (h *ring) add(size int, c *change, r *row) {
	var sent []byte
	if c.sent != nil {
		sent = c.sent.State()
	}
	p := place{c.shadow, r.changes % int64(size)}
	entry := [entryColumns]any{
		c.shadow.thing, c.shadow.name, p.slot, r.changes, r.version, r.modified,
		c.operation, c.author.principal, c.author.client, sent, r.document,
	}
	if i, taken := h.places[p]; taken {
		copy(h.args[i:], entry[:])
		return
	}
	if h.places == nil {
		h.places = map[place]int{}
	}
	h.places[p] = len(h.args)
	h.args = append(h.args, entry[:]...)
}

func (h *ring) insert(tx store.Tx) error {
	_, err := insertEntries.Exec(tx, h.args)
	return err
}

// ListShadowHistory lists what became of a shadow, the latest first: who
// changed it, when, what was sent, and the state that came of it. Only the last
// shadow.history entries are kept. It is not among AWS's operations.
//
// Errors: flotilla.InvalidRequestException (the history is off),
// flotilla.ResourceNotFoundException (no such thing).
func (s *Shadows) ListShadowHistory(ctx context.Context, in *flotilla.ListShadowHistoryRequest) (*flotilla.ListShadowHistoryResponse, error) {
	r, err := s.historyOf(in.ThingName, in.ShadowName)
	if err != nil {
		return nil, err
	}
	out := &flotilla.ListShadowHistoryResponse{Entries: []*flotilla.ShadowHistoryEntry{}}
	err = s.db.Read(ctx, func(ctx context.Context, tx store.Tx) error {
		out.Entries = out.Entries[:0]
		rows, err := tx.Query(`SELECT h.version, h.time, h.operation, h.principal, h.client, h.change, h.document
			FROM shadow_history h JOIN shadow s ON s.thing = h.thing AND s.name = h.name
			WHERE h.thing = $1 AND h.name = $2 AND h.number > s.changes - $3 ORDER BY h.number DESC LIMIT $3`, r.thing, r.name, int64(s.cfg.History))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			e, err := scanEntry(rows)
			if err != nil {
				return err
			}
			out.Entries = append(out.Entries, e)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if len(out.Entries) == 0 {
			return s.checkThing(ctx, r.thing)
		}
		return nil
	})
	if err != nil {
		return nil, operatorException(wrap("history", r, err))
	}
	return out, nil
}

func scanEntry(row store.Row) (*flotilla.ShadowHistoryEntry, error) {
	var e flotilla.ShadowHistoryEntry
	var version, at int64
	var operation, principal, client string
	var sent, document []byte
	if err := row.Scan(&version, &at, &operation, &principal, &client, &sent, &document); err != nil {
		return nil, err
	}
	e.Version, e.Operation, e.Time = &version, &operation, new(aws.Time{Time: time.UnixMilli(at)})
	if principal != "" {
		e.Principal = &principal
	}
	if client != "" {
		e.ClientId = &client
	}
	if sent != nil {
		e.Change = new(string(sent))
	}
	if document != nil {
		state, err := doc.State(document)
		if err != nil {
			return nil, err
		}
		e.State = new(string(state))
	}
	return &e, nil
}

// RestoreShadow makes the desired state of a shadow what it was in a version
// that the history has; the reported state is the device's to say. It is an
// update like others: with a version of its own, published, in the history.
//
// Errors: flotilla.InvalidRequestException, flotilla.ResourceNotFoundException
// (no such thing, or the version is not in the history).
func (s *Shadows) RestoreShadow(ctx context.Context, in *flotilla.RestoreShadowRequest) (*flotilla.RestoreShadowResponse, error) {
	out, err := s.restore(ctx, in)
	if err != nil {
		return nil, operatorException(err)
	}
	return out, nil
}

func (s *Shadows) restore(ctx context.Context, in *flotilla.RestoreShadowRequest) (_ *flotilla.RestoreShadowResponse, err error) {
	s.metrics.progress.Inc()
	defer func() { s.metrics.ended(opRestore, err) }()
	r, err := s.historyOf(in.ThingName, in.ShadowName)
	if err != nil {
		return nil, err
	}
	end, err := s.begin(r)
	if err != nil {
		return nil, err
	}
	defer end()
	c := &change{shadow: r, now: s.cfg.Now(), operation: opRestore, author: authorOf(ctx, nil)}
	c.update = func(_ context.Context, tx store.Tx) (*doc.Update, error) {
		var document []byte
		err := tx.QueryRow(`SELECT document FROM shadow_history WHERE thing = $1 AND name = $2 AND version = $3 AND document IS NOT NULL
			ORDER BY number DESC LIMIT 1`, r.thing, r.name, in.Version).Scan(&document)
		if errors.Is(err, store.ErrNotFound) {
			return nil, errNotKept(in.Version)
		}
		if err != nil {
			return nil, err
		}
		return doc.ParseRestore(document, c.now.Unix(), s.limits)
	}
	if err := s.commit(ctx, c); err != nil {
		return nil, wrap("restore", r, err)
	}
	return &flotilla.RestoreShadowResponse{Version: &c.out.Version, Shadow: new(string(c.out.Accepted))}, nil
}

func errNotKept(version int64) *doc.Error {
	return &doc.Error{Code: 404, Message: "Version " + strconv.FormatInt(version, 10) + " is not in the history"}
}

func (s *Shadows) historyOf(thing string, shadow *string) (ref, error) {
	if s.cfg.History <= 0 {
		return ref{}, &flotilla.InvalidRequestException{Message: "No history is kept: shadow.history is negative"}
	}
	r := named(thing, shadow)
	if r.name != "" && !validName(r.name, 64, true) {
		return ref{}, &flotilla.InvalidRequestException{Message: errShadowName.Message}
	}
	return r, nil
}

// operatorException turns refusals into those of the operator's API.
func operatorException(err error) error {
	e, ok := errors.AsType[*doc.Error](err)
	switch {
	case !ok:
		return err
	case e.Code == 404:
		return &flotilla.ResourceNotFoundException{Message: e.Message}
	}
	return &flotilla.InvalidRequestException{Message: e.Message}
}
