package mesh_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
)

// outcome sends a message for groups and waits for what became of it.
func outcome(t *testing.T, m *mesh.Mesh, node string, groups ...string) error {
	t.Helper()
	done := make(chan error, 2)
	if err := m.Send(peer(t, m, node), &mqtt.Message{Topic: "t", QoS: 1}, groups, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("nobody says what became of the message")
		return nil
	}
}

func TestGroupsThatNobodyServesAreTold(t *testing.T) {
	h := hub(t)
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{Deliver: func(_ *mqtt.Message, groups []string) []string {
		if groups[0] == "$share/taken/t" {
			return nil
		}
		return []string{groups[len(groups)-1], "$share/never/asked"}
	}})
	join(t, h.URL(), "n3", steady, mesh.Handlers{}) // takes nothing
	eventually(t, "joined", func() bool { return len(one.Members()) == 2 })
	if err := outcome(t, one.Mesh, "n2", "$share/taken/t", "$share/b/t"); err != nil {
		t.Error(err)
	}
	for node, want := range map[string][]string{"n2": {"$share/b/t"}, "n3": {"$share/a/t", "$share/b/t"}} {
		var untaken *mesh.UntakenError
		if err := outcome(t, one.Mesh, node, "$share/a/t", "$share/b/t"); !errors.As(err, &untaken) || !cmp.Equal(untaken.Groups, want) {
			t.Errorf("%s: %v", node, err)
		}
	}
}

// TestGroupsOfDeadNode lets a node die while it delivers, and one leave in good order.
func TestGroupsOfDeadNode(t *testing.T) {
	t.Parallel()
	h := hub(t)
	one := join(t, h.URL(), "n1", quick, mesh.Handlers{})
	for _, die := range []bool{true, false} {
		entered, hold := make(chan struct{}), make(chan struct{})
		two := join(t, h.URL(), "n2", steady, mesh.Handlers{Deliver: func(*mqtt.Message, []string) []string {
			close(entered)
			<-hold
			return nil
		}})
		eventually(t, "joined", func() bool { return len(one.Members()) == 1 })
		ended := make(chan error, 1)
		go func() { ended <- outcome(t, one.Mesh, "n2", "$share/a/t") }()
		<-entered
		if die {
			two.bus.Close()
			if err := <-ended; !errors.Is(err, mesh.ErrGone) {
				t.Errorf("died: %v", err)
			}
			close(hold)
		} else {
			close(hold)
			two.Close()
			if err := <-ended; err != nil && !errors.Is(err, mesh.ErrGone) { // it does not wait for ever
				t.Errorf("left after it had delivered: %v", err)
			}
		}
		eventually(t, "gone", one.Alone)
	}
}

// TestRequestsOutliveForgetting has a node forget the one that waits for its answer.
func TestRequestsOutliveForgetting(t *testing.T) {
	t.Parallel()
	h := hub(t)
	wire, through := newProxy(t, h.URL())
	kicks := make(chan int64, 16)
	patient := quick
	patient.Timeout = time.Hour
	one := join(t, h.URL(), "n1", patient, mesh.Handlers{})
	two := join(t, through, "n2", quick, mesh.Handlers{Kick: func(ctx context.Context, _ string, epoch int64) {
		first := len(kicks) == 0
		kicks <- epoch
		if first {
			wire.deaf.Store(true) // the answer is lost
			<-ctx.Done()
		}
	}})
	eventually(t, "joined", func() bool { return !one.Alone() && !two.Alone() })
	if err := one.Announce(t.Context(), []string{"x"}, nil); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ended <- one.Kick(ctx, "n2", "c", 7)
	}()
	eventually(t, "n2 has dropped n1", two.Alone)
	wire.deaf.Store(false)
	wire.sever(false)
	if err := <-ended; err != nil {
		t.Errorf("the kick ended with %v", err)
	}
	if n := len(kicks); n < 2 {
		t.Errorf("asked %d times", n)
	}
}
