package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteFile is the database's name inside the data directory.
const sqliteFile = "flotilla.db"

type sqliteEngine struct {
	db      *sql.DB
	writer  *sqliteConn
	readers chan *sqliteConn
}

func openSQLite(ctx context.Context, cfg Config) (_ engine, err error) {
	path := filepath.Join(cfg.Dir, sqliteFile)
	// The driver would create the file readable by all.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	synchronous := "FULL"
	if cfg.Durability == "process" {
		synchronous = "NORMAL"
	}
	q := url.Values{}
	for _, p := range []string{
		"journal_mode(WAL)", "synchronous(" + synchronous + ")", "foreign_keys(1)", "busy_timeout(10000)",
		"temp_store(MEMORY)", "wal_autocheckpoint(" + strconv.Itoa(cfg.Checkpoint) + ")",
		"cache_size(-" + strconv.Itoa(cfg.CacheMiB*1024) + ")",
		// Each connection has a page cache, which holds a small part of a large file: what is not in it need not be copied.
		"mmap_size(" + strconv.Itoa(max(0, cfg.MapMiB)<<20) + ")",
	} {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	e := &sqliteEngine{db: db, readers: make(chan *sqliteConn, cfg.Readers)}
	defer func() {
		if err != nil {
			_ = e.close()
		}
	}()
	if e.writer, err = newSQLiteConn(ctx, db); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", sqliteFile, err)
	}
	for range cfg.Readers {
		c, err := newSQLiteConn(ctx, db)
		if err != nil {
			return nil, fmt.Errorf("store: open %s: %w", sqliteFile, err)
		}
		e.readers <- c
		if err := c.exec("PRAGMA query_only=1"); err != nil {
			return nil, fmt.Errorf("store: open %s: %w", sqliteFile, err)
		}
	}
	return e, nil
}

func (e *sqliteEngine) name() string { return "sqlite" }

func (e *sqliteEngine) migrate(ctx context.Context) error { return migrate(ctx, e.db, "sqlite") }

func (e *sqliteEngine) close() error {
	var errs []error
	if e.writer != nil {
		errs = append(errs, e.writer.close())
	}
	for range cap(e.readers) {
		select {
		case c := <-e.readers:
			errs = append(errs, c.close())
		default:
		}
	}
	return errors.Join(append(errs, e.db.Close())...)
}

func (e *sqliteEngine) retryable(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && se.Code()&0xff == sqlite3.SQLITE_BUSY
}

func (e *sqliteEngine) begin(ctx context.Context) (writeTx, error) {
	if err := e.writer.exec("BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	return e.writer, nil
}

func (e *sqliteEngine) read(ctx context.Context, fn func(Tx) error) error {
	var c *sqliteConn
	select {
	case c = <-e.readers:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { e.readers <- c }()
	if err := c.exec("BEGIN"); err != nil {
		return fmt.Errorf("store: read: %w", err)
	}
	defer func() { _ = c.exec("ROLLBACK") }()
	return fn(c)
}

// sqliteConn is a connection with its prepared statements; it is its own
// transaction, since it runs one at a time.
type sqliteConn struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	dirty bool
}

func newSQLiteConn(ctx context.Context, db *sql.DB) (*sqliteConn, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &sqliteConn{conn: conn, stmts: map[string]*sql.Stmt{}}, nil
}

func (c *sqliteConn) close() error {
	for _, s := range c.stmts {
		_ = s.Close()
	}
	return c.conn.Close()
}

// maxStatements bounds the cache: query texts are constants, but those with
// lists of placeholders vary.
const maxStatements = 512

func (c *sqliteConn) stmt(query string) (*sql.Stmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	if len(c.stmts) >= maxStatements {
		for k, old := range c.stmts {
			_ = old.Close()
			delete(c.stmts, k)
			break
		}
	}
	c.stmts[query] = s
	return s, nil
}

func (c *sqliteConn) Exec(query string, args ...any) (int64, error) {
	c.dirty = true
	s, err := c.stmt(query)
	if err != nil {
		return 0, sqliteError(err)
	}
	res, err := s.Exec(args...)
	if err != nil {
		return 0, sqliteError(err)
	}
	return res.RowsAffected()
}

func (c *sqliteConn) Query(query string, args ...any) (Rows, error) {
	s, err := c.queryStmt(query)
	if err != nil {
		return nil, sqliteError(err)
	}
	rows, err := s.Query(args...)
	if err != nil {
		return nil, sqliteError(err)
	}
	return rows, nil
}

func (c *sqliteConn) QueryRow(query string, args ...any) Row {
	s, err := c.queryStmt(query)
	if err != nil {
		return failedRow{sqliteError(err)}
	}
	return sqliteRow{s.QueryRow(args...)}
}

// queryStmt prepares a query, which may change something: INSERT ... RETURNING.
func (c *sqliteConn) queryStmt(query string) (*sql.Stmt, error) {
	if !isSelect(query) {
		c.dirty = true
	}
	return c.stmt(query)
}

func (c *sqliteConn) wrote() bool { return c.dirty }
func (c *sqliteConn) mark()       { c.dirty = false }

func (c *sqliteConn) exec(query string) error {
	s, err := c.stmt(query)
	if err != nil {
		return err
	}
	_, err = s.Exec()
	return err
}

func (c *sqliteConn) commit(context.Context) error { return c.exec("COMMIT") }
func (c *sqliteConn) rollback() error              { return c.exec("ROLLBACK") }

type sqliteRow struct{ row *sql.Row }

func (r sqliteRow) Scan(dest ...any) error { return sqliteError(r.row.Scan(dest...)) }

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

func sqliteError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() {
		case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
			return fmt.Errorf("%w: %w", ErrConflict, err)
		}
	}
	return err
}
