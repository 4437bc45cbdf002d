package lang_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flotilla/internal/policy/lang"
)

// Whatever Parse takes can be compiled and asked; nothing panics, and denial is the default.
func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f, "policy.jsonl") {
		if v.Document != "" {
			f.Add(v.Document)
		}
		for _, p := range v.Policies {
			f.Add(string(p))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		valid := lang.Validate(text) == nil
		d, err := lang.Parse(text)
		if err != nil {
			if valid {
				t.Fatalf("Validate took what Parse refuses: %v", err)
			}
			return
		}
		set := lang.Compile(lang.Named{Name: "p", Document: d})
		for _, action := range []string{"iot:Connect", "iot:Publish", "x:y"} {
			got := set.Evaluate(conn(), action, arn+"topic/a/b")
			if got.Allowed() && len(d.Statements) == 0 {
				t.Fatal("allowed by nothing")
			}
			set.Evaluate(&lang.Connection{}, action, "")
		}
	})
}

// naive is the definition of a wildcard match.
func naive(pattern, s []rune) bool {
	if len(pattern) == 0 {
		return len(s) == 0
	}
	switch pattern[0] {
	case '*':
		return naive(pattern[1:], s) || len(s) > 0 && naive(pattern, s[1:])
	case '?':
		return len(s) > 0 && naive(pattern[1:], s[1:])
	default:
		return len(s) > 0 && s[0] == pattern[0] && naive(pattern[1:], s[1:])
	}
}

func TestWildcardsAgreeWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alphabet := []rune("aab/é*?")
		pattern := rapid.StringOfN(rapid.SampledFrom(alphabet), 0, 9, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom(alphabet[:5]), 0, 9, -1).Draw(t, "s")
		d, err := lang.Parse(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Resource":"x` + pattern + `"}}`)
		if err != nil {
			t.Fatal(err)
		}
		got := lang.Compile(lang.Named{Document: d}).Evaluate(&lang.Connection{}, "a:b", "x"+s).Allowed()
		if want := naive([]rune(pattern), []rune(s)); got != want {
			t.Fatalf("%q against %q: %v, want %v", pattern, s, got, want)
		}
	})
}

// A pattern of many stars takes time in proportion to its length, not exponential.
func TestManyStars(t *testing.T) {
	set := compile(t, `{"Effect":"Allow","Action":"*","Resource":"`+strings.Repeat("*a", 900)+`b"}`)
	if set.Evaluate(conn(), "iot:Publish", strings.Repeat("a", 2000)).Allowed() {
		t.Error("matches")
	}
}
