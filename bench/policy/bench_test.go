package policybench

import (
	"syscall"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"flotilla/internal/policy/lang"
)

// cpu reports processor time, which other programs on the machine disturb less than they do the clock. It includes
// the collection of garbage.
func cpu(b *testing.B) (done func()) {
	b.ReportAllocs()
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkDecide: the policies are compiled, the question is in the form that the engine likes best. No engine
// remembers an answer.
func BenchmarkDecide(b *testing.B) {
	for _, q := range questions {
		resource := topic(q.root, q.site, q.owner, q.rest)
		b.Run(q.name+"/flotilla", func(b *testing.B) {
			set, c := compile(b), connection()
			action, resource := "iot:"+q.action, arn+resource
			defer cpu(b)()
			for b.Loop() {
				if set.Evaluate(c, action, resource).Allowed() != q.allowed {
					b.Fatal("wrong")
				}
			}
		})
		b.Run(q.name+"/opa", func(b *testing.B) {
			query := prepare(b)
			input, err := ast.InterfaceToValue(regoInput(q.action, resource))
			if err != nil {
				b.Fatal(err)
			}
			defer cpu(b)()
			for b.Loop() {
				if evalRego(b, query, input) != q.allowed {
					b.Fatal("wrong")
				}
			}
		})
		b.Run(q.name+"/cedar", func(b *testing.B) {
			policies := parseCedar(b)
			entities, request := cedarRequest(q.action, q.root, q.site, q.owner, q.rest)
			defer cpu(b)()
			for b.Loop() {
				if decision, _ := cedar.Authorize(policies, entities, request); (decision == cedar.Allow) != q.allowed {
					b.Fatal("wrong")
				}
			}
		})
	}
}

// BenchmarkFromText: the policy is text; it is parsed, compiled and asked once. What the first connection of a policy
// pays, or who keeps nothing.
func BenchmarkFromText(b *testing.B) {
	q := questions[0]
	resource := topic(q.root, q.site, q.owner, q.rest)
	b.Run("flotilla", func(b *testing.B) {
		c := connection()
		defer cpu(b)()
		for b.Loop() {
			d, err := lang.Parse(iotPolicy)
			if err != nil || !lang.Compile(lang.Named{Name: "device", Document: d}).Evaluate(c, "iot:"+q.action, arn+resource).Allowed() {
				b.Fatal("wrong")
			}
		}
	})
	b.Run("opa", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			query, err := rego.New(rego.Query("data.iot.allow"), rego.Module("iot.rego", regoPolicy)).PrepareForEval(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			rs, err := query.Eval(b.Context(), rego.EvalInput(regoInput(q.action, resource)))
			if err != nil || !rs.Allowed() {
				b.Fatal("wrong")
			}
		}
	})
	b.Run("cedar", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			policies := parseCedar(b)
			entities, request := cedarRequest(q.action, q.root, q.site, q.owner, q.rest)
			if decision, _ := cedar.Authorize(policies, entities, request); decision != cedar.Allow {
				b.Fatal("wrong")
			}
		}
	})
}
