package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"

	"flotilla/internal/store"
)

// authorityRecord is a row of authority.
type authorityRecord struct {
	name    string
	der     []byte
	key     []byte // PKCS #8, sealed or not; empty: kept elsewhere
	sealed  bool
	created int64 // ms
	servers bool

	certificate *x509.Certificate // what der holds
}

// opening is the way to an Authority.
type opening struct {
	db  *store.DB
	cfg AuthorityConfig
}

func (o *opening) open(ctx context.Context) (*Authority, error) {
	rows, err := o.rows(ctx)
	if err == nil && find(rows, rootName) == nil {
		if err = o.makeRoot(ctx); err == nil {
			rows, err = o.rows(ctx)
		}
	}
	if err == nil {
		err = o.seal(ctx, rows)
	}
	if err != nil {
		return nil, err
	}
	root := find(rows, rootName)
	if root == nil {
		return nil, errors.New("its root was not stored")
	}
	if o.issuing(rows) == nil {
		if err := o.makeIssuing(ctx, root); err != nil {
			return nil, err
		}
		if rows, err = o.rows(ctx); err != nil {
			return nil, err
		}
		root = find(rows, rootName)
	}
	return o.assemble(rows, root, o.issuing(rows))
}

func find(rows []*authorityRecord, name string) *authorityRecord {
	for _, r := range rows {
		if r.name == name {
			return r
		}
	}
	return nil
}

// rows reads all authorities, the newest last.
func (o *opening) rows(ctx context.Context) (rows []*authorityRecord, err error) {
	err = o.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list, err := selectAuthorities(tx)
		rows = list
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.certificate, err = x509.ParseCertificate(r.der); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	slices.SortStableFunc(rows, func(a, b *authorityRecord) int { return cmp.Compare(a.created, b.created) })
	return rows, nil
}

// issuing picks the authority that issues: that of the signer's key, else the newest.
func (o *opening) issuing(rows []*authorityRecord) (picked *authorityRecord) {
	for _, r := range rows {
		if r.name == rootName || o.cfg.Signer != nil && !samePublic(r.certificate.PublicKey, o.cfg.Signer.Public()) {
			continue
		}
		picked = r
	}
	return picked
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// seal seals keys that are not.
func (o *opening) seal(ctx context.Context, rows []*authorityRecord) error {
	for _, r := range rows {
		if o.cfg.Passphrase == "" || r.sealed || len(r.key) == 0 {
			continue
		}
		shut, err := seal(o.cfg.Passphrase, r.name, r.key)
		if err != nil {
			return err
		}
		err = o.db.Write(ctx, func(_ context.Context, tx store.Tx) error { return sealAuthority(tx, r.name, shut) })
		if err != nil {
			return err
		}
		r.key, r.sealed = shut, true
	}
	return nil
}

// signer opens the key of an authority.
func (o *opening) signer(r *authorityRecord) (s signing, err error) {
	s.certificate = r.certificate
	if o.cfg.Signer != nil && samePublic(r.certificate.PublicKey, o.cfg.Signer.Public()) {
		s.key = o.cfg.Signer
		return s, nil
	}
	key := r.key
	switch {
	case len(key) == 0:
		return s, fmt.Errorf("the key of %s is kept elsewhere: start with identity.signer", r.name)
	case r.sealed && o.cfg.Passphrase == "":
		return s, errors.New("its key is sealed: start with identity.ca-passphrase")
	case r.sealed:
		if key, err = unseal(o.cfg.Passphrase, r.name, key); err != nil {
			return s, errors.New("its key can't be opened: identity.ca-passphrase is wrong")
		}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return s, errors.New("its key does not parse")
	}
	var ok bool
	if s.key, ok = parsed.(crypto.Signer); !ok {
		return s, errors.New("its key can't sign")
	}
	return s, nil
}

func (o *opening) assemble(rows []*authorityRecord, root, issuing *authorityRecord) (*Authority, error) {
	if issuing == nil {
		return nil, errors.New("its issuing authority was not stored")
	}
	a := &Authority{root: root.certificate, signers: map[string]signing{}, now: o.cfg.Now}
	var err error
	if a.issuing, err = o.signer(issuing); err != nil {
		return nil, err
	}
	a.servers = a.issuing
	a.signers[keyID(issuing.certificate.SubjectKeyId)] = a.issuing
	if root.servers {
		if a.servers, err = o.signer(root); err != nil {
			return nil, err
		}
		a.signers[keyID(root.certificate.SubjectKeyId)] = a.servers
	}
	for _, r := range rows {
		if r == root || r == issuing {
			continue
		}
		a.old = append(a.old, r.certificate)
		if s, err := o.signer(r); err == nil { // else its key is gone, and with it its revocation lists
			a.signers[keyID(r.certificate.SubjectKeyId)] = s
		}
	}
	return a, nil
}

// newKey makes a key for a row: as it is stored, sealed or not.
func (o *opening) newKey(name string) (key crypto.Signer, stored []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if stored, err = x509.MarshalPKCS8PrivateKey(k); err != nil {
		return nil, nil, err
	}
	if o.cfg.Passphrase != "" {
		stored, err = seal(o.cfg.Passphrase, name, stored)
	}
	return k, stored, err
}

// makeRoot makes the root unless another node was quicker.
func (o *opening) makeRoot(ctx context.Context) error {
	key, stored, err := o.newKey(rootName)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	issued := o.cfg.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Flotilla Root CA", OrganizationalUnit: []string{serial.Text(16)[:8]}},
		NotBefore:    issued.Add(-clockSkew), NotAfter: endOfTime,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: 1,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	r := &authorityRecord{name: rootName, der: der, key: stored, sealed: o.cfg.Passphrase != "", created: issued.UnixMilli()}
	return o.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := insertAuthority(tx, r)
		return err
	})
}

// makeIssuing makes an issuing authority, for the signer's key if there is one, unless another node was quicker. A root
// of the time when it signed leaves only gets a certificate that lets it sign authorities, for the same name and key.
func (o *opening) makeIssuing(ctx context.Context, root *authorityRecord) error {
	by, err := o.signer(root)
	if err != nil {
		return fmt.Errorf("an issuing authority can't be made: %w", err)
	}
	renewed := root.der
	if by.certificate.MaxPathLenZero {
		if renewed, err = o.lengthen(by); err != nil {
			return err
		}
	}
	r := &authorityRecord{name: issuingName, created: o.cfg.Now().UnixMilli(), servers: !root.servers}
	public := crypto.PublicKey(nil)
	if o.cfg.Signer != nil {
		public = o.cfg.Signer.Public()
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return err
		}
		r.name += "-" + certificateID(der)[:16]
	} else {
		key, stored, err := o.newKey(r.name)
		if err != nil {
			return err
		}
		public, r.key, r.sealed = key.Public(), stored, o.cfg.Passphrase != ""
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Flotilla Issuing CA", OrganizationalUnit: by.certificate.Subject.OrganizationalUnit},
		NotBefore:    o.cfg.Now().Add(-clockSkew), NotAfter: by.certificate.NotAfter,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: 0, MaxPathLenZero: true, // signs leaves only
	}
	if r.der, err = x509.CreateCertificate(rand.Reader, template, by.certificate, public, by.key); err != nil {
		return err
	}
	return o.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		made, err := insertAuthority(tx, r)
		if err != nil || !made || bytes.Equal(renewed, root.der) {
			return err
		}
		return replaceAuthority(tx, rootName, renewed)
	})
}

// lengthen is the root's certificate with room for an authority below it.
func (o *opening) lengthen(root signing) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	old := root.certificate
	template := &x509.Certificate{
		SerialNumber: serial, RawSubject: old.RawSubject, SubjectKeyId: old.SubjectKeyId, NotBefore: old.NotBefore, NotAfter: old.NotAfter,
		KeyUsage: old.KeyUsage, BasicConstraintsValid: true, IsCA: true, MaxPathLen: 1,
	}
	parent := *template
	parent.Subject, parent.RawSubject = old.Subject, old.RawSubject
	return x509.CreateCertificate(rand.Reader, template, &parent, root.key.Public(), root.key)
}

func selectAuthorities(tx store.Tx) ([]*authorityRecord, error) {
	rows, err := tx.Query(`SELECT name, certificate, private_key, sealed, created, signs_servers FROM authority ORDER BY created, name`)
	list, err := collect(rows, err, func(r *authorityRecord) []any {
		return []any{&r.name, &r.der, &r.key, &r.sealed, &r.created, &r.servers}
	})
	out := make([]*authorityRecord, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out, err
}

// insertAuthority adds a row; made is false when there is one of its name.
func insertAuthority(tx store.Tx, r *authorityRecord) (made bool, err error) {
	if r.key == nil {
		r.key = []byte{}
	}
	n, err := tx.Exec(`INSERT INTO authority (name, certificate, private_key, sealed, created, signs_servers) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (name) DO NOTHING`, r.name, r.der, r.key, r.sealed, r.created, r.servers)
	return n > 0, err
}

func sealAuthority(tx store.Tx, name string, sealed []byte) error {
	_, err := tx.Exec(`UPDATE authority SET private_key = $1, sealed = $2 WHERE name = $3 AND sealed = $4`, sealed, true, name, false)
	return err
}

func replaceAuthority(tx store.Tx, name string, der []byte) error {
	_, err := tx.Exec(`UPDATE authority SET certificate = $1 WHERE name = $2`, der, name)
	return err
}
