package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/internal/api/client"
	"flotilla/internal/mqtt"
	mqttclient "flotilla/internal/mqtt/client"
)

// Fleet is many devices that live by a scenario, with the back end that changes their desired states and gives them jobs,
// and witnesses who subscribe to all that they say. What each device is like, when its link goes, when it is told of what
// and which of its jobs succeed follows from Seed; how fast the service answers does not, so counts differ from run to run.
type Fleet struct {
	Cloud *Cloud
	// Addr is the device gateway's host:port, for mutual TLS.
	Addr  string
	Roots *x509.CertPool
	// Run names all that the fleet creates: letters, digits and hyphens. Two fleets on one server need two names.
	Run      string
	Seed     uint64
	Scenario Scenario
	// Progress, if any, is told how far it is, some times a second.
	Progress func(Status)

	start   time.Time
	doors   chan struct{} // has the attempts to connect: more at a time would only keep each other from succeeding
	quiet   chan struct{} // closed when the time is over: nothing new is begun, and all links stay
	members []*member
	jobs    []string // created; the back end's until it has ended
	stats   stats
}

// Status is how far a run is.
type Status struct {
	Phase    string // enroll, run, settle
	Done, Of int    // of the phase: devices, seconds, facts

	Connected                       int
	Acknowledged, Arrived           int64 // readings
	DesiredWritten, DesiredReported int64
}

// maxConnecting is how many devices of a process connect at the same time.
const maxConnecting = 128

// perWitness is how many devices one subscriber listens to.
const perWitness = 1000

func (f *Fleet) prefix() string              { return "sim-" + f.Run }
func (f *Fleet) jobID(number string) string  { return f.prefix() + "-job-" + number }
func (f *Fleet) shardTopic(shard int) string { return "sim/" + f.Run + "/" + strconv.Itoa(shard) }
func (f *Fleet) telemetryTopic(n int, thing string) string {
	return f.shardTopic(n/perWitness) + "/" + thing
}

func (f *Fleet) isQuiet() bool {
	select {
	case <-f.quiet:
		return true
	default:
		return false
	}
}

// Play plays the scenario to its end. The report says how far it came also when there is an error: something without
// which the run made no sense, or ctx.
func (f *Fleet) Play(ctx context.Context) (*Report, error) {
	began := time.Now()
	f.quiet, f.doors = make(chan struct{}), make(chan struct{}, maxConnecting)
	err := f.play(ctx)
	r := f.report()
	r.Seconds = time.Since(began).Seconds()
	return r, err
}

func (f *Fleet) play(ctx context.Context) error {
	if err := f.Scenario.Validate(); err != nil {
		return err
	}
	witness, err := f.enroll(ctx)
	if err != nil {
		return err
	}
	listening, stopListening := context.WithCancel(ctx)
	var listeners errgroup.Group
	defer func() { stopListening(); _ = listeners.Wait() }()
	if err := f.listen(listening, &listeners, witness); err != nil {
		return err
	}

	living, stopLiving := context.WithCancel(ctx)
	var lives sync.WaitGroup
	defer func() { stopLiving(); lives.Wait() }()
	f.start = time.Now()
	for _, m := range f.members {
		m.nextReading = f.start.Add(m.start)
		lives.Go(func() { m.live(living) })
	}
	if err := f.run(ctx); err != nil {
		return err
	}
	return f.settle(ctx)
}

// run has the back end work until the scenario's time is over.
func (f *Fleet) run(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, time.Duration(f.Scenario.Duration))
	defer cancel()
	g, gctx := errgroup.WithContext(timed)
	g.Go(func() error { return f.changeDesired(gctx) })
	g.Go(func() error {
		// All jobs are created, even if a slow service makes the last one late.
		jctx, cancel := context.WithTimeout(ctx, time.Duration(f.Scenario.Duration)+patience)
		defer cancel()
		return f.createJobs(jctx)
	})
	g.Go(func() error {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-gctx.Done():
				return nil
			case <-tick.C:
				f.tell("run", int(time.Since(f.start).Seconds()), int(time.Duration(f.Scenario.Duration).Seconds()))
			}
		}
	})
	err := g.Wait()
	close(f.quiet)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func (f *Fleet) tell(phase string, done, of int) {
	if f.Progress == nil {
		return
	}
	s := Status{
		Phase: phase, Done: done, Of: of, Arrived: f.stats.arrived.Load(),
		DesiredWritten: f.stats.desiredWritten.Load(), DesiredReported: f.stats.desiredReported.Load(),
	}
	for _, m := range f.members {
		s.Acknowledged += m.acked.Load()
		if m.since.Load() > 0 {
			s.Connected++
		}
	}
	f.Progress(s)
}

// enroll creates what the fleet needs and gives each device its certificate; it returns that of the witnesses.
func (f *Fleet) enroll(ctx context.Context) (tls.Certificate, error) {
	witness, enrolls, err := f.Cloud.setUpFleet(ctx, f)
	if err != nil {
		return witness, err
	}
	f.members = make([]*member, f.Scenario.Devices)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	var done atomic.Int64
	var telling sync.Mutex
	for i := range f.members {
		t := f.Scenario.traits(f.Seed, i)
		m := &member{
			Device: Device{Serial: fmt.Sprintf("%s-%06d", f.Run, i), OwnKey: t.ownKey}, traits: t, fleet: f, n: i,
			inbox: make(inbox, 16), jitter: dice(f.Seed, i, forTelemetry),
		}
		f.members[i] = m
		g.Go(func() error {
			if err := persist(gctx, func(ctx context.Context) error { return enrolls(ctx, &m.Device) }); err != nil {
				return err
			}
			f.stats.enrolled.Add(1)
			if n := done.Add(1); f.Progress != nil && (n%16 == 0 || int(n) == len(f.members)) {
				telling.Lock()
				defer telling.Unlock()
				f.Progress(Status{Phase: "enroll", Done: int(n), Of: len(f.members)})
			}
			return nil
		})
	}
	return witness, g.Wait()
}

// persist has a device try to enroll, as devices do: as long as it is told that the rate is exceeded, and else four times.
func persist(ctx context.Context, enroll func(context.Context) error) error {
	wait := 250 * time.Millisecond
	for attempt := 1; ; attempt++ {
		tctx, cancel := context.WithTimeout(ctx, time.Minute)
		err := enroll(tctx)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !isThrottled(err) && attempt >= 4 {
			return err
		}
		pause(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, 4*time.Second)
	}
}

// isThrottled tells whether a request was refused for its rate: by the API, by provisioning, or as a CONNECT.
func isThrottled(err error) bool {
	var byAPI *client.Error
	var byService *refusal
	var byGateway *mqttclient.ReasonError
	return errors.As(err, &byAPI) && strings.HasPrefix(byAPI.Type, "Throttling") ||
		errors.As(err, &byService) && strings.HasPrefix(byService.answer.ErrorCode, "Throttling") ||
		errors.As(err, &byGateway) && byGateway.Code == mqtt.QuotaExceeded
}

// setUpFleet creates the policies, the group and the template of a fleet, and returns the witnesses' certificate and how a
// device comes to be a thing.
func (c *Cloud) setUpFleet(ctx context.Context, f *Fleet) (witness tls.Certificate, enroll func(context.Context, *Device) error, err error) {
	witness, arn, err := c.certificate(ctx)
	if err != nil {
		return witness, nil, fmt.Errorf("create the witness's certificate: %w", err)
	}
	own := "sim/" + f.Run + "/*"
	err = c.policy(ctx, f.prefix()+"-witness", policyDocument(
		allow("iot:Connect", c.arn("client/"+f.prefix()+"-witness-*")),
		allow("iot:Subscribe", c.arn("topicfilter/"+own)), allow("iot:Receive", c.arn("topic/"+own)),
	), arn)
	if err != nil {
		return witness, nil, err
	}
	thing := "${iot:Connection.Thing.ThingName}"
	shadow, jobs := "$aws/things/"+thing+"/shadow/*", "$aws/things/"+thing+"/jobs/*"
	device := f.prefix() + "-device"
	err = c.policy(ctx, device, policyDocument(
		statement{
			"Effect": "Allow", "Action": "iot:Connect", "Resource": c.arn("client/" + thing),
			"Condition": object{"Bool": object{"iot:Connection.Thing.IsAttached": "true"}},
		},
		allow("iot:Publish", c.arn("topic/sim/"+f.Run+"/*/"+thing), c.arn("topic/"+shadow), c.arn("topic/"+jobs)),
		allow("iot:Subscribe", c.arn("topicfilter/"+shadow), c.arn("topicfilter/"+jobs)),
		allow("iot:Receive", c.arn("topic/"+shadow), c.arn("topic/"+jobs)),
	), "")
	if err != nil {
		return witness, nil, err
	}
	if err := c.group(ctx, f.prefix()); err != nil {
		return witness, nil, err
	}
	enroll, err = c.enrollment(ctx, f, device)
	return witness, enroll, err
}

func (c *Cloud) enrollment(ctx context.Context, f *Fleet, policy string) (func(context.Context, *Device) error, error) {
	thing := object{"ThingGroups": []string{f.prefix()}, "AttributePayload": object{"run": f.Run}}
	if f.Scenario.Enroll == "api" {
		body := templateBody("sim-", policy, object{"CertificateSigningRequest": ref("CSR")}, thing)
		return func(ctx context.Context, d *Device) error { return c.register(ctx, body, d) }, nil
	}
	n := Names{Run: f.Run, ClaimPolicy: f.prefix() + "-claim", Template: f.prefix()}
	if len(n.Template) > 36 {
		return nil, fmt.Errorf("the name %q is too long for a provisioning template", f.Run)
	}
	cert, arn, err := c.certificate(ctx)
	if err != nil {
		return nil, fmt.Errorf("create the claim certificate: %w", err)
	}
	if err := c.claimPolicy(ctx, n, arn); err != nil {
		return nil, err
	}
	body := templateBody("sim-", policy, object{"CertificateId": ref("AWS::IoT::Certificate::Id")}, thing)
	if err := c.provisioningTemplate(ctx, n.Template, body); err != nil {
		return nil, err
	}
	claim := Claim{Addr: f.Addr, Roots: f.Roots, Certificate: cert, Template: n.Template}
	return func(ctx context.Context, d *Device) error { return d.Provision(ctx, claim) }, nil
}
