package domain

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	maxFile  = 64 << 10
	maxChain = 16 << 10 // bytes of DER
	maxDepth = 5

	// lookEvery is how often a file is looked at for changes, at most.
	lookEvery = time.Second
)

// certificates are the sources of server certificates.
type certificates struct {
	dir   string
	issue func(domainName string) (GetCertificate, error)
	log   *slog.Logger
	now   func() time.Time

	mu     sync.Mutex
	files  map[string]*file   // by certificate id
	issued map[string]*issued // by domain name
}

// file is a PEM file of the operator's, kept in memory while it does not change.
type file struct {
	path string
	mu   sync.Mutex
	at   time.Time // when it was last looked at
	info os.FileInfo
	cert *tls.Certificate // nil: never been good
	err  error            // of the newest version
}

// issued is the source of certificates that the deployment makes for a domain.
type issued struct {
	mu  sync.Mutex
	get GetCertificate
}

// source gives the certificates of a configuration.
func (c *certificates) source(r *record) GetCertificate {
	if r.certificateARN == "" {
		return c.ours(r.domainName)
	}
	id, err := certificateID(r.certificateARN)
	if err != nil {
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, err }
	}
	f := c.file(id)
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.get(c) }
}

func (c *certificates) file(id string) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[id]
	if f == nil {
		f = &file{path: filepath.Join(c.dir, id+".pem")}
		c.files[id] = f
	}
	return f
}

// ours is issued at the first handshake that needs it.
func (c *certificates) ours(domainName string) GetCertificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issue == nil {
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return nil, errors.New("domain: there is no authority to issue it")
		}
	}
	i := c.issued[domainName]
	if i == nil {
		i = &issued{}
		c.issued[domainName] = i
	}
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		i.mu.Lock()
		get := i.get
		if get == nil {
			var err error
			if get, err = c.issue(domainName); err != nil {
				i.mu.Unlock()
				return nil, fmt.Errorf("domain: certificate of %s: %w", domainName, err)
			}
			i.get = get
		}
		i.mu.Unlock()
		return get(hello)
	}
}

// keep forgets what none of the configurations needs.
func (c *certificates) keep(rows []record) {
	ids, names := map[string]bool{}, map[string]bool{}
	for i := range rows {
		if id, err := certificateID(rows[i].certificateARN); err == nil {
			ids[id] = true
		}
		names[rows[i].domainName] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.files {
		if !ids[id] {
			delete(c.files, id)
		}
	}
	for name := range c.issued {
		if !names[name] {
			delete(c.issued, name)
		}
	}
}

// get gives the newest good version of the file.
func (f *file) get(c *certificates) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := c.now(); now.Sub(f.at) >= lookEvery || now.Before(f.at) {
		f.at = now
		f.look(c.log)
	}
	if f.cert == nil {
		return nil, fmt.Errorf("domain: %w", f.err)
	}
	return f.cert, nil
}

// look reads the file again if it has changed. A version that is no good leaves the one before in place.
func (f *file) look(log *slog.Logger) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.fail(log, nil, errors.New("the file certificates/"+filepath.Base(f.path)+" can't be read"))
		return
	}
	if f.info != nil && os.SameFile(info, f.info) && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size() {
		return
	}
	cert, err := load(f.path)
	if err != nil {
		f.fail(log, info, err)
		return
	}
	if info.Mode().Perm()&0o077 != 0 {
		log.Warn("others can read the private key of a server certificate", "op", "TLS", "file", filepath.Base(f.path))
	}
	f.info, f.cert, f.err = info, cert, nil
}

// fail notes a version that is no good, and says so once.
func (f *file) fail(log *slog.Logger, info os.FileInfo, err error) {
	if f.err == nil || f.err.Error() != err.Error() {
		log.Warn("server certificate is no good", "op", "TLS", "file", filepath.Base(f.path), "err", err)
	}
	f.info, f.err = info, err
}

// load reads a chain and its key.
func load(path string) (*tls.Certificate, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil { // it never tells the key
		return nil, fmt.Errorf("the file certificates/%s is not a chain with its key in PEM: %w", filepath.Base(path), err)
	}
	return &cert, nil
}

func read(path string) ([]byte, error) {
	name := "the file certificates/" + filepath.Base(path)
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.New(name + " can't be read")
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, errors.New(name + " can't be read")
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s is longer than %d bytes", name, maxFile)
	}
	return text, nil
}

// check tells whether a certificate is good for a domain now.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-configurable-custom.html
func (c *certificates) check(id, domainName string) error {
	cert, err := load(filepath.Join(c.dir, id+".pem"))
	if err != nil {
		return err
	}
	if err := checkLeaf(cert.Leaf, domainName, c.now()); err != nil {
		return err
	}
	size := 0
	for _, der := range cert.Certificate {
		size += len(der)
	}
	if len(cert.Certificate) > maxDepth || size > maxChain {
		return fmt.Errorf("its chain has more than %d certificates or %d bytes", maxDepth, maxChain)
	}
	child := cert.Leaf
	for _, der := range cert.Certificate[1:] {
		parent, err := x509.ParseCertificate(der)
		if err != nil || child.CheckSignatureFrom(parent) != nil {
			return errors.New("its chain is not one: each certificate must be signed by the next")
		}
		child = parent
	}
	switch key := cert.Leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return errors.New("its RSA key has less than 2048 bits")
		}
	case *ecdsa.PublicKey:
	default:
		return errors.New("its key is neither RSA nor ECDSA")
	}
	return nil
}

func checkLeaf(leaf *x509.Certificate, domainName string, now time.Time) error {
	switch {
	case now.Before(leaf.NotBefore):
		return errors.New("it is not valid yet")
	case now.After(leaf.NotAfter):
		return errors.New("it has expired")
	case leaf.VerifyHostname(domainName) != nil:
		return fmt.Errorf("it is not for %s", domainName)
	case len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errors.New("it is not for servers")
	}
	return nil
}

// checkValidation looks at a certificate that shows who owns a domain; its key is not needed.
func (c *certificates) checkValidation(id, domainName string) error {
	text, err := read(filepath.Join(c.dir, id+".pem"))
	if err != nil {
		return err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			break
		}
		return checkLeaf(leaf, domainName, c.now())
	}
	return errors.New("it is not a certificate in PEM")
}
