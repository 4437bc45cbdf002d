package authorizer

import (
	"context"
	"crypto/rsa"
	"fmt"
	"sync"

	"flotilla/internal/store"
)

// snapshot is all that the store says of authorizers. It is immutable.
type snapshot struct {
	byName    map[string]*entry
	byDefault string // "" = none
}

// entry is an authorizer ready to be asked.
type entry struct {
	record
	keys []*rsa.PublicKey
}

// snapshots keeps the newest one. The zero value is ready.
type snapshots struct {
	mu    sync.Mutex
	epoch uint64 // rises with each forget: what was read before it is not kept
	kept  *snapshot
}

func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.kept = nil
}

func (s *snapshots) get() (*snapshot, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept, s.epoch
}

func (s *snapshots) put(n *snapshot, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == epoch {
		s.kept = n
	}
}

// load gives all authorizers, from memory unless something changed. Names that do not exist cost no query: strangers
// choose them.
func (a *Authorizers) load(ctx context.Context) (*snapshot, error) {
	kept, epoch := a.known.get()
	if kept != nil {
		return kept, nil
	}
	var rows []record
	n := &snapshot{byName: map[string]*entry{}}
	err := a.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if n.byDefault, err = selectDefault(tx); err != nil {
			return err
		}
		rows, err = selectAll(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("authorizer: %w", err)
	}
	for _, r := range rows {
		e := &entry{record: r}
		for name, text := range r.signingKeys {
			k, err := parseKey(text)
			if err != nil {
				return nil, fmt.Errorf("authorizer: stored key %s of %s: %w", name, r.name, err)
			}
			e.keys = append(e.keys, k)
		}
		n.byName[r.name] = e
	}
	a.known.put(n, epoch)
	return n, nil
}
