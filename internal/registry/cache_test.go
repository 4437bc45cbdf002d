package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
	"flotilla/internal/registry"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// That there is no thing of a name is remembered until there is one: here, on another node, or in a transaction.
func TestPolicyThingThatIsMissing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w, other := newWorld(t, db, registry.Config{}), newWorld(t, db, registry.Config{})
		missing := func(when string, w *world, want bool) {
			t.Helper()
			for range 2 { // the second comes from memory
				if got := must[*lang.Thing](t)(w.PolicyThing(ctx, "a", certA)); (got == nil) != want {
					t.Errorf("%s: %+v", when, got)
				}
			}
		}
		missing("before", w, true)
		missing("before, on another node", other, true)
		w.thing(t, "a", "")
		missing("made", w, false)
		if _, err := other.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: "a"}); err != nil {
			t.Errorf("another node describes it: %v", err)
		}
		other.Changed("thing", "a") // as the bus brings it
		missing("made, on another node", other, false)
		must[*iot.DeleteThingResponse](t)(w.DeleteThing(ctx, &iot.DeleteThingRequest{ThingName: "a"}))
		other.Changed("thing", "")
		missing("deleted", w, true)
		missing("deleted, on another node", other, true)

		failed := errors.New("not committed")
		err := db.Write(ctx, func(ctx context.Context, _ store.Tx) error {
			if err := second(w.CreateThing(ctx, &iot.CreateThingRequest{ThingName: "a"})); err != nil {
				return err
			}
			if got, err := w.PolicyThing(ctx, "a", certA); err != nil || got == nil {
				t.Errorf("in the transaction that makes it: %+v %v", got, err)
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
		missing("never made", w, true)
	})
}

func TestManyMissingThings(t *testing.T) {
	w := newWorld(t, storetest.Open(t), registry.Config{CachedThings: 16})
	w.thing(t, "there", "")
	for i := range 100 {
		if got := must[*lang.Thing](t)(w.PolicyThing(t.Context(), fmt.Sprint("missing-", i), certA)); got != nil {
			t.Fatalf("%+v", got)
		}
	}
	if got := must[*lang.Thing](t)(w.PolicyThing(t.Context(), "there", certA)); got == nil {
		t.Error("the thing that is there is missing")
	}
}
