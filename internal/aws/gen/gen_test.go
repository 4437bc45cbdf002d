package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flotilla/internal/aws/wire"
)

// TestGeneratedCodeIsCurrent fails when models or generator have changed and
// `go generate ./internal/aws` was not run.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	files, err := generate("../models")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate ./internal/aws", name)
		}
	}
	for _, s := range services {
		found, err := filepath.Glob(filepath.Join("..", s.pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if rel := s.pkg + "/" + filepath.Base(name); bytes.HasPrefix(text, []byte(generated)) && files[rel] == nil {
				t.Errorf("%s is no longer generated: run go generate ./internal/aws", rel)
			}
		}
	}
}

// TestPatterns: every pattern of the models compiles here, and matches as a plain
// regular expression does.
func TestPatterns(t *testing.T) {
	java := strings.NewReplacer(`\p{Graph}`, `[:graph:]`, `\p{Upper}`, `A-Z`, `\p{Digit}`, `0-9`, `\p{Cntrl}`, `[:cntrl:]`)
	n := 0
	for _, s := range services {
		for _, name := range s.models {
			text, err := os.ReadFile(filepath.Join("../models", name))
			if err != nil {
				t.Fatal(err)
			}
			var m model
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatal(err)
			}
			for _, sh := range m.Shapes {
				if sh.Pattern == "" {
					continue
				}
				n++
				plain := regexp.MustCompile(`^(?:` + java.Replace(sh.Pattern) + `)$`)
				p := wire.NewPattern(sh.Pattern)
				rapid.Check(t, func(t *rapid.T) {
					s := rapid.OneOf(rapid.StringMatching(sh.simple()), rapid.String(), rapid.StringMatching(`[ -~]{0,20}`)).Draw(t, "s")
					if got, want := p.Match(s), plain.MatchString(s); got != want {
						t.Fatalf("%s %q: %v, want %v", sh.Pattern, s, got, want)
					}
				})
			}
		}
	}
	if n < 100 {
		t.Errorf("%d patterns", n)
	}
}

// simple is the pattern, or another where it is not one that rapid can generate.
func (s *shape) simple() string {
	if strings.Contains(s.Pattern, `\p{`) || strings.ContainsAny(s.Pattern, "^$") {
		return `[a-z0-9-]*`
	}
	return s.Pattern
}
