package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// mosquitto gives the kits of mosquitto_sub and mosquitto_pub. A link is a
// mosquitto_sub; each publish is a mosquitto_pub with a client id of its own.
func mosquitto(v5 bool) func(t *testing.T) kit {
	return func(t *testing.T) kit {
		sub, pub := program(t, "mosquitto_sub"), program(t, "mosquitto_pub")
		k := kit{v5: v5, can: choosesALPN | withdrawsWill}
		if v5 {
			k.can = choosesALPN | tellsReason
		}
		k.dial = func(t *testing.T, o options) (link, error) {
			l := &mosquittoLink{mailbox: newMailbox(), sub: sub, pub: pub, options: o, context: t.Context()}
			return l, l.start()
		}
		return k
	}
}

type mosquittoLink struct {
	mailbox
	sub, pub string
	options  options
	context  context.Context
	process  *os.Process
	gone     chan struct{}
	closing  atomic.Bool
}

// arguments are those that both programs take; settings of a session are not among them.
func (l *mosquittoLink) arguments(host string, port int, clientID string) []string {
	o := &l.options
	args := []string{
		"-h", host, "-p", strconv.Itoa(port), "-i", clientID, "-V", "mqttv311",
		"--cafile", o.file("ca.pem"), "--cert", o.file("cert.pem"), "--key", o.file("key.pem"),
	}
	if o.V5 {
		args[7] = "mqttv5"
	}
	if o.ALPN != "" {
		args = append(args, "--tls-alpn", o.ALPN)
	}
	return args
}

// start starts mosquitto_sub and waits until its filters are answered.
func (l *mosquittoLink) start() error {
	o := &l.options
	args := append(l.arguments(o.Host, o.Port, o.ClientID), "-d", "-F", "%j", "-q", strconv.Itoa(int(o.QoS)), "-k", strconv.Itoa(int(o.KeepAlive)))
	if o.Resume {
		args = append(args, "-c")
	}
	if o.V5 {
		args = append(args, "-x", fmt.Sprint(o.SessionExpiry))
		if o.ReceiveMaximum > 0 {
			args = append(args, "-D", "connect", "receive-maximum", fmt.Sprint(o.ReceiveMaximum))
		}
	}
	if w := o.Will; w != nil {
		args = append(args, "--will-topic", w.Topic, "--will-payload", string(w.Payload), "--will-qos", fmt.Sprint(w.QoS))
	}
	filters := o.Filters
	if len(filters) == 0 {
		filters = []string{"m/idle"} // it wants one
	}
	for _, f := range filters {
		args = append(args, "-t", f)
	}
	// stdbuf: its lines would wait for a full buffer.
	cmd := exec.CommandContext(l.context, "stdbuf", append([]string{"-oL", l.sub}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	l.process, l.gone = cmd.Process, make(chan struct{})
	answer := make(chan error, 1)
	go l.read(cmd, bufio.NewScanner(out), answer)
	go l.stopWhenCut()
	select {
	case err := <-answer:
		return err
	case <-time.After(grace):
		return errors.New("mosquitto_sub: no answer")
	}
}

// stopWhenCut ends a mosquitto_sub that has no connection; it would try for ever.
func (l *mosquittoLink) stopWhenCut() {
	select {
	case <-l.options.cable.down:
	case <-l.gone:
		return
	}
	select {
	case <-time.After(200 * time.Millisecond): // for the packets that have come
		_ = l.process.Kill()
	case <-l.gone:
	}
}

var mosquittoLine = regexp.MustCompile(`^(?:(?:Client \S+ r|R)eceived (CONNACK|DISCONNECT) \((\d+)\)|(Subscribed) \(mid: \d+\): (?:\d+, )*(\d+))`)

// read reads what mosquitto_sub tells until its end.
func (l *mosquittoLink) read(cmd *exec.Cmd, out *bufio.Scanner, answer chan<- error) {
	defer close(l.gone)
	out.Buffer(nil, 1<<20)
	told := false
	tell := func(err error) {
		if !told {
			answer <- err
		}
		told = true
	}
	var end ending
	for out.Scan() {
		line := out.Text()
		if strings.HasPrefix(line, "{") {
			if m, err := fromMosquitto([]byte(line)); err == nil {
				l.got <- m
			}
			continue
		}
		m := mosquittoLine.FindStringSubmatch(line)
		if m == nil {
			end.Text = line
			continue
		}
		n, _ := strconv.Atoi(m[2] + m[4])
		switch code := byte(n); {
		case m[1] == "DISCONNECT":
			end.Code = code
		case m[1] == "CONNACK" && code != 0:
			tell(&refused{code, "CONNECT"})
		case m[3] != "" && code >= 0x80:
			tell(&refused{code, "SUBSCRIBE"})
		case m[3] != "":
			tell(nil)
		}
	}
	_ = cmd.Wait()
	tell(fmt.Errorf("mosquitto_sub has ended: %s", end.Text))
	if !l.closing.Load() {
		l.end(end)
	}
}

// fromMosquitto reads a line of -F %j.
func fromMosquitto(line []byte) (message, error) {
	var in struct {
		Topic      string
		QoS        byte
		Retain     int
		Payload    string
		Properties struct {
			Expiry        uint32            `json:"message-expiry-interval"`
			ContentType   string            `json:"content-type"`
			ResponseTopic string            `json:"response-topic"`
			Correlation   string            `json:"correlation-data"`
			User          map[string]string `json:"user-properties"`
		}
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return message{}, err
	}
	p := &in.Properties
	m := message{
		Topic: in.Topic, Payload: []byte(in.Payload), QoS: in.QoS, Retain: in.Retain != 0,
		Expiry: p.Expiry, ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, Correlation: []byte(p.Correlation),
	}
	for k, v := range p.User {
		m.User = append(m.User, [2]string{k, v})
	}
	return m, nil
}

func (l *mosquittoLink) accepted() accepted { return accepted{} }
func (l *mosquittoLink) acknowledge() error { return errors.ErrUnsupported }

var mosquittoRefusal = regexp.MustCompile(`[Rr]eceived (?:PUBACK \(Mid: \d+, RC:|DISCONNECT \()(\d+)\)`)

func (l *mosquittoLink) publish(m message) error {
	host, port := l.options.direct()
	args := append(l.arguments(host, port, l.options.ClientID+"-p"), "-d", "-t", m.Topic, "-q", strconv.Itoa(int(m.QoS)))
	if m.Retain {
		args = append(args, "-r")
	}
	property := func(set bool, what ...string) {
		if set {
			args = append(append(args, "-D", "publish"), what...)
		}
	}
	property(m.Expiry > 0, "message-expiry-interval", fmt.Sprint(m.Expiry))
	property(m.ContentType != "", "content-type", m.ContentType)
	property(m.ResponseTopic != "", "response-topic", m.ResponseTopic)
	property(len(m.Correlation) > 0, "correlation-data", string(m.Correlation))
	for _, u := range m.User {
		property(true, "user-property", u[0], u[1])
	}
	if len(m.Payload) == 0 {
		args = append(args, "-n")
	} else {
		args = append(args, "-s")
	}
	ctx, cancel := context.WithTimeout(l.context, grace)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.pub, args...)
	cmd.Stdin = bytes.NewReader(m.Payload)
	out, err := cmd.CombinedOutput()
	if m := mosquittoRefusal.FindSubmatch(out); m != nil {
		if n, _ := strconv.Atoi(string(m[1])); n >= 0x80 {
			return &refused{byte(n), "PUBLISH"}
		}
	}
	// It gives up a QoS that the server does not have without an error status.
	if err == nil && !strings.Contains(string(out), "sending PUBLISH") {
		err = errors.New("nothing was sent")
	}
	if err != nil {
		return fmt.Errorf("mosquitto_pub: %w: %s", err, out)
	}
	return nil
}

func (l *mosquittoLink) close() {
	l.closing.Store(true)
	_ = l.process.Signal(os.Interrupt)
	select {
	case <-l.gone:
	case <-time.After(grace):
		_ = l.process.Kill()
	}
}
