package server_test

import (
	"flag"
	"os"
	"testing"

	"flotilla/internal/server"
)

var update = flag.Bool("update", false, "rewrite docs/coverage.md")

// TestCoverage holds docs/coverage.md to the operations that have a handler.
func TestCoverage(t *testing.T) {
	const page = "../../docs/coverage.md"
	want := server.Coverage()
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != string(want) {
		t.Error("docs/coverage.md is out of date; run make generate")
	}
}
