package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/bench/target"
)

// floor gives the CPU that a process needs for n mutual TLS 1.3 handshakes and n/2 signatures, and nothing else.
func floor(ctx context.Context, n, parallel int, client tls.Certificate) (cpu time.Duration, err error) {
	dir, err := os.MkdirTemp("", "flotilla-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "pair.pem")
	if err := writePair(file, client); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, "-bare", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("bare server: %w", err)
	}
	before, err := target.CPU(cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	var g errgroup.Group
	g.SetLimit(parallel)
	for range n {
		g.Go(func() error {
			// Whom it speaks to does not matter here: that the client verifies nothing costs the server nothing.
			c, err := tls.Dial("tcp", strings.TrimSpace(addr), &tls.Config{Certificates: []tls.Certificate{client}, InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, c) // until the server has seen our certificate and closes
			return errors.Join(err, c.Close())
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	after, err := target.CPU(cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	sign, err := signatures(n / 2)
	return after - before + sign, err
}

// writePair writes a certificate with its key, which the bare server uses as its own.
func writePair(file string, c tls.Certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	var text []byte
	for _, der := range c.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return os.WriteFile(file, append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), 0o600)
}

// serveBare does handshakes on a free port, which it prints, and ends each connection after it.
func serveBare(file string) error {
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			t := tls.Server(c, cfg)
			if t.Handshake() == nil {
				_ = t.Close()
			}
		}()
	}
}

// signatures gives the CPU of n ECDSA P-256 signatures.
func signatures(n int) (time.Duration, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	used := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it can't fail
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin := used()
	for range n {
		if _, err := ecdsa.SignASN1(rand.Reader, key, make([]byte, 32)); err != nil {
			return 0, err
		}
	}
	return used() - begin, nil
}
