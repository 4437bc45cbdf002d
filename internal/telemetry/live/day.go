package live

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const schema = `
CREATE TABLE IF NOT EXISTS series (
	id INTEGER PRIMARY KEY, database_name TEXT NOT NULL, table_name TEXT NOT NULL, measure TEXT NOT NULL, dimensions TEXT NOT NULL,
	UNIQUE (database_name, table_name, measure, dimensions));
CREATE TABLE IF NOT EXISTS dimension (
	name TEXT NOT NULL, value TEXT NOT NULL, series INTEGER NOT NULL, PRIMARY KEY (name, value, series)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS point (
	series INTEGER NOT NULL, time INTEGER NOT NULL, value, version INTEGER NOT NULL, PRIMARY KEY (series, time)) WITHOUT ROWID;`

// maxKnown bounds the series whose numbers a day remembers; then it begins anew.
const maxKnown = 200_000

// day is an open file of a day.
type day struct {
	name, path string
	db         *sql.DB // readers; the writer has a connection of its own
	writer     *sql.Conn
	insert     *sql.Stmt
	known      map[string]int64 // series; the writer's
	uses       int              // guarded by the store's mu
	retired    func() error     // when set: it is closed once nobody uses it, and then this; guarded by the store's mu
}

func openDay(path, name string, synchronous string) (_ *day, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	q := url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(" + synchronous + ")", "busy_timeout(10000)", "temp_store(MEMORY)", "wal_autocheckpoint(4000)",
		"cache_size(-16384)", "journal_size_limit(67108864)",
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	d := &day{name: name, path: path, db: db, known: map[string]int64{}}
	defer func() {
		if err != nil {
			_ = d.close()
		}
	}()
	db.SetMaxOpenConns(1 + readers)
	if d.writer, err = db.Conn(context.Background()); err != nil {
		return nil, err
	}
	if _, err = d.writer.ExecContext(context.Background(), schema); err != nil {
		return nil, err
	}
	d.insert, err = d.writer.PrepareContext(context.Background(), `INSERT INTO point (series, time, value, version) VALUES ($1, $2, $3, $4)
		ON CONFLICT (series, time) DO UPDATE SET value = excluded.value, version = excluded.version WHERE excluded.version >= point.version`)
	return d, err
}

func (d *day) close() error {
	var errs []error
	if d.insert != nil {
		errs = append(errs, d.insert.Close())
	}
	if d.writer != nil {
		errs = append(errs, d.writer.Close())
	}
	return errors.Join(append(errs, d.db.Close())...)
}

// write puts points into the file in one transaction; it is called by the writer alone.
func (d *day) write(points []*Point) (err error) {
	ctx := context.Background()
	if _, err := d.writer.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, _ = d.writer.ExecContext(ctx, "ROLLBACK")
			clear(d.known) // what the transaction made is not there
		}
	}()
	var key []byte
	for _, p := range points {
		key = p.appendSeries(key[:0])
		id, ok := d.known[string(key)]
		if !ok {
			if id, err = d.series(ctx, p); err != nil {
				return err
			}
			if len(d.known) >= maxKnown {
				clear(d.known)
			}
			d.known[string(key)] = id
		}
		if _, err := d.insert.ExecContext(ctx, id, p.Time, stored(p.Value), p.Version); err != nil {
			return err
		}
	}
	_, err = d.writer.ExecContext(ctx, "COMMIT")
	return err
}

// series gives the number of the point's series, which it makes if need be.
func (d *day) series(ctx context.Context, p *Point) (id int64, err error) {
	dimensions, err := dimensionsJSON(p.Dimensions)
	if err != nil {
		return 0, err
	}
	err = d.writer.QueryRowContext(ctx, `SELECT id FROM series WHERE database_name = $1 AND table_name = $2 AND measure = $3 AND dimensions = $4`,
		p.Database, p.Table, p.Measure, dimensions).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = d.writer.QueryRowContext(ctx, `INSERT INTO series (database_name, table_name, measure, dimensions) VALUES ($1, $2, $3, $4) RETURNING id`,
		p.Database, p.Table, p.Measure, dimensions).Scan(&id)
	for _, dim := range p.Dimensions {
		if err == nil {
			_, err = d.writer.ExecContext(ctx, `INSERT INTO dimension (name, value, series) VALUES ($1, $2, $3)`, dim.Name, dim.Value, id)
		}
	}
	return id, err
}

// damaged tells that a file is no database, or a broken one.
func damaged(err error) bool {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return false
	}
	code := se.Code() & 0xff
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// removeDay removes the files of a day.
func removeDay(path string) error {
	var errs []error
	for _, suffix := range suffixes {
		if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// suffixes of the files of one database; the database's own goes first.
var suffixes = []string{"", "-wal", "-shm"}

// setAside gives the files of a day another name.
func setAside(path string, at int64) error {
	var errs []error
	for _, suffix := range suffixes {
		if err := os.Rename(path+suffix, fmt.Sprintf("%s.damaged-%d%s", path, at, suffix)); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
