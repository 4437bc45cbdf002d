package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
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
