// Command device-go is a device, written to be read: an Eclipse Paho client that keeps itself on its shadow and on its jobs.
//
//	go run ./examples/device-go -thing pump-1 -endpoint localhost:8883 -ca root.pem -cert pump-1.pem -key pump-1.key
//
// Its shadow's desired state {"intervalSeconds": 5} says how often it sends telemetry. A job brings it firmware when the
// document is one of an OTA update (CreateOTAUpdate; docs/ota.md), whose image it fetches by its presigned URL and verifies
// with the certificate of -firmware-certificate. It rejects jobs that it does not know.
//
// The rule that makes it robust: whenever the connection is up, it asks for its state and for its next job, as if it knew
// nothing. So it needs no session, no memory of what it missed, and no message twice.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

func main() {
	thing := flag.String("thing", "", "name of the thing that the certificate is attached to")
	endpoint := flag.String("endpoint", "localhost:8883", "host:port for MQTT over mutual TLS")
	ca := flag.String("ca", "root.pem", "what the device trusts, PEM")
	cert := flag.String("cert", "cert.pem", "the device's certificate")
	key := flag.String("key", "key.pem", "its private key")
	firmware := flag.String("firmware-certificate", "", "certificate that signatures of images are verified with")
	dir := flag.String("dir", ".", "where images are installed")
	flag.Parse()
	if err := run(*thing, *endpoint, *ca, *cert, *key, *firmware, *dir); err != nil {
		log.Fatal(err)
	}
}

func run(thing, endpoint, ca, cert, key, firmware, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	config, err := mutualTLS(ca, cert, key)
	if err != nil {
		return err
	}
	d := &device{thing: thing, interval: 10 * time.Second, messages: make(chan *paho.Publish, 64), connected: make(chan struct{}, 1)}
	if d.installer, err = newInstaller(config.RootCAs, firmware, dir); err != nil {
		return err
	}
	server := &url.URL{Scheme: "tls", Host: endpoint}
	d.connection, err = autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{server}, TlsCfg: config, KeepAlive: 60, CleanStartOnInitialConnection: true,
		ReconnectBackoff: autopaho.DefaultExponentialBackoff(),
		OnConnectionUp:   func(*autopaho.ConnectionManager, *paho.Connack) { d.wake() },
		OnConnectError:   func(err error) { log.Print("connect: ", err) },
		ClientConfig: paho.ClientConfig{
			ClientID:          thing, // the usual policy allows a device its thing's name, and no other
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){d.receive},
		},
	})
	if err != nil {
		return err
	}
	d.live(ctx)
	goodbye, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return d.connection.Disconnect(goodbye)
}

func mutualTLS(ca, cert, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}, nil
}

// device does everything in one goroutine, live; the client's own only pass messages on.
type device struct {
	thing      string
	connection *autopaho.ConnectionManager
	installer  *installer
	messages   chan *paho.Publish
	connected  chan struct{} // the connection is up, or a message was lost: ask anew

	interval time.Duration // of telemetry
	version  int64         // of the shadow that was applied last
	sequence int
}

// receive must not block: the client reads no acknowledgement meanwhile.
func (d *device) receive(p paho.PublishReceived) (bool, error) {
	select {
	case d.messages <- p.Packet:
	default:
		d.wake() // too much at once: what was lost is asked for
	}
	return true, nil
}

func (d *device) wake() {
	select {
	case d.connected <- struct{}{}:
	default:
	}
}

func (d *device) live(ctx context.Context) {
	telemetry := time.NewTicker(d.interval)
	defer telemetry.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-d.connected:
			err = d.synchronize(ctx)
		case m := <-d.messages:
			err = d.handle(ctx, m)
			telemetry.Reset(d.interval)
		case <-telemetry.C:
			d.sequence++
			err = d.publish(ctx, "telemetry/"+d.thing, map[string]any{"sequence": d.sequence, "temperature": 21.5})
		}
		if err != nil {
			log.Print(err) // when the connection is up again, all is asked for
		}
	}
}

func (d *device) topic(suffix string) string { return "$aws/things/" + d.thing + "/" + suffix }

// synchronize subscribes, then asks for the shadow and for the next job.
func (d *device) synchronize(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s := &paho.Subscribe{}
	for _, suffix := range []string{
		"shadow/update/delta", "shadow/update/rejected", "shadow/get/accepted",
		"jobs/notify-next", "jobs/start-next/accepted", "jobs/+/update/rejected",
	} {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: d.topic(suffix), QoS: 1})
	}
	if _, err := d.connection.Subscribe(ctx, s); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := d.publish(ctx, d.topic("shadow/get"), struct{}{}); err != nil {
		return err
	}
	return d.publish(ctx, d.topic("jobs/start-next"), struct{}{})
}

// publish returns when the service has acknowledged the message, at QoS 1.
func (d *device) publish(ctx context.Context, topic string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	payload, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if _, err := d.connection.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: payload}); err != nil {
		return fmt.Errorf("publish on %s: %w", topic, err)
	}
	return nil
}

func (d *device) handle(ctx context.Context, m *paho.Publish) error {
	switch suffix := strings.TrimPrefix(m.Topic, d.topic("")); suffix {
	case "shadow/update/delta": // the desired state differs from the reported one
		var delta struct {
			Version int64
			State   settings
		}
		if err := json.Unmarshal(m.Payload, &delta); err != nil {
			return err
		}
		return d.apply(ctx, delta.Version, &delta.State)
	case "shadow/get/accepted": // the answer at each start; the delta is a part of it
		var shadow struct {
			Version int64
			State   struct{ Delta *settings }
		}
		if err := json.Unmarshal(m.Payload, &shadow); err != nil || shadow.State.Delta == nil {
			return err
		}
		return d.apply(ctx, shadow.Version, shadow.State.Delta)
	case "jobs/notify-next": // the next job is another one, or there is none any more
		var next struct{ Execution *execution }
		if err := json.Unmarshal(m.Payload, &next); err != nil || next.Execution == nil || next.Execution.Status != "QUEUED" {
			return err
		}
		return d.publish(ctx, d.topic("jobs/start-next"), struct{}{})
	case "jobs/start-next/accepted": // this one is ours now; IN_PROGRESS it is also when a restart interrupted it
		var started struct{ Execution *execution }
		if err := json.Unmarshal(m.Payload, &started); err != nil || started.Execution == nil {
			return err
		}
		return d.work(ctx, started.Execution)
	default:
		return fmt.Errorf("%s: %s", suffix, m.Payload)
	}
}

// settings are what the shadow may desire; what this device does not know stays in the delta, for the operator to see.
type settings struct {
	IntervalSeconds *int `json:"intervalSeconds,omitempty"`
}

// apply takes settings over, and reports what is true now, not what was wished for.
func (d *device) apply(ctx context.Context, version int64, s *settings) error {
	if version <= d.version {
		return nil // an older one
	}
	if s.IntervalSeconds == nil {
		return nil
	}
	d.interval = time.Duration(min(max(*s.IntervalSeconds, 1), 3600)) * time.Second
	reported := settings{new(int(d.interval / time.Second))}
	err := d.publish(ctx, d.topic("shadow/update"), map[string]any{"state": map[string]any{"reported": reported}})
	if err == nil {
		d.version = version
	}
	return err
}

// execution is a job for this thing.
type execution struct {
	JobID       string `json:"jobId"`
	Status      string `json:"status"`
	JobDocument document
}

// work does a job and says how it ended. When that is not heard, the job comes again at the next start, so doing it a second
// time must do no harm: an image that is installed already is not fetched.
func (d *device) work(ctx context.Context, e *execution) error {
	status, details := "SUCCEEDED", map[string]string{}
	switch {
	case e.JobDocument.OTA != nil:
		if err := d.installer.install(ctx, e.JobDocument.OTA); err != nil {
			status, details["reason"] = "FAILED", short(err)
		}
	default:
		status, details["reason"] = "REJECTED", "this device does not know such jobs"
	}
	log.Printf("job %s: %s %s", e.JobID, status, details["reason"])
	return d.publish(ctx, d.topic("jobs/"+e.JobID+"/update"), map[string]any{"status": status, "statusDetails": details})
}

// short is an error as a status detail, which may have 1024 characters.
func short(err error) string { return err.Error()[:min(len(err.Error()), 1000)] }
