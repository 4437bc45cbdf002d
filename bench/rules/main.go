// Command rules measures the way of messages from devices through a rule to its destination, acknowledged.
//
//	go run ./bench/rules [-to kinesis|firehose] [-connections 64] [-window 32] [-rate 0] [-rules 1] [-duration 10s] [-reps 5]
//
// It starts a server of its own for each repetition and prints a JSON line: QoS 1 messages of 256 bytes acknowledged a
// second, each after its rows are on stable storage; the server's CPU a message; how long until the destination had
// them all; from PUBLISH to the consumer of the stream, p50 and p99. -rate bounds the messages a second; latency is
// worth reading with it only. -rules adds rules on other topics. Connections are without TLS.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"flotilla/bench/target"
	"flotilla/internal/mqtt"
)

type result struct {
	To        string  `json:"to"`
	Rules     int     `json:"rules"`
	Messages  int64   `json:"messages"`
	PerSecond float64 `json:"msg_s"`
	ServerCPU float64 `json:"srv_us_msg"`
	Drained   float64 `json:"drained_s"` // from the last acknowledgement until the destination had everything
	All       float64 `json:"delivered_s"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Delivered int64   `json:"delivered"`
}

type load struct {
	to          string
	connections int
	window      int
	rate        int
	rules       int
	duration    time.Duration
}

func main() {
	var l load
	flag.StringVar(&l.to, "to", "kinesis", "the rule's action: kinesis or firehose")
	flag.IntVar(&l.connections, "connections", 64, "connections")
	flag.IntVar(&l.window, "window", 32, "messages of a connection on their way, at most")
	flag.IntVar(&l.rate, "rate", 0, "messages a second, of all connections; 0: as fast as can be")
	flag.IntVar(&l.rules, "rules", 1, "rules; all but one are about other topics")
	flag.DurationVar(&l.duration, "duration", 10*time.Second, "how long")
	reps := flag.Int("reps", 5, "repetitions")
	flag.Parse()
	for range *reps {
		r, err := measure(context.Background(), l)
		if err != nil {
			fmt.Fprintln(os.Stderr, "rules:", err)
			os.Exit(1)
		}
		_ = json.NewEncoder(os.Stdout).Encode(r)
	}
}

func measure(ctx context.Context, l load) (r *result, err error) {
	s, err := target.Start(ctx, "--mqtt-plain-addr", "127.0.0.1:0", "--mqtt-plain-policy", "bench", "--limits", "unlimited", "--rules.firehose-interval", "2s", "--rules.stream-max-bytes", "8589934592")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if err := prepare(ctx, s, l); err != nil {
		return nil, err
	}
	d, err := arrivals(s, l.to)
	if err != nil {
		return nil, err
	}
	defer d.close()
	var acked atomic.Int64
	before, err := s.CPU()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var g errgroup.Group
	for i := range l.connections {
		g.Go(func() error { return publish(s.Endpoints.MQTTPlain, i, l, start, &acked) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	n := acked.Load()
	for end := time.Now().Add(2 * time.Minute); d.count() < n; {
		if time.Now().After(end) {
			return nil, fmt.Errorf("%d of %d messages arrived", d.count(), n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	all := time.Since(start)
	after, err := s.CPU()
	if err != nil {
		return nil, err
	}
	r = &result{
		To: l.to, Rules: l.rules, Messages: n, PerSecond: float64(n) / elapsed.Seconds(), ServerCPU: float64((after - before).Microseconds()) / float64(n),
		Drained: (all - elapsed).Seconds(), All: float64(n) / all.Seconds(), Delivered: d.count(),
	}
	r.P50, r.P99 = d.percentiles()
	return r, nil
}

func prepare(ctx context.Context, s *target.Server, l load) error {
	c, err := s.IoT()
	if err != nil {
		return err
	}
	doc := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	if _, err := c.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: new("bench"), PolicyDocument: &doc}); err != nil {
		return err
	}
	role := new("arn:aws:iam::123456789012:role/rules")
	action := types.Action{Kinesis: &types.KinesisAction{RoleArn: role, StreamName: new("bench"), PartitionKey: new("${topic(2)}")}}
	switch l.to {
	case "kinesis":
	case "firehose":
		action = types.Action{Firehose: &types.FirehoseAction{RoleArn: role, DeliveryStreamName: new("bench")}}
	default:
		return fmt.Errorf("no action %q here", l.to)
	}
	create := func(name, statement string) error {
		_, err := c.CreateTopicRule(ctx, &iot.CreateTopicRuleInput{RuleName: &name, TopicRulePayload: &types.TopicRulePayload{
			Sql: &statement, AwsIotSqlVersion: new("2016-03-23"), Actions: []types.Action{action},
		}})
		return err
	}
	for i := 1; i < l.rules; i++ {
		if err := create("other"+strconv.Itoa(i), "SELECT * FROM 'other/"+strconv.Itoa(i)+"/+'"); err != nil {
			return err
		}
	}
	return create("bench", "SELECT * FROM 'in/+' WHERE value > 10")
}

// destination counts what has arrived.
type destination struct {
	mu        sync.Mutex
	latencies []time.Duration
	counted   func() int64
	close     func()
}

func (d *destination) count() int64 { return d.counted() }

func (d *destination) percentiles() (p50, p99 float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.latencies) == 0 {
		return 0, 0
	}
	slices.Sort(d.latencies)
	ms := func(p int) float64 {
		return float64(d.latencies[min(len(d.latencies)*p/100, len(d.latencies)-1)].Microseconds()) / 1000
	}
	return ms(50), ms(99)
}

// arrivals watches the destination: a consumer of the stream, which NATS serves while it fills; for files, their rows.
func arrivals(s *target.Server, to string) (*destination, error) {
	d := &destination{close: func() {}}
	if to == "firehose" {
		d.counted = func() int64 { return rows(filepath.Join(s.Dir, "archive")) }
		return d, nil
	}
	nc, err := nats.Connect(s.Endpoints.NATS)
	if err != nil {
		return nil, err
	}
	d.close = nc.Close
	var n atomic.Int64
	d.counted = n.Load
	sub, err := nc.Subscribe("kinesis.bench.>", func(m *nats.Msg) {
		n.Add(1)
		sent := timeOf(m.Data)
		d.mu.Lock()
		d.latencies = append(d.latencies, time.Since(sent))
		d.mu.Unlock()
	})
	if err != nil {
		return nil, err
	}
	return d, errors.Join(sub.SetPendingLimits(-1, -1), nc.Flush())
}

const stamp = `{"value":42,"sent":`

func timeOf(payload []byte) time.Time {
	const digits = 19
	if len(payload) < len(stamp)+digits {
		return time.Time{}
	}
	ns, _ := strconv.ParseInt(string(payload[len(stamp):len(stamp)+digits]), 10, 64)
	return time.Unix(0, ns)
}

// publish sends messages over one connection until the time is up, and waits for their acknowledgements.
func publish(addr string, i int, l load, start time.Time, acked *atomic.Int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	id := fmt.Sprintf("device-%05d", i)
	if _, err := conn.Write((&mqtt.Connect{Version: mqtt.V311, ClientID: id, CleanStart: true}).Append(nil, mqtt.V311)); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	var connack [4]byte
	if _, err := io.ReadFull(r, connack[:]); err != nil || connack[3] != 0 {
		return fmt.Errorf("CONNACK %v: %w", connack, err)
	}
	places := make(chan struct{}, l.window)
	done := make(chan error, 1)
	go func() { done <- acknowledgements(r, places, acked) }()
	var out []byte
	topic := "in/" + id
	for n := int64(0); time.Since(start) < l.duration; n++ {
		if l.rate > 0 {
			due := start.Add(time.Duration(n) * time.Second * time.Duration(l.connections) / time.Duration(l.rate))
			time.Sleep(time.Until(due))
		}
		select {
		case places <- struct{}{}:
		case err := <-done:
			return err
		}
		payload := make([]byte, 256)
		copy(payload, stamp)
		b := strconv.AppendInt(payload[:len(stamp)], time.Now().UnixNano(), 10)
		b = append(b, `,"text":"`...)
		for len(b) < 254 {
			b = append(b, 'x')
		}
		b = append(b, `"}`...)
		out = mqtt.AppendPublish(out, mqtt.V311, byte(mqtt.PUBLISH)<<4|1<<1, topic, uint16(n%65535+1), b)
		if len(places) == cap(places) || len(out) > 4096 || l.rate > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	if _, err := conn.Write(out); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	for range cap(places) { // each is free once its message is acknowledged
		select {
		case places <- struct{}{}:
		case err := <-done:
			return err
		}
	}
	return nil
}

// acknowledgements reads PUBACKs, each of which makes a place free, until the connection ends.
func acknowledgements(r io.Reader, places chan struct{}, acked *atomic.Int64) error {
	var p [4]byte
	for {
		if _, err := io.ReadFull(r, p[:]); err != nil {
			return err
		}
		if p[0] != byte(mqtt.PUBACK)<<4 {
			return fmt.Errorf("a packet %x instead of PUBACK", p)
		}
		<-places
		acked.Add(1)
	}
}
