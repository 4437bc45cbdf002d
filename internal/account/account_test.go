package account_test

import (
	"errors"
	"testing"

	"flotilla/internal/account"
	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func TestDescribeEndpoint(t *testing.T) {
	a := account.New(account.Deps{Endpoint: func(kind string) string {
		return map[string]string{"iot:Data": "localhost:8443", "iot:Jobs": "localhost:1"}[kind]
	}})
	for kind, want := range map[string]string{"": "localhost:8443", "iot:Jobs": "localhost:1", "iot:Other": ""} {
		in := &iot.DescribeEndpointRequest{}
		if kind != "" {
			in.EndpointType = &kind
		}
		out, err := a.DescribeEndpoint(t.Context(), in)
		var invalid *iot.InvalidRequestException
		switch {
		case want == "" && !errors.As(err, &invalid):
			t.Errorf("%q: got %v", kind, err)
		case want != "" && (err != nil || *out.EndpointAddress != want):
			t.Errorf("%q: got %v, %v", kind, out, err)
		}
	}
}

func TestEventConfigurations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		a := account.New(account.Deps{DB: db, Events: []string{iot.EventTypeThing}})
		if a.Enabled(t.Context(), iot.EventTypeThing) {
			t.Error("enabled before it was")
		}
		ctx := t.Context()
		set := func(kind string, on bool) error {
			_, err := a.UpdateEventConfigurations(ctx, &iot.UpdateEventConfigurationsRequest{
				EventConfigurations: map[string]*iot.Configuration{kind: {Enabled: &on}},
			})
			return err
		}
		check := func(want bool) {
			t.Helper()
			out, err := a.DescribeEventConfigurations(ctx, &iot.DescribeEventConfigurationsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(out.EventConfigurations); n != 11 {
				t.Errorf("%d event types", n)
			}
			if got := *out.EventConfigurations[iot.EventTypeThing].Enabled; got != want {
				t.Errorf("THING is %v", got)
			}
		}
		check(false)
		if err := set(iot.EventTypeThing, true); err != nil {
			t.Fatal(err)
		}
		check(true)
		if !a.Enabled(t.Context(), iot.EventTypeThing) || a.Enabled(t.Context(), iot.EventTypeJob) {
			t.Error("an update is not followed")
		}
		if err := set(iot.EventTypeJob, false); err != nil {
			t.Fatal(err)
		}
		check(true)
		var exc aws.Exception
		if err := set(iot.EventTypeJob, true); !errors.As(err, &exc) || exc.StatusCode() != 501 {
			t.Errorf("an event that is not published: %v", err)
		}
		if err := set("OTHER", true); !errors.As(err, &exc) || exc.StatusCode() != 400 {
			t.Errorf("an unknown event: %v", err)
		}
		if err := set(iot.EventTypeThing, false); err != nil {
			t.Fatal(err)
		}
		check(false)
	})
}
