package store_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func each(t *testing.T, fn func(t *testing.T, db *store.DB)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		err := db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`CREATE TABLE test_kv (k TEXT NOT NULL PRIMARY KEY, v BIGINT NOT NULL, b BYTEA, flag BOOLEAN)`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		fn(t, db)
	})
}

func put(k string, v int64) store.Func {
	return func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO test_kv (k, v, b, flag) VALUES ($1, $2, $3, $4)`, k, v, []byte{1, 0, 2}, v%2 == 0)
		return err
	}
}

func count(t *testing.T, db *store.DB) (n int64) {
	t.Helper()
	err := db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM test_kv`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWriteThenRead(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		if err := db.Write(t.Context(), put("a", 4)); err != nil {
			t.Fatal(err)
		}
		err := db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
			var v int64
			var b []byte
			var flag bool
			if err := tx.QueryRow(`SELECT v, b, flag FROM test_kv WHERE k = $1`, "a").Scan(&v, &b, &flag); err != nil {
				return err
			}
			if v != 4 || string(b) != "\x01\x00\x02" || !flag {
				t.Errorf("got %d %q %v", v, b, flag)
			}
			if err := tx.QueryRow(`SELECT v FROM test_kv WHERE k = $1`, "none").Scan(&v); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("missing row: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadCannotWrite(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		if err := db.Read(t.Context(), put("a", 1)); err == nil {
			t.Error("an INSERT inside Read succeeded")
		}
		if n := count(t, db); n != 0 {
			t.Errorf("%d rows", n)
		}
	})
}

// A write that fails takes back its own changes only, whatever shares its commit.
func TestFailureIsAlone(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		const n = 300
		fail := errors.New("no")
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				errs[i] = db.Write(context.Background(), func(ctx context.Context, tx store.Tx) error {
					if i%7 == 3 {
						return fail // before any change
					}
					if err := put("k"+strconv.Itoa(i), int64(i))(ctx, tx); err != nil {
						return err
					}
					switch i % 7 {
					case 1:
						return fail // after a change
					case 2:
						return put("k"+strconv.Itoa(i), 0)(ctx, tx) // breaks the key
					case 4:
						panic("a bug")
					}
					return nil
				})
			})
		}
		wg.Wait()
		want := int64(0)
		for i, err := range errs {
			switch i % 7 {
			case 1, 3:
				if !errors.Is(err, fail) {
					t.Errorf("%d: %v", i, err)
				}
			case 2:
				if !errors.Is(err, store.ErrConflict) {
					t.Errorf("%d: %v", i, err)
				}
			case 4:
				if err == nil || !strings.Contains(err.Error(), "a bug") {
					t.Errorf("%d: %v", i, err)
				}
			default:
				want++
				if err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		}
		if got := count(t, db); got != want {
			t.Errorf("%d rows, want %d", got, want)
		}
	})
}

func TestWriteJoins(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		fail := errors.New("no")
		ran := 0
		outer := func(end error) error {
			return db.Write(t.Context(), func(ctx context.Context, _ store.Tx) error {
				if err := db.Write(ctx, put("inner", 1)); err != nil {
					return err
				}
				db.AfterCommit(ctx, func() { ran++ })
				var v int64
				if err := db.Read(ctx, func(_ context.Context, tx store.Tx) error {
					return tx.QueryRow(`SELECT v FROM test_kv WHERE k = 'inner'`).Scan(&v)
				}); err != nil {
					return err
				}
				return end
			})
		}
		if err := outer(fail); !errors.Is(err, fail) {
			t.Fatal(err)
		}
		if n := count(t, db); n != 0 || ran != 0 {
			t.Fatalf("%d rows, %d hooks after a failure", n, ran)
		}
		if err := outer(nil); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db); n != 1 || ran != 1 {
			t.Fatalf("%d rows, %d hooks", n, ran)
		}
	})
}

func TestWriteAsyncKeepsOrder(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		const n = 2000
		var order []int // written by one goroutine
		end := make(chan struct{})
		for i := range n {
			db.WriteAsync(put("k"+strconv.Itoa(i), 1), func(err error) {
				if err != nil {
					t.Errorf("%d: %v", i, err)
				}
				order = append(order, i)
				if i == n-1 {
					close(end)
				}
			})
		}
		<-end
		for i, got := range order {
			if got != i {
				t.Fatalf("done number %d was write %d", i, got)
			}
		}
		writes, commits := db.Counts()
		if writes < n || commits >= n {
			t.Errorf("%d writes in %d commits: not grouped", writes, commits)
		}
	})
}

func TestClosed(t *testing.T) {
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	nothing := func(context.Context, store.Tx) error { return nil }
	if err := db.Write(t.Context(), nothing); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if err := db.Read(t.Context(), nothing); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}

func TestNextID(t *testing.T) {
	db := storetest.Open(t)
	seen := make([][]int64, 4)
	var wg sync.WaitGroup
	for g := range seen {
		wg.Go(func() {
			for range 20000 {
				seen[g] = append(seen[g], db.NextID())
			}
		})
	}
	wg.Wait()
	all := map[int64]bool{}
	for _, ids := range seen {
		last := int64(0)
		for _, id := range ids {
			if id <= last || all[id] {
				t.Fatalf("%d after %d, seen before: %v", id, last, all[id])
			}
			last, all[id] = id, true
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, url := range []string{"mysql://x", "postgres://%zz", "file.db"} {
		if _, err := store.Open(t.Context(), store.Config{Store: url, Dir: t.TempDir()}); err == nil {
			t.Errorf("%q was opened", url)
		}
	}
}

// TestKill kills a process that writes with all its might, and finds every write
// that it was told of.
func TestKill(t *testing.T) {
	if dir := os.Getenv("FLOTILLA_STORE_CHILD"); dir != "" {
		writeUntilKilled(dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "FLOTILLA_STORE_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var told []byte
	buf := make([]byte, 4096)
	for len(told) < 40000 { // each acknowledged key is a line
		n, err := out.Read(buf)
		told = append(told, buf[:n]...)
		if err != nil {
			t.Fatalf("the child ended early: %v\n%s", err, told)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := out.Read(buf)
		told = append(told, buf[:n]...)
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	db := storetest.OpenConfig(t, store.Config{Dir: dir})
	lines := strings.Split(string(told), "\n")
	for _, k := range lines[:len(lines)-1] {
		err := db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
			var v int64
			return tx.QueryRow(`SELECT v FROM test_kv WHERE k = $1`, k).Scan(&v)
		})
		if err != nil {
			t.Fatalf("acknowledged write %s: %v", k, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "flotilla.db")); err != nil {
		t.Error(err)
	}
}

func writeUntilKilled(dir string) {
	ctx := context.Background()
	db, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	if err := db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE test_kv (k TEXT NOT NULL PRIMARY KEY, v BIGINT NOT NULL, b BYTEA, flag BOOLEAN)`)
		return err
	}); err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 1_000_000 {
				k := strconv.Itoa(g) + "-" + strconv.Itoa(i)
				if err := db.Write(ctx, put(k, 1)); err != nil {
					panic(err)
				}
				_, _ = os.Stdout.WriteString(k + "\n")
			}
		})
	}
	wg.Wait()
}
