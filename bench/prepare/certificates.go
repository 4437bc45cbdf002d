package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// makeCertificates makes an authority, the certificate of a server on loopback and n
// of clients, all ECDSA P-256; what is in dir already stays. It gives the clients' PEM.
func makeCertificates(dir string, n int) ([]string, error) {
	if err := os.MkdirAll(filepath.Join(dir, "clients"), 0o755); err != nil {
		return nil, err
	}
	clients := make([]string, n)
	name := func(i int) string { return filepath.Join(dir, "clients", fmt.Sprintf("%05d", i)) }
	for i := range n {
		b, err := os.ReadFile(name(i) + ".crt")
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		if clients[i] = string(b); i == n-1 {
			return clients, nil
		}
	}
	ca := &pair{template: template("flotilla benchmark CA")}
	ca.template.IsCA, ca.template.BasicConstraintsValid, ca.template.KeyUsage = true, true, x509.KeyUsageCertSign
	if err := ca.make(ca, filepath.Join(dir, "ca")); err != nil {
		return nil, err
	}
	server := &pair{template: template("localhost")}
	server.template.DNSNames, server.template.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	server.template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if err := server.make(ca, filepath.Join(dir, "server")); err != nil {
		return nil, err
	}
	for i := range n {
		client := &pair{template: template(fmt.Sprintf("device-%d", i))}
		client.template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if err := client.make(ca, name(i)); err != nil {
			return nil, err
		}
		clients[i] = client.pem
	}
	return clients, nil
}

type pair struct {
	template *x509.Certificate
	key      *ecdsa.PrivateKey
	pem      string
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// make signs the certificate with ca's key and writes both halves. The keys are worth
// nothing, and servers that give up root must read theirs.
func (p *pair) make(ca *pair, name string) error {
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	if p.template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, p.template, ca.template, &p.key.PublicKey, ca.key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(p.key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p.pem = string(text)
	return errors.Join(
		os.WriteFile(name+".crt", text, 0o644),
		os.WriteFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o644),
	)
}
