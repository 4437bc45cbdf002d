package sim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/mqtt/client"
)

// patience is how long a device waits for an answer before it asks again.
const patience = 30 * time.Second

// member is a device of a fleet with the life that the scenario gives it. Its link comes and goes; what it owes - a
// reading without an acknowledgement, a report, the end of an execution - it makes good when it is back.
type member struct {
	Device
	traits
	fleet *Fleet
	n     int

	inbox  inbox // bounded; when it is full the device asks for its state instead
	missed atomic.Bool

	// What the goroutine of live alone knows.
	jitter      *rand.Rand
	nextReading time.Time
	owes        bool // the reading acked has been sent
	applied     int64
	report      report
	work        work
	next        func() (outage, bool)
	outage      outage
	drops       int

	acked atomic.Int64 // readings 0 to acked-1 are acknowledged
	since atomic.Int64 // connected since, milliseconds; 0 when it is not

	seen    bitset  // what arrived of it; the witness's
	desired desired // the back end's
}

type inbox chan client.Message

// report is an update of the reported state without its answer.
type report struct {
	token    string
	version  int64
	revision int
	deadline time.Time
}

// work is the job execution at hand.
type work struct {
	id    string // of the job
	stage stage
	due   time.Time // its end when working, the answer's deadline when ending
}

type stage int

const (
	idle stage = iota
	working
	ending // the final status is sent
	ended  // and accepted
)

// live is the device's life until ctx ends.
func (m *member) live(ctx context.Context) {
	m.waitUntil(ctx, m.fleet.start.Add(m.start))
	m.next = m.fleet.Scenario.outages(m.fleet.Seed, m.n)
	more := true
	m.outage, more = m.next()
	for wait := time.Duration(0); ctx.Err() == nil; {
		if more && time.Since(m.fleet.start) >= m.outage.from {
			m.waitUntil(ctx, m.fleet.start.Add(m.outage.to))
			if m.outage, more = m.next(); more && time.Since(m.fleet.start) >= m.outage.to {
				continue // it slept through this one
			}
		}
		began := time.Now()
		dropped, err := m.session(ctx, more)
		m.since.Store(0)
		switch {
		case ctx.Err() != nil:
			return
		case dropped:
			m.fleet.stats.dropOuts.Add(1)
			wait = 0
			continue
		case err != nil:
			m.fleet.stats.lose(err)
		}
		if time.Since(began) > patience {
			wait = 0
		}
		wait = min(max(2*wait, 250*time.Millisecond), 15*time.Second)
		pause(ctx, wait/2+rand.N(wait/2))
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// waitUntil waits, though not when the run is over: then all come back.
func (m *member) waitUntil(ctx context.Context, t time.Time) {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.fleet.quiet:
	case <-ctx.Done():
	}
}

// session is one connection, from its start to its end; dropped tells that the outage ended it.
func (m *member) session(ctx context.Context, outage bool) (dropped bool, err error) {
	l := &link{latency: m.latency, bytesPerSecond: m.bytesPerSecond}
	if outage {
		m.drops++
		silently := m.drops%2 == 0
		t := time.AfterFunc(time.Until(m.fleet.start.Add(m.outage.from)), func() {
			if !m.fleet.isQuiet() {
				l.cut(silently)
			}
		})
		defer t.Stop()
	}
	defer l.cut(false) // frees the socket whatever happened; a good end has been told by then
	c, err := m.connect(ctx, l)
	if err == nil {
		err = m.serve(ctx, c)
		c.Disconnect()
	}
	return l.wasCut(), err
}

func (m *member) topic(suffix string) string { return "$aws/things/" + m.thing + "/" + suffix }

// connect connects, subscribes and asks for what changed meanwhile.
func (m *member) connect(ctx context.Context, l *link) (*client.Client, error) {
	select {
	case m.fleet.doors <- struct{}{}:
		defer func() { <-m.fleet.doors }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m.drain()
	config := &tls.Config{RootCAs: m.fleet.Roots, Certificates: []tls.Certificate{m.cert}, MinVersion: tls.VersionTLS12}
	if m.skew != 0 {
		config.Time = func() time.Time { return time.Now().Add(m.skew) }
	}
	c, err := client.Dial(ctx, client.Config{
		Addr: m.fleet.Addr, Dial: l.dial, TLS: config, ClientID: m.thing, CleanStart: true, KeepAlive: 5 * time.Minute,
		OnMessage: m.deliver,
	})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	m.fleet.stats.connects.Add(1)
	err = c.Subscribe(ctx, 1,
		m.topic("shadow/update/delta"), m.topic("shadow/update/accepted"), m.topic("shadow/update/rejected"),
		m.topic("shadow/get/accepted"), m.topic("shadow/get/rejected"),
		m.topic("jobs/notify-next"), m.topic("jobs/$next/get/accepted"), m.topic("jobs/+/update/+"))
	if err == nil {
		err = m.synchronize(ctx, c)
	}
	if err != nil {
		c.Disconnect()
		return nil, err
	}
	m.since.Store(time.Now().UnixMilli())
	return c, nil
}

// deliver takes a message from the connection's reader, which must not wait.
func (m *member) deliver(msg client.Message) {
	select {
	case m.inbox <- msg:
	default:
		m.missed.Store(true)
	}
}

func (m *member) drain() {
	for {
		select {
		case <-m.inbox:
		default:
			return
		}
	}
}

// synchronize asks for the state that the service has, and forgets what it waited for.
func (m *member) synchronize(ctx context.Context, c *client.Client) error {
	m.missed.Store(false)
	m.report = report{}
	if m.work.stage != working {
		m.work = work{}
	}
	if err := m.publish(ctx, c, m.topic("shadow/get"), nil); err != nil {
		return err
	}
	return m.publish(ctx, c, m.topic("jobs/$next/get"), []byte("{}"))
}

// publish sends at QoS 1. What the service refuses is counted, and asked anew later; an error is the end of the connection.
func (m *member) publish(ctx context.Context, c *client.Client, topic string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := c.Publish(ctx, topic, body, 1)
	var refused *client.ReasonError
	if errors.As(err, &refused) && refused.Packet == "PUBLISH" {
		m.fleet.stats.refuse(topic, refused.Code.Error())
		m.missed.Store(true)
		return nil
	}
	return err
}

// serve is the device's work on a connection, until that or ctx ends.
func (m *member) serve(ctx context.Context, c *client.Client) error {
	quiet := m.fleet.quiet
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-c.Done():
			return c.Err()
		case <-quiet:
			quiet = nil
		case msg := <-m.inbox:
			err = m.receive(ctx, c, msg)
		case <-timer.C:
		}
		if err == nil {
			err = m.doWhatIsDue(ctx, c)
		}
		if err != nil {
			return err
		}
		timer.Reset(time.Until(m.due()))
	}
}

// due is when the device has something to do next by itself.
func (m *member) due() time.Time {
	t := time.Now().Add(time.Hour)
	earlier := func(u time.Time) {
		if u.Before(t) {
			t = u
		}
	}
	if m.fleet.Scenario.Telemetry.Every > 0 && (m.owes || !m.fleet.isQuiet()) {
		earlier(m.nextReading)
	}
	if m.report.token != "" {
		earlier(m.report.deadline)
	}
	if m.work.stage == working || m.work.stage == ending {
		earlier(m.work.due)
	}
	if m.missed.Load() {
		earlier(time.Now().Add(time.Second))
	}
	return t
}

func (m *member) doWhatIsDue(ctx context.Context, c *client.Client) error {
	now := time.Now()
	if s := &m.fleet.Scenario.Telemetry; s.Every > 0 && !now.Before(m.nextReading) && (m.owes || !m.fleet.isQuiet()) {
		if err := m.read(ctx, c, now); err != nil {
			return err
		}
	}
	if m.work.stage == working && !now.Before(m.work.due) {
		if err := m.end(ctx, c, now); err != nil {
			return err
		}
	}
	late := m.report.token != "" && now.After(m.report.deadline) || m.work.stage == ending && now.After(m.work.due)
	if late {
		m.fleet.stats.unanswered.Add(1)
	}
	if late || m.missed.Load() && len(m.inbox) == 0 {
		return m.synchronize(ctx, c)
	}
	return nil
}

// read publishes the next reading, or that which was not acknowledged once more.
func (m *member) read(ctx context.Context, c *client.Client, now time.Time) error {
	t := &m.fleet.Scenario.Telemetry
	every := time.Duration(t.Every)
	m.nextReading = m.nextReading.Add(every + time.Duration((2*m.jitter.Float64()-1)*t.Jitter*float64(every)))
	if m.nextReading.Before(now) {
		m.nextReading = now.Add(every) // it was away
	}
	n := m.acked.Load()
	if m.owes {
		m.fleet.stats.again.Add(1)
	}
	m.owes = true
	topic := m.fleet.telemetryTopic(m.n, m.thing)
	pctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	err := c.Publish(pctx, topic, m.payload(int(n), now), 1)
	var refused *client.ReasonError
	switch {
	case errors.As(err, &refused) && refused.Packet == "PUBLISH":
		m.fleet.stats.refuse(topic, refused.Code.Error())
		return nil // it is sent again
	case err != nil:
		return err
	}
	m.fleet.stats.acks.add(time.Since(began))
	m.owes = false
	m.acked.Store(n + 1)
	return nil
}

// payload is the n-th reading, by the device's own clock.
func (m *member) payload(n int, now time.Time) []byte {
	b := fmt.Appendf(nil, `{"sequence":%d,"temperature":%.2f,"battery":{"volts":%.2f},"at":%d}`,
		n, 20+float64((n+m.n)%50)/4, 3.3+float64(n%10)/100, now.Add(m.skew).UnixMilli())
	if short := m.fleet.Scenario.Telemetry.Bytes - len(b); short > 0 {
		b = fmt.Appendf(b[:len(b)-1], `,"pad":"%s"}`, strings.Repeat("x", max(0, short-9)))
	}
	return b
}

// receive handles a message of the service.
func (m *member) receive(ctx context.Context, c *client.Client, msg client.Message) error {
	var body struct {
		State       json.RawMessage `json:"state"`
		Version     int64           `json:"version"`
		ClientToken string          `json:"clientToken"`
		Execution   *struct {
			JobID  string `json:"jobId"`
			Status string `json:"status"`
		} `json:"execution"`
	}
	suffix := strings.TrimPrefix(msg.Topic, m.topic(""))
	if err := json.Unmarshal(msg.Payload, &body); err != nil {
		m.fleet.stats.refuse(msg.Topic, "not JSON")
		return nil
	}
	switch suffix {
	case "shadow/update/delta":
		return m.apply(ctx, c, body.Version, body.State)
	case "shadow/get/accepted":
		var state struct{ Delta json.RawMessage }
		if err := json.Unmarshal(body.State, &state); err != nil || state.Delta == nil {
			return nil
		}
		return m.apply(ctx, c, body.Version, state.Delta)
	case "shadow/get/rejected": // there is no shadow yet
	case "shadow/update/accepted":
		if body.ClientToken == m.report.token && m.report.token != "" {
			m.applied = m.report.version
			m.desired.reported(m, m.report.revision)
			m.report = report{}
		}
	case "shadow/update/rejected":
		if body.ClientToken == m.report.token && m.report.token != "" {
			m.fleet.stats.refuse(msg.Topic, string(msg.Payload))
			m.missed.Store(true)
		}
	case "jobs/notify-next", "jobs/$next/get/accepted":
		if body.Execution == nil {
			m.work = work{}
			return nil
		}
		return m.begin(ctx, c, body.Execution.JobID, body.Execution.Status)
	case "jobs/" + m.work.id + "/update/accepted":
		if m.work.stage == ending && body.ClientToken == "end" {
			m.work.stage = ended
		}
	case "jobs/" + m.work.id + "/update/rejected":
		// It was over already: the answer to an earlier attempt was lost, or it was canceled.
		m.fleet.stats.workRefused.Add(1)
		m.work = work{}
		m.missed.Store(true)
	}
	return nil
}

// apply takes over a desired state and reports it.
func (m *member) apply(ctx context.Context, c *client.Client, version int64, state json.RawMessage) error {
	if version <= m.applied || version <= m.report.version {
		return nil
	}
	var known struct{ Revision int }
	_ = json.Unmarshal(state, &known) // what has none is applied all the same
	m.report = report{
		token: "v" + strconv.FormatInt(version, 10), version: version, revision: known.Revision, deadline: time.Now().Add(patience),
	}
	body := fmt.Appendf(nil, `{"state":{"reported":%s},"clientToken":%q}`, state, m.report.token)
	return m.publish(ctx, c, m.topic("shadow/update"), body)
}

// begin takes a job execution in hand.
func (m *member) begin(ctx context.Context, c *client.Client, jobID, status string) error {
	if jobID == m.work.id {
		return nil
	}
	takes, _ := m.outcome(jobID)
	m.work = work{id: jobID, stage: working, due: time.Now().Add(takes)}
	if status != "QUEUED" {
		return nil
	}
	return m.publish(ctx, c, m.topic("jobs/"+jobID+"/update"), []byte(`{"status":"IN_PROGRESS"}`))
}

// end says what became of the execution.
func (m *member) end(ctx context.Context, c *client.Client, now time.Time) error {
	body := `{"status":"SUCCEEDED","clientToken":"end"}`
	if _, succeeds := m.outcome(m.work.id); !succeeds {
		body = `{"status":"FAILED","statusDetails":{"reason":"simulated"},"clientToken":"end"}`
	}
	m.work.stage, m.work.due = ending, now.Add(patience)
	return m.publish(ctx, c, m.topic("jobs/"+m.work.id+"/update"), []byte(body))
}

// outcome of a job: the scenario's for those of the run; others, as from an operator, succeed.
func (m *member) outcome(jobID string) (takes time.Duration, succeeds bool) {
	number, ours := strings.CutPrefix(jobID, m.fleet.jobID(""))
	n, err := strconv.Atoi(number)
	if !ours || err != nil {
		return 0, true
	}
	return m.fleet.Scenario.execution(m.fleet.Seed, m.n, n)
}

// bitset holds small numbers. It is safe for concurrent use.
type bitset struct {
	mu    sync.Mutex
	words []uint64
}

// maxReadings bounds what a bitset may grow to: 2 MiB.
const maxReadings = 1 << 24

// add tells whether n is new.
func (b *bitset) add(n int) bool {
	if n < 0 || n >= maxReadings {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.words) <= n/64 {
		b.words = append(b.words, 0)
	}
	is := b.words[n/64] & (1 << (n % 64))
	b.words[n/64] |= 1 << (n % 64)
	return is == 0
}

// missing counts the numbers below n that are not in it, and gives the first.
func (b *bitset) missing(n int) (count, first int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range n {
		if i/64 >= len(b.words) || b.words[i/64]&(1<<(i%64)) == 0 {
			if count == 0 {
				first = i
			}
			count++
		}
	}
	return count, first
}
