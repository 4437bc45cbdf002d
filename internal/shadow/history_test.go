package shadow_test

import (
	"context"
	"fmt"
	"testing"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func history(t *testing.T, s *shadow.Shadows, thing, name string) (lines []string) {
	t.Helper()
	in := &flotilla.ListShadowHistoryRequest{ThingName: thing}
	if name != "" {
		in.ShadowName = &name
	}
	out, err := s.ListShadowHistory(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	for _, e := range out.Entries {
		lines = append(lines, fmt.Sprint(*e.Version, " ", *e.Operation, " ", text(e.Principal), " ", text(e.ClientId), " ", text(e.Change), " ", text(e.State)))
	}
	return lines
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// The history says who changed what desires, and brings it back.
func TestHistory(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var out outbox
		s := shadow.New(db, things{"t": true}, &out, shadow.Config{})
		ann := aws.WithCaller(context.Background(), &aws.Caller{Principal: aws.Principal{Type: "user", ID: "A", ARN: "arn:aws:iam::1:user/ann"}})
		byAPI := func(payload string) {
			t.Helper()
			if _, err := s.UpdateThingShadow(ann, &iotdata.UpdateThingShadowRequest{ThingName: "t", Payload: []byte(payload)}); err != nil {
				t.Fatal(err)
			}
		}
		same(t, history(t, s, "t", ""))
		byAPI(`{"state":{"desired":{"a":1,"b":{"c":2}}}}`)
		update(t, s, "t", "", `{"state":{"reported":{"a":1}}}`) // a device's report is not kept
		if err := s.ServeMQTT(context.Background(), &mqtt.Message{
			Topic: "$aws/things/t/shadow/update", Payload: []byte(`{"state":{"desired":{"a":null,"d":3}}}`),
			Source: mqtt.Source{ClientID: "app", PrincipalType: "certificate", PrincipalID: "beef"},
		}); err != nil {
			t.Fatal(err)
		}
		first := `1 update arn:aws:iam::1:user/ann - {"desired":{"a":1,"b":{"c":2}}} {"desired":{"a":1,"b":{"c":2}}}`
		third := `3 update certificate/beef app {"desired":{"a":null,"d":3}} {"desired":{"b":{"c":2},"d":3},"reported":{"a":1}}`
		same(t, history(t, s, "t", ""), third, first)
		same(t, history(t, s, "t", "other"))

		out.reset()
		restored, err := s.RestoreShadow(ann, &flotilla.RestoreShadowRequest{ThingName: "t", Version: 1})
		if err != nil || *restored.Version != 4 {
			t.Fatal(restored, err)
		}
		if got, want := out.topics(), "t/shadow/update/delta t/shadow/update/documents t/shadow/update/accepted"; got != want {
			t.Errorf("published %s, want %s", got, want)
		}
		fourth := `4 restore arn:aws:iam::1:user/ann - {"desired":{"a":1,"b":{"c":2}}} {"desired":{"a":1,"b":{"c":2}},"reported":{"a":1}}`
		same(t, history(t, s, "t", ""), fourth, third, first)

		// What was deleted comes back as well.
		if _, err := s.DeleteThingShadow(ann, &iotdata.DeleteThingShadowRequest{ThingName: "t"}); err != nil {
			t.Fatal(err)
		}
		deleted := `4 delete arn:aws:iam::1:user/ann - - -`
		same(t, history(t, s, "t", ""), deleted, fourth, third, first)
		if restored, err = s.RestoreShadow(ann, &flotilla.RestoreShadowRequest{ThingName: "t", Version: 3}); err != nil || *restored.Version != 5 {
			t.Fatal(restored, err)
		}
		same(t, history(t, s, "t", "")[:1], `5 restore arn:aws:iam::1:user/ann - {"desired":{"b":{"c":2},"d":3}} {"desired":{"b":{"c":2},"d":3}}`)

		_, err = s.RestoreShadow(ann, &flotilla.RestoreShadowRequest{ThingName: "t", Version: 2})
		refused[*flotilla.ResourceNotFoundException](t, err)
		_, err = s.ListShadowHistory(ann, &flotilla.ListShadowHistoryRequest{ThingName: "u"})
		refused[*flotilla.ResourceNotFoundException](t, err)
		if err := s.DeleteAll(context.Background(), "t"); err != nil {
			t.Fatal(err)
		}
		same(t, history(t, s, "t", ""))
	})
}

// A history is bounded, also when many changes share a commit.
func TestHistoryBound(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := shadow.New(db, things{"t": true}, &outbox{}, shadow.Config{History: 3, HistoryReported: true})
		done := make(chan error)
		for i := range 20 {
			go func() {
				done <- s.ServeMQTT(context.Background(), &mqtt.Message{
					Topic: "$aws/things/t/shadow/name/n/update", Payload: fmt.Appendf(nil, `{"state":{"reported":{"a":%d}}}`, i),
				})
			}()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		got := history(t, s, "t", "n")
		if len(got) != 3 || got[0][:3] != "20 " || got[1][:3] != "19 " || got[2][:3] != "18 " {
			t.Errorf("got %q", got)
		}
		var n int
		if err := db.Read(context.Background(), func(_ context.Context, tx store.Tx) error {
			return tx.QueryRow(`SELECT COUNT(*) FROM shadow_history`).Scan(&n)
		}); err != nil || n != 3 {
			t.Errorf("%d entries kept, %v", n, err)
		}
	})
}

func TestHistoryOff(t *testing.T) {
	s := shadow.New(storetest.Open(t), things{"t": true}, &outbox{}, shadow.Config{History: -1})
	update(t, s, "t", "", `{"state":{"desired":{"a":1}}}`)
	_, err := s.ListShadowHistory(context.Background(), &flotilla.ListShadowHistoryRequest{ThingName: "t"})
	refused[*flotilla.InvalidRequestException](t, err)
}
