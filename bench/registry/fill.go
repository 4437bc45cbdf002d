package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"flotilla/internal/store"
)

const (
	identities = 500 // things that have real certificates
	groups     = 100
	arn        = "arn:aws:iot:us-east-1:123456789012:"
	document   = `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:Connect","Resource":"` + arn + `client/${iot:Connection.Thing.ThingName}","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}},
		{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"` + arn + `topic/dt/${iot:Connection.Thing.ThingName}/*"},
		{"Effect":"Allow","Action":"iot:Subscribe","Resource":"` + arn + `topicfilter/cmd/${iot:Connection.Thing.ThingName}/*"}]}`
)

// fleet is a filled store.
type fleet struct {
	n     int
	known []tls.Certificate // of things spread over all
	cfg   store.Config
	ids   []string // certificate ids by thing
}

func thingName(i int) string  { return fmt.Sprintf("thing-%07d", i) }
func groupName(i int) string  { return fmt.Sprintf("group-%03d", i) }
func (f *fleet) at(i int) int { return i * (f.n / len(f.known)) } // the thing of a known certificate

// makeIdentities makes self-signed certificates, as one may register them without a CA.
func makeIdentities(n int) ([]tls.Certificate, error) {
	out := make([]tls.Certificate, n)
	for i := range out {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		in := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprint("device ", i), Organization: []string{"bench"}},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		}
		der, err := x509.CreateCertificate(rand.Reader, in, in, &key.PublicKey, key)
		if err != nil {
			return nil, err
		}
		out[i] = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	return out, nil
}

// keptIdentities reads identities from a file, or makes them and writes it.
func keptIdentities(file string) ([]tls.Certificate, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		var out []tls.Certificate
		for len(text) > 0 {
			var c, k *pem.Block
			c, text = pem.Decode(text)
			if k, text = pem.Decode(text); c == nil || k == nil {
				return nil, fmt.Errorf("%s: not pairs of a certificate and its key", file)
			}
			key, err := x509.ParsePKCS8PrivateKey(k.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			out = append(out, tls.Certificate{Certificate: [][]byte{c.Bytes}, PrivateKey: key})
		}
		return out, nil
	}
	out, err := makeIdentities(identities)
	if err != nil {
		return nil, err
	}
	for _, c := range out {
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			return nil, err
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	}
	return out, os.WriteFile(file, text, 0o600)
}

// name gives each thing the id of its certificate.
func (f *fleet) name() {
	f.ids = make([]string, f.n)
	for i := range f.n {
		sum := sha256.Sum256([]byte(thingName(i)))
		f.ids[i] = hex.EncodeToString(sum[:])
	}
	for i, c := range f.known {
		sum := sha256.Sum256(c.Certificate[0])
		f.ids[f.at(i)] = hex.EncodeToString(sum[:])
	}
}

// fill makes n things, each with attributes, a type, a group and a certificate that has a policy.
func (f *fleet) fill(ctx context.Context) error {
	if err := os.MkdirAll(f.cfg.Dir, 0o700); err != nil {
		return err
	}
	cfg := f.cfg
	cfg.Durability = "process"
	db, err := store.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	ders := make([][]byte, f.n)
	for i := range f.n {
		ders[i] = f.known[0].Certificate[0] // of the right size; only the known ones connect
	}
	for i, c := range f.known {
		ders[f.at(i)] = c.Certificate[0]
	}
	byID := make([]int, f.n) // things in the order of their certificates
	for i := range byID {
		byID[i] = i
	}
	slices.SortFunc(byID, func(a, b int) int { return strings.Compare(f.ids[a], f.ids[b]) })
	now := time.Now().UnixMilli()
	principal := func(i int) string { return arn + "cert/" + f.ids[i] }
	site := func(i int) string { return fmt.Sprint("site-", i%50) }
	byName := func(k int) int { return k }
	byCert := func(k int) int { return byID[k] }
	if err := f.few(ctx, db, now); err != nil {
		return err
	}
	for _, t := range []struct {
		table string
		order func(int) int
		row   func(i int) []any
	}{
		{"thing (name, id, type, billing, attributes, version, created)", byName, func(i int) []any {
			return []any{thingName(i), fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "pump", "", fmt.Sprintf(`{"serial":"%d","site":"%s"}`, i, site(i)), 1, now}
		}},
		{"thing_attribute (name, value, thing)", func(k int) int { return k*50%f.n + k*50/f.n }, func(i int) []any { return []any{"site", site(i), thingName(i)} }},
		{"thing_group_member (thing, group_number)", byName, func(i int) []any { return []any{thingName(i), i%groups + 2} }},
		{"thing_group_reach (group_number, thing)", byName, func(i int) []any { return []any{1, thingName(i)} }},
		{"certificate (id, der, status, mode, ca_id, not_before, not_after, created, modified, revision, generation, claim, pending_until)", byCert, func(i int) []any {
			return []any{f.ids[i], ders[i], "ACTIVE", "DEFAULT", "", now - 1000, now + 1e10, now + int64(i), now, 1, "g", "", 0}
		}},
		{"thing_principal (thing, principal, exclusive)", byName, func(i int) []any { return []any{thingName(i), principal(i), false} }},
		{"attached_principal (principal, changes)", byCert, func(i int) []any { return []any{principal(i), 1} }},
		{"policy_attachment (target, policy, created)", byCert, func(i int) []any { return []any{principal(i), "bench", now} }},
	} {
		if err := insert(ctx, db, t.table, f.n, func(k int) []any { return t.row(t.order(k)) }); err != nil {
			return fmt.Errorf("%s: %w", t.table, err)
		}
	}
	return nil
}

// few makes the type, the groups and the policy.
func (f *fleet) few(ctx context.Context, db *store.DB, now int64) error {
	return db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		exec := func(query string, args ...any) (err error) {
			_, err = tx.Exec(query, args...)
			return err
		}
		const group = `INSERT INTO thing_group (name, number, id, parent, ancestors, description, attributes, version, created) VALUES ($1, $2, $3, $4, $5, '', '{}', 1, $6)`
		if err := exec(group, "root", 1, "root", "", "[]", now); err != nil {
			return err
		}
		for i := range groups {
			if err := exec(group, groupName(i), i+2, groupName(i), "root", `["root"]`, now); err != nil {
				return err
			}
			if err := exec(`INSERT INTO thing_group_ancestor (ancestor, name) VALUES ('root', $1)`, groupName(i)); err != nil {
				return err
			}
		}
		if err := exec(`INSERT INTO thing_type (name, id, description, searchable, created, deprecated) VALUES ('pump', 'pump', '', '["site"]', $1, 0)`, now); err != nil {
			return err
		}
		if err := exec(`INSERT INTO policy (name, default_version, last_version, created, modified, generation) VALUES ('bench', 1, 1, $1, $1, 'g')`, now); err != nil {
			return err
		}
		return exec(`INSERT INTO policy_version (policy, version, document, created, generation) VALUES ('bench', 1, $1, $2, 'g')`, document, now)
	})
}

// insert fills a table with n rows. PostgreSQL takes many a statement, to save round trips; SQLite is faster by one.
func insert(ctx context.Context, db *store.DB, table string, n int, row func(int) []any) error {
	batch, aStatement := 20_000, 1
	if db.Name() == "postgres" {
		aStatement = 500
	}
	for from := 0; from < n; from += batch {
		err := db.Write(ctx, func(_ context.Context, tx store.Tx) error {
			for at := from; at < min(n, from+batch); at += aStatement {
				var rows []string
				var args []any
				for k := at; k < min(n, at+aStatement); k++ {
					r := row(k)
					marks := make([]string, len(r))
					for c := range r {
						marks[c] = fmt.Sprint("$", len(args)+c+1)
					}
					rows, args = append(rows, "("+strings.Join(marks, ",")+")"), append(args, r...)
				}
				if _, err := tx.Exec("INSERT INTO "+table+" VALUES "+strings.Join(rows, ","), args...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
