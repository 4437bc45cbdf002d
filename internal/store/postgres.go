package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

type postgresEngine struct {
	pool   *pgxpool.Pool
	writer *pgxpool.Conn // held by the writer goroutine; nil after it broke
}

func openPostgres(ctx context.Context, cfg Config) (engine, error) {
	pc, err := pgxpool.ParseConfig(cfg.Store)
	if err != nil {
		return nil, errors.New("store: the postgres:// URL cannot be parsed") // the cause would show the password
	}
	pc.MaxConns = int32(cfg.Readers) + 2
	if cfg.Durability == "process" {
		pc.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("store: postgres: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("store: postgres: %w", err)
	}
	return &postgresEngine{pool: pool}, nil
}

func (e *postgresEngine) name() string { return "postgres" }

func (e *postgresEngine) migrate(ctx context.Context) error {
	db := stdlib.OpenDBFromPool(e.pool)
	defer db.Close()
	return migrate(ctx, db, "postgres")
}

func (e *postgresEngine) close() error {
	if e.writer != nil {
		e.writer.Release()
		e.writer = nil
	}
	e.pool.Close()
	return nil
}

// retryable tells serialization failures and deadlocks, which come from other
// nodes' writes.
func (e *postgresEngine) retryable(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == "40001" || pe.Code == "40P01")
}

func (e *postgresEngine) begin(ctx context.Context) (writeTx, error) {
	if e.writer != nil && e.writer.Conn().IsClosed() {
		e.writer.Release()
		e.writer = nil
	}
	if e.writer == nil {
		c, err := e.pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		e.writer = c
	}
	tx, err := e.writer.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return nil, err
	}
	return &postgresTx{tx: tx}, nil
}

func (e *postgresEngine) read(ctx context.Context, fn func(Tx) error) error {
	tx, err := e.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("store: read: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	return fn(&postgresTx{tx: tx})
}

type postgresTx struct {
	tx    pgx.Tx
	dirty bool
}

func (t *postgresTx) Exec(query string, args ...any) (int64, error) {
	t.dirty = true
	tag, err := t.tx.Exec(context.Background(), query, args...)
	if err != nil {
		return 0, t.error(err)
	}
	return tag.RowsAffected(), nil
}

func (t *postgresTx) Query(query string, args ...any) (Rows, error) {
	if !isSelect(query) {
		t.dirty = true
	}
	rows, err := t.tx.Query(context.Background(), query, args...)
	if err != nil {
		return nil, t.error(err)
	}
	return postgresRows{rows, t}, nil
}

func (t *postgresTx) QueryRow(query string, args ...any) Row {
	if !isSelect(query) {
		t.dirty = true
	}
	return postgresRow{t.tx.QueryRow(context.Background(), query, args...), t}
}

func (t *postgresTx) wrote() bool { return t.dirty }
func (t *postgresTx) mark()       { t.dirty = false }

func (t *postgresTx) exec(query string) error {
	_, err := t.tx.Exec(context.Background(), query)
	return err
}

func (t *postgresTx) commit(ctx context.Context) error { return t.tx.Commit(ctx) }
func (t *postgresTx) rollback() error                  { return t.tx.Rollback(context.Background()) }

// error translates err. A failed statement has broken the transaction.
func (t *postgresTx) error(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNotFound
	}
	t.dirty = true
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "23505" {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

type postgresRows struct {
	pgx.Rows
	tx *postgresTx
}

func (r postgresRows) Close() error {
	r.Rows.Close()
	return r.tx.error(r.Rows.Err())
}

func (r postgresRows) Err() error { return r.tx.error(r.Rows.Err()) }

type postgresRow struct {
	row pgx.Row
	tx  *postgresTx
}

func (r postgresRow) Scan(dest ...any) error { return r.tx.error(r.row.Scan(dest...)) }
