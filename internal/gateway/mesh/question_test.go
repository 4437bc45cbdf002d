package mesh_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/gateway/mesh"
)

// ask puts a question with the test's patience.
func ask(t testing.TB, m *mesh.Mesh, node, question string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := m.Ask(ctx, peer(t, m, node), []byte(question))
	return string(answer), err
}

func TestQuestionsAreAnswered(t *testing.T) {
	h := hub(t)
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{Answer: func(ctx context.Context, q []byte) ([]byte, error) {
		if _, ok := ctx.Deadline(); !ok {
			return nil, errors.New("no deadline")
		}
		switch string(q) {
		case "fail":
			return nil, errors.New("a secret detail")
		case "too much":
			return make([]byte, 9<<20), nil
		}
		return append([]byte("re: "), q...), nil
	}})
	eventually(t, "n2 is there", func() bool { return len(one.Members()) == 1 })
	for _, q := range []string{"", "hello", string(bytes.Repeat([]byte("x"), 1<<20))} {
		if a, err := ask(t, one.Mesh, "n2", q); err != nil || a != "re: "+q {
			t.Errorf("%d bytes: got %d bytes, %v", len(q), len(a), err)
		}
	}
	for _, q := range []string{"fail", "too much"} {
		a, err := ask(t, one.Mesh, "n2", q)
		if err == nil || a != "" || bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("%s: %q %v", q, a, err)
		}
	}
	if _, err := ask(t, one.Mesh, "n2", string(make([]byte, 9<<20))); !errors.Is(err, mesh.ErrTooLarge) {
		t.Errorf("a question beyond what NATS takes: %v", err)
	}
	if _, err := one.Ask(context.Background(), peer(t, one.Mesh, "n2"), nil); err == nil {
		t.Error("a question without a deadline was put")
	}
}

// TestQuestionsEndWithTheirDeadline lets a node not answer: who asks goes on, and so does who is asked.
func TestQuestionsEndWithTheirDeadline(t *testing.T) {
	h := hub(t)
	var ended atomic.Bool
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{Answer: func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended.Store(true)
		return nil, ctx.Err()
	}})
	eventually(t, "n2 is there", func() bool { return len(one.Members()) == 1 })
	eventually(t, "the question reaches n2 in time, and ends there", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := one.Ask(ctx, peer(t, one.Mesh, "n2"), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		return ended.Load()
	})
}

// TestQuestionsAreBounded holds more questions open than a node works on.
func TestQuestionsAreBounded(t *testing.T) {
	h := hub(t)
	begun, hold := make(chan struct{}, 4096), make(chan struct{})
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{Answer: func(context.Context, []byte) ([]byte, error) {
		begun <- struct{}{}
		<-hold
		return nil, nil
	}})
	eventually(t, "n2 is there", func() bool { return len(one.Members()) == 1 })
	const most = 1024
	var all sync.WaitGroup
	for range most {
		all.Go(func() {
			if _, err := ask(t, one.Mesh, "n2", "wait"); err != nil {
				t.Error(err)
			}
		})
	}
	for range most {
		<-begun
	}
	if _, err := ask(t, one.Mesh, "n2", "one more"); !errors.Is(err, mesh.ErrBusy) {
		t.Errorf("one more than the bound: %v", err)
	}
	close(hold)
	all.Wait()
	if _, err := ask(t, one.Mesh, "n2", "again"); err != nil {
		t.Errorf("after the crowd: %v", err)
	}
}

// TestQuestionsEndWithTheNode asks a node that leaves without an answer.
func TestQuestionsEndWithTheNode(t *testing.T) {
	t.Parallel()
	h := hub(t)
	asked := make(chan struct{})
	one := join(t, h.URL(), "n1", quick, mesh.Handlers{})
	two := join(t, h.URL(), "n2", steady, mesh.Handlers{Answer: func(ctx context.Context, _ []byte) ([]byte, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	eventually(t, "n2 is there", func() bool { return len(one.Members()) == 1 })
	p := peer(t, one.Mesh, "n2")
	result := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := one.Ask(ctx, p, nil)
		result <- err
	}()
	<-asked
	two.bus.Close() // as a crash: no farewell
	if err := <-result; !errors.Is(err, mesh.ErrGone) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := one.Ask(ctx, p, nil); !errors.Is(err, mesh.ErrGone) {
		t.Errorf("a node that is gone: %v", err)
	}
}
