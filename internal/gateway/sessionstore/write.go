package sessionstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"flotilla/internal/store"
)

// attempts at a write that other nodes' writes to the same rows keep from
// committing, beyond those that the store makes itself.
const attempts = 8

// write commits fn in a transaction of its own.
func (s *Store) write(ctx context.Context, fn store.Func) (err error) {
	for try := range attempts {
		if err = s.db.Write(ctx, fn); !outstripped(err) {
			break
		}
		// The nodes step apart: 1-2 ms, 2-4 ms, … 128-256 ms.
		pause := time.NewTimer(time.Millisecond<<try + rand.N(time.Millisecond<<try))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
	return err
}

// outstripped tells the failures to serialize, by the SQL standard's class 40,
// that remain after the store's own attempts.
func outstripped(err error) bool {
	var e interface{ SQLState() string }
	return errors.As(err, &e) && strings.HasPrefix(e.SQLState(), "40")
}
