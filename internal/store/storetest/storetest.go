// Package storetest opens real stores for tests.
package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"flotilla/internal/store"
)

// Open opens an empty SQLite store that is closed and removed with the test.
func Open(t testing.TB) *store.DB {
	t.Helper()
	return OpenConfig(t, store.Config{Dir: t.TempDir()})
}

// OpenConfig opens the store that cfg describes and closes it with the test.
func OpenConfig(t testing.TB, cfg store.Config) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return db
}

// Each runs fn on an empty SQLite store, and on an empty PostgreSQL database
// when FLOTILLA_TEST_POSTGRES holds the URL of a server to make one on.
func Each(t *testing.T, fn func(t *testing.T, db *store.DB)) {
	t.Run("sqlite", func(t *testing.T) { fn(t, Open(t)) })
	if server := os.Getenv("FLOTILLA_TEST_POSTGRES"); server != "" {
		t.Run("postgres", func(t *testing.T) {
			fn(t, OpenConfig(t, store.Config{Store: Postgres(t, server)}))
		})
	}
}

// Postgres makes an empty database on server, dropped with the test, and
// returns its URL.
func Postgres(t testing.TB, server string) string {
	t.Helper()
	ctx := context.Background()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("flotilla_test_%d_%d", os.Getpid(), rand.Uint32())
	admin := func(statement string) {
		c, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		if _, err := c.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name + " WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}
