package lint_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"flotilla/internal/policy/lang"
	"flotilla/internal/policy/lint"
)

// docs/policies.md lists every rule and every action.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, r := range lint.Rules() {
		want = append(want, fmt.Sprintf("| `%s` | %v | %s | %s |", r.ID, r.Severity, r.Title, r.Fix))
	}
	for _, a := range lang.Actions() {
		kind := "`*`"
		if a.Resource != "" {
			kind = "`" + a.Resource + "/...`"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s |", a.Name, kind))
	}
	for _, line := range want {
		if !strings.Contains(string(text), line) {
			t.Errorf("docs/policies.md lacks %s", line)
		}
	}
}
