package iam

import (
	"embed"
	"slices"
	"strings"

	"flotilla/internal/policy/lang"
)

//go:embed managed/*.json
var managedFiles embed.FS

// managedPolicies are the policies that every installation has, by name.
type managedPolicies struct {
	names     []string // sorted
	texts     map[string]string
	documents map[string]*lang.Document
}

// openManaged reads the embedded policies; a mistake in one is a bug, and panics.
func openManaged() *managedPolicies {
	m := &managedPolicies{texts: map[string]string{}, documents: map[string]*lang.Document{}}
	entries, err := managedFiles.ReadDir("managed")
	if err != nil {
		panic("iam: " + err.Error())
	}
	for _, e := range entries {
		text, err := managedFiles.ReadFile("managed/" + e.Name())
		if err != nil {
			panic("iam: " + err.Error())
		}
		name := strings.TrimSuffix(e.Name(), ".json")
		doc, err := lang.Parse(string(text))
		if err != nil {
			panic("iam: managed policy " + name + ": " + err.Error())
		}
		m.names = append(m.names, name)
		m.texts[name], m.documents[name] = string(text), doc
	}
	slices.Sort(m.names)
	return m
}
