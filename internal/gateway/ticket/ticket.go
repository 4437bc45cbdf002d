package ticket

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/store"
)

const (
	secretBytes = 32
	// period is how long a secret encrypts; older is how many periods more it decrypts.
	period = 12 * time.Hour
	older  = 2
	// ahead is how long before its period a secret is made, every how often the store is looked at.
	ahead = 3 * time.Hour
	every = 10 * time.Minute
)

// Sealer encrypts secrets for the store; name is bound to them.
type Sealer interface {
	Seal(name string, plain []byte) ([]byte, error)
	// Open fails for what was not sealed by the same passphrase.
	Open(name string, sealed []byte) ([]byte, error)
}

// Deps are the others that the package works with.
type Deps struct {
	DB     *store.DB
	Sealer Sealer // nil: the store has the secrets as they are
	Log    *slog.Logger
	Now    func() time.Time // time.Now when nil
}

// Keys are the secrets of a deployment, as this node knows them. It is safe for concurrent use.
type Keys struct {
	db     *store.DB
	sealer Sealer
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex // held by Refresh
	opened  map[int64]opened
	current atomic.Pointer[Set]
}

// opened is a secret that was read.
type opened struct{ stored, plain []byte }

// Open reads the secrets, making the present one if there is none.
func Open(ctx context.Context, d Deps) (*Keys, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	k := &Keys{db: d.DB, sealer: d.Sealer, log: d.Log, now: d.Now, opened: map[int64]opened{}}
	return k, k.Refresh(ctx)
}

// Run has the secrets follow time and the other nodes until ctx ends.
func (k *Keys) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := k.Refresh(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("keys of TLS session tickets stay as they are", "err", err)
		}
	}
}

// Current is the set to use now: another one after each change.
func (k *Keys) Current() *Set { return k.current.Load() }

// Set are secrets that hold at one time; the first is that which encrypts. It is immutable.
type Set struct{ secrets [][]byte }

// For derives keys for a purpose, as tls.Config.SetSessionTicketKeys takes them.
func (s *Set) For(purpose string) [][32]byte {
	keys := make([][32]byte, len(s.secrets))
	for i, secret := range s.secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "flotilla session ticket\x00"+purpose, len(keys[i]))
		if err != nil {
			panic("ticket: " + err.Error()) // 32 bytes can always be had
		}
		copy(keys[i][:], key)
	}
	return keys
}

func (s *Set) equal(o *Set) bool {
	if o == nil || len(s.secrets) != len(o.secrets) {
		return false
	}
	for i := range s.secrets {
		if !bytes.Equal(s.secrets[i], o.secrets[i]) {
			return false
		}
	}
	return true
}

// Refresh brings the set up to date with store and clock, and makes a secret whose time has come.
func (k *Keys) Refresh(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	this := now.Unix() / int64(period/time.Second)
	last := now.Add(ahead).Unix() / int64(period/time.Second) // this, or the one to come
	for range 3 {
		missing, err := k.read(ctx, this, last)
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			break
		}
		if err := k.make(ctx, this, missing); err != nil {
			return err
		}
	}
	set := &Set{}
	for p := this; p >= this-older; p-- {
		if s, ok := k.opened[p]; ok {
			set.secrets = append(set.secrets, s.plain)
		}
		if s, ok := k.opened[last]; ok && p == this && last != this {
			set.secrets = append(set.secrets, s.plain)
		}
	}
	if _, ok := k.opened[this]; !ok {
		return errors.New("ticket: there is no key for the present time")
	}
	if !set.equal(k.current.Load()) {
		k.current.Store(set)
	}
	return nil
}

// stored is a row.
type stored struct {
	period int64
	secret []byte
	sealed bool
}

// read opens what the store has, and returns the periods of this to last that lack a secret. What can't be opened
// lacks one.
func (k *Keys) read(ctx context.Context, this, last int64) (missing []stored, err error) {
	var rows []stored
	err = k.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		rows = nil
		r, err := tx.Query(`SELECT period, secret, sealed FROM tls_ticket_key WHERE period BETWEEN $1 AND $2`, this-older, last)
		if err != nil {
			return err
		}
		defer r.Close()
		for r.Next() {
			var s stored
			if err := r.Scan(&s.period, &s.secret, &s.sealed); err != nil {
				return err
			}
			rows = append(rows, s)
		}
		return errors.Join(r.Err(), r.Close())
	})
	if err != nil {
		return nil, fmt.Errorf("ticket: %w", err)
	}
	known := map[int64]opened{}
	unusable := map[int64][]byte{}
	for _, s := range rows {
		o, ok := k.opened[s.period]
		if !ok || !bytes.Equal(o.stored, s.secret) {
			plain, err := k.open(s)
			if err != nil {
				k.log.Warn("a key of TLS session tickets is made anew", "err", err)
				unusable[s.period] = s.secret
				continue
			}
			o = opened{s.secret, plain}
		}
		known[s.period] = o
	}
	k.opened = known
	for p := this; p <= last; p++ {
		if _, ok := known[p]; !ok {
			missing = append(missing, stored{period: p, secret: unusable[p]})
		}
	}
	return missing, nil
}

// open gives the secret of a row. With a Sealer one that lay open in the store is of no use any more.
func (k *Keys) open(s stored) ([]byte, error) {
	plain := s.secret
	switch {
	case s.sealed != (k.sealer != nil):
		return nil, errors.New("ticket: the passphrase was set or taken away")
	case s.sealed:
		var err error
		if plain, err = k.sealer.Open(sealName(s.period), s.secret); err != nil {
			return nil, errors.New("ticket: it can't be opened")
		}
	}
	if len(plain) != secretBytes {
		return nil, errors.New("ticket: it has another length")
	}
	return plain, nil
}

// make makes secrets in the place of those that are missing, unless another node is quicker, and deletes old ones.
func (k *Keys) make(ctx context.Context, this int64, missing []stored) error {
	fresh := make([][]byte, len(missing))
	for i, m := range missing {
		fresh[i] = make([]byte, secretBytes)
		rand.Read(fresh[i]) // never fails
		if k.sealer != nil {
			sealed, err := k.sealer.Seal(sealName(m.period), fresh[i])
			if err != nil {
				return fmt.Errorf("ticket: %w", err)
			}
			fresh[i] = sealed
		}
	}
	err := k.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM tls_ticket_key WHERE period < $1`, this-older); err != nil {
			return err
		}
		for i, m := range missing {
			if m.secret != nil {
				if _, err := tx.Exec(`DELETE FROM tls_ticket_key WHERE period = $1 AND secret = $2`, m.period, m.secret); err != nil {
					return err
				}
			}
			_, err := tx.Exec(`INSERT INTO tls_ticket_key (period, secret, sealed) VALUES ($1, $2, $3) ON CONFLICT (period) DO NOTHING`,
				m.period, fresh[i], k.sealer != nil)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ticket: %w", err)
	}
	return nil
}

func sealName(period int64) string { return "tls-ticket-key/" + strconv.FormatInt(period, 10) }
