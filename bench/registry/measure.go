package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"syscall"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/policy"
	"flotilla/internal/policy/lang"
	"flotilla/internal/registry"
	"flotilla/internal/store"
)

// news stands for the bus.
type news struct{ listeners map[string][]func(string) }

func (n *news) OnChange(kind string, fn func(string)) {
	n.listeners[kind] = append(n.listeners[kind], fn)
}

func (n *news) Changed(kind, key string) {
	for _, fn := range n.listeners[kind] {
		fn(key)
	}
}

// rooms are those that know things, on a fleet's store, as the server plugs them together.
type rooms struct {
	*fleet
	db           *store.DB
	news         *news
	certificates *identity.Certificates
	registry     *registry.Registry
	policies     *policy.Policies
}

func openRooms(ctx context.Context, f *fleet) (*rooms, error) {
	db, err := store.Open(ctx, f.cfg)
	if err != nil {
		return nil, err
	}
	r := &rooms{fleet: f, db: db, news: &news{map[string][]func(string){}}}
	account := aws.Account{ID: "123456789012", Region: "us-east-1"}
	r.certificates = identity.New(identity.Config{}, identity.Deps{Account: account, DB: db, Changes: r.news})
	r.registry = registry.New(registry.Config{}, registry.Deps{Account: account, DB: db, Changes: r.news, Certificates: r.certificates})
	r.policies = policy.New(policy.Config{}, policy.Deps{
		Account: account, DB: db, Changes: r.news, Principals: r.certificates, Things: r.registry, Groups: r.registry, Tags: r.registry,
	})
	r.certificates.Use(r.policies, r.registry)
	return r, nil
}

// forget has the rooms forget every thing, certificate and attachment. Policies stay: devices share them.
func (r *rooms) forget() {
	for _, kind := range []string{"thing", "principal", "certificate"} {
		r.news.Changed(kind, "")
	}
}

// operation does something with thing i.
type operation struct {
	what string
	run  func(ctx context.Context, r *rooms, i int) error
}

func second[T any](_ T, err error) error { return err }

func token(key ...string) *string {
	return new(base64.RawURLEncoding.EncodeToString([]byte(strings.Join(key, "\n"))))
}

var reads = []operation{
	{"DescribeThing", func(ctx context.Context, r *rooms, i int) error {
		return second(r.registry.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: thingName(i)}))
	}},
	{"DescribeCertificate", func(ctx context.Context, r *rooms, i int) error {
		return second(r.certificates.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: r.ids[i]}))
	}},
	{"ListThings, a page of 25", func(ctx context.Context, r *rooms, i int) error {
		return second(r.registry.ListThings(ctx, &iot.ListThingsRequest{NextToken: token("", thingName(i)), MaxResults: new(int32(25))}))
	}},
	{"ListThings by attribute, a page of 25", func(ctx context.Context, r *rooms, i int) error {
		site := fmt.Sprint("site-", i%50)
		return second(r.registry.ListThings(ctx, &iot.ListThingsRequest{AttributeName: new("site"), AttributeValue: &site, NextToken: token(site, thingName(i)), MaxResults: new(int32(25))}))
	}},
	{"ListThingPrincipals", func(ctx context.Context, r *rooms, i int) error {
		return second(r.registry.ListThingPrincipals(ctx, &iot.ListThingPrincipalsRequest{ThingName: thingName(i)}))
	}},
	{"ListPrincipalThings", func(ctx context.Context, r *rooms, i int) error {
		return second(r.registry.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: arn + "cert/" + r.ids[i]}))
	}},
	{"ListThingsInThingGroup, a page of 25", func(ctx context.Context, r *rooms, i int) error {
		return second(r.registry.ListThingsInThingGroup(ctx, &iot.ListThingsInThingGroupRequest{
			ThingGroupName: "root", Recursive: new(true), NextToken: token(thingName(i)), MaxResults: new(int32(25)),
		}))
	}},
	{"ListAttachedPolicies", func(ctx context.Context, r *rooms, i int) error {
		return second(r.policies.ListAttachedPolicies(ctx, &iot.ListAttachedPoliciesRequest{Target: arn + "cert/" + r.ids[i]}))
	}},
	{"what a CONNECT reads", func(ctx context.Context, r *rooms, i int) error {
		principal := aws.Principal{Type: "certificate", ID: r.ids[i], ARN: arn + "cert/" + r.ids[i]}
		a, err := r.policies.Open(ctx, principal, &lang.Connection{Protocol: "mqtt", ClientID: thingName(i)})
		if err != nil {
			return err
		}
		if !a.Authorize("iot:Connect", arn+"client/"+thingName(i)).Allowed() {
			return fmt.Errorf("%s may not connect", thingName(i))
		}
		return nil
	}},
}

var errUndo = errors.New("undo")

// attaches attaches the certificates of other things in a transaction that is taken back.
func attaches(ctx context.Context, r *rooms, runs int) error {
	err := r.db.Write(ctx, func(ctx context.Context, _ store.Tx) error {
		for range runs {
			i, k := rand.IntN(r.n), rand.IntN(r.n)
			_, err := r.registry.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalRequest{ThingName: thingName(i), Principal: arn + "cert/" + r.ids[k]})
			if err != nil {
				return err
			}
		}
		return errUndo
	})
	if !errors.Is(err, errUndo) {
		return err
	}
	return nil
}

// clock is what something takes by the wall and of this process's processor time.
type clock struct {
	wall time.Time
	cpu  time.Duration
}

func now() clock {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it can't fail
	return clock{time.Now(), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

// operations measures the rooms of all fleets, in turns.
func operations(ctx context.Context, fleets []*fleet, wanted *regexp.Regexp, reps, runs int, print func(string, string, [][]float64)) error {
	var all []*rooms
	for _, f := range fleets {
		r, err := openRooms(ctx, f)
		if err != nil {
			return err
		}
		defer func() { _ = r.db.Close() }()
		all = append(all, r)
	}
	measure := func(what string, run func(r *rooms) error) error {
		if !wanted.MatchString(what) {
			return nil
		}
		wall, cpu := make([][]float64, len(all)), make([][]float64, len(all))
		for rep := range reps + 1 {
			for i, r := range all {
				begin := now()
				if err := run(r); err != nil {
					return fmt.Errorf("%s: %w", what, err)
				}
				end := now()
				if rep > 0 { // the first one warms
					each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(runs) }
					wall[i] = append(wall[i], each(end.wall.Sub(begin.wall)))
					cpu[i] = append(cpu[i], each(end.cpu-begin.cpu))
				}
			}
		}
		print(what, "us", wall)
		print(what, "us of CPU", cpu)
		return nil
	}
	for _, op := range reads {
		err := measure(op.what, func(r *rooms) error {
			for range runs {
				r.forget()
				if err := op.run(ctx, r, rand.IntN(r.n)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return measure("AttachThingPrincipal", func(r *rooms) error { return attaches(ctx, r, runs) })
}
