package store

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema to the newest version. Nodes that start together
// take turns (PostgreSQL advisory lock).
func migrate(ctx context.Context, db *sql.DB, dialect string) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	var opts []goose.ProviderOption
	d := goose.DialectPostgres
	if dialect == "sqlite" {
		d, dir = goose.DialectSQLite3, sqliteMigrations{dir}
	} else {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(d, db, dir, opts...)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// sqliteMigrations is a directory of migrations in which the comment
// /*WITHOUT ROWID*/ takes effect, and COLLATE "C" is left out: SQLite knows it
// as BINARY, its default.
type sqliteMigrations struct{ fs.FS }

func (m sqliteMigrations) Open(name string) (fs.File, error) {
	f, err := m.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return f, err
	}
	defer f.Close()
	text, err := fs.ReadFile(m.FS, name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text = bytes.ReplaceAll(text, []byte("/*WITHOUT ROWID*/"), []byte(" WITHOUT ROWID "))
	text = bytes.ReplaceAll(text, []byte(` COLLATE "C"`), nil)
	return &memoryFile{info, bytes.NewReader(text)}, nil
}

func (m sqliteMigrations) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(m.FS, name) }

type memoryFile struct {
	info fs.FileInfo
	*bytes.Reader
}

func (f *memoryFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *memoryFile) Close() error               { return nil }

// isSelect tells a query that changes nothing.
func isSelect(query string) bool {
	q := strings.TrimLeft(query, " \t\r\n(")
	return len(q) >= 6 && strings.EqualFold(q[:6], "SELECT")
}
