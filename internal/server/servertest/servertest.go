// Package servertest starts real deployments for tests: one node with everything
// embedded, or two nodes over PostgreSQL and an external NATS when
// FLOTILLA_TEST_POSTGRES and FLOTILLA_TEST_NATS say where those are. Tests talk
// to them through clients that this project did not write.
package servertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"

	"flotilla/internal/server"
	"flotilla/internal/store/storetest"
)

// Deployment is a running system of one or more nodes.
type Deployment struct {
	nodes []*Node
}

// Node is one running server.
type Node struct {
	endpoints         server.Endpoints
	Config            server.Config
	AccessKey, Secret string
	Roots             *x509.CertPool
	ServerName        string // what clients ask for (SNI); "" for the address alone

	stop func() error // nil: it is another process
}

// Start starts a deployment that ends with the test. Each of change may adjust
// the configuration of every node.
func Start(t testing.TB, change ...func(*server.Config)) *Deployment {
	t.Helper()
	d := &Deployment{}
	postgres, nats := os.Getenv("FLOTILLA_TEST_POSTGRES"), os.Getenv("FLOTILLA_TEST_NATS")
	if postgres == "" || nats == "" {
		d.nodes = append(d.nodes, StartNode(t, t.TempDir(), change...))
		return d
	}
	url := storetest.Postgres(t, postgres)
	prefix := fmt.Sprintf("flotilla-test-%d-%d", os.Getpid(), rand.Uint32())
	shared := func(c *server.Config) {
		c.Store.Store, c.Bus.NATS, c.Bus.Prefix = url, nats, prefix
	}
	for range 2 {
		d.nodes = append(d.nodes, StartNode(t, t.TempDir(), append([]func(*server.Config){shared}, change...)...))
	}
	return d
}

// Node returns the i-th node; with a single node it is always that one.
func (d *Deployment) Node(i int) *Node { return d.nodes[i%len(d.nodes)] }

// Config is the configuration of a node for tests: free ports on loopback, data
// in dir.
func Config(dir string) server.Config {
	cfg := server.DefaultConfig()
	cfg.Data = dir
	cfg.MQTTAddr, cfg.HTTPSAddr, cfg.APIAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Bus.NATSAddr = "127.0.0.1:0"
	cfg.Gateway.Mesh.Timeout = time.Minute // a busy machine makes nodes wait
	return cfg
}

// StartNode starts one node on dir.
func StartNode(t testing.TB, dir string, change ...func(*server.Config)) *Node {
	t.Helper()
	cfg := Config(dir)
	for _, c := range change {
		c(&cfg)
	}
	srv, err := server.Start(context.Background(), cfg, Log(t))
	if err != nil {
		t.Fatal(err)
	}
	n := AttachTo(t, srv.Endpoints(), cfg)
	n.stop = srv.Close
	t.Cleanup(func() { n.Stop(t) })
	return n
}

// Stop ends a node that StartNode has started; another may be started on its directory then.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	if err := n.stop(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// AttachTo reads what a client of a running server, in this process or another,
// needs from its data directory.
func AttachTo(t testing.TB, e server.Endpoints, cfg server.Config) *Node {
	t.Helper()
	n := &Node{endpoints: e, Config: cfg, Roots: x509.NewCertPool()}
	pem, err := os.ReadFile(filepath.Join(cfg.Data, "ca", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if !n.Roots.AppendCertsFromPEM(pem) {
		t.Fatal("ca/root.pem holds no certificate")
	}
	if n.AccessKey, n.Secret, err = server.ReadCredentials(filepath.Join(cfg.Data, "credentials")); err != nil {
		t.Fatal(err)
	}
	return n
}

// Endpoints is where the node listens.
func (n *Node) Endpoints() server.Endpoints { return n.endpoints }

// Account is the node's AWS account id.
func (n *Node) Account() string { return n.Config.Account }

// Log shows the server's warnings in the test's output when FLOTILLA_TEST_LOG is
// set, and discards them otherwise.
func Log(testing.TB) *slog.Logger {
	if os.Getenv("FLOTILLA_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// IoT is a client of the control plane.
func (n *Node) IoT() *iot.Client {
	return iot.New(iot.Options{
		Region: "us-east-1", BaseEndpoint: new(n.Endpoints().API), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(n.AccessKey, n.Secret, ""),
	})
}

// Data is a client of the data plane.
func (n *Node) Data() *iotdataplane.Client {
	return iotdataplane.New(iotdataplane.Options{
		Region: "us-east-1", BaseEndpoint: new(n.Endpoints().API), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(n.AccessKey, n.Secret, ""),
	})
}

// Identity is a device's certificate.
type Identity struct {
	ID, ARN string
	TLS     tls.Certificate
}

// Identity makes an active certificate with a policy of the given statements,
// each "action resource[,resource]" and allowed; resources are the part of the
// ARN behind the account.
func (n *Node) Identity(t testing.TB, name string, statements ...string) Identity {
	t.Helper()
	ctx := context.Background()
	made, err := n.IoT().CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	if err != nil {
		t.Fatal(err)
	}
	doc := PolicyDocument(n.Account(), statements...)
	if _, err := n.IoT().CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: &name, PolicyDocument: &doc}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: &name, Target: made.CertificateArn}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(*made.CertificatePem), []byte(*made.KeyPair.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return Identity{*made.CertificateId, *made.CertificateArn, pair}
}

// PolicyDocument writes a policy that allows each "action resource[,resource]".
func PolicyDocument(account string, statements ...string) string {
	var b strings.Builder
	b.WriteString(`{"Version":"2012-10-17","Statement":[`)
	for i, s := range statements {
		action, resources, _ := strings.Cut(s, " ")
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"Effect":"Allow","Action":%q,"Resource":[`, action)
		for j, r := range strings.Split(resources, ",") {
			if j > 0 {
				b.WriteByte(',')
			}
			if r != "*" {
				r = "arn:aws:iot:us-east-1:" + account + ":" + r
			}
			fmt.Fprintf(&b, "%q", r)
		}
		b.WriteString("]}")
	}
	b.WriteString("]}")
	return b.String()
}

// ClientTLS is the TLS configuration of a device.
func (n *Node) ClientTLS(id Identity) *tls.Config {
	return &tls.Config{RootCAs: n.Roots, Certificates: []tls.Certificate{id.TLS}, MinVersion: tls.VersionTLS12, ServerName: n.ServerName}
}
