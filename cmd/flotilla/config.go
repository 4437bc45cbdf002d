package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/pelletier/go-toml/v2"
)

// fileResolver gives flags their values from the TOML file that --config, or
// FLOTILLA_CONFIG, names. What stands on the command line or in the environment
// comes first.
type fileResolver struct {
	loaded bool
	values map[string]any // "store" or "store.max-batch" -> value
	err    error
}

func (r *fileResolver) Validate(*kong.Application) error { return nil }

func (r *fileResolver) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !r.loaded {
		r.loaded = true
		r.values, r.err = readConfig(configPath(ctx))
		if r.err == nil {
			r.err = unknownKeys(r.values, ctx.Model)
		}
	}
	if r.err != nil || flag.Name == "config" {
		return nil, r.err
	}
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return nil, nil
		}
	}
	return r.values[flag.Name], nil
}

func configPath(ctx *kong.Context) string {
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			return ctx.FlagValue(p.Flag).(string)
		}
	}
	return os.Getenv("FLOTILLA_CONFIG")
}

func readConfig(path string) (map[string]any, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("config %s: %w", path, err)
	}
	flat := map[string]any{}
	flatten("", tree, flat)
	return flat, nil
}

// flatten turns tables into dotted names.
func flatten(prefix string, tree, into map[string]any) {
	for k, v := range tree {
		if sub, ok := v.(map[string]any); ok {
			flatten(prefix+k+".", sub, into)
			continue
		}
		into[prefix+k] = v
	}
}

// unknownKeys is the error for settings that no command has.
func unknownKeys(values map[string]any, app *kong.Application) error {
	known := map[string]bool{}
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, f := range n.Flags {
			known[f.Name] = true
		}
		for _, c := range n.Children {
			walk(c)
		}
	}
	walk(app.Node)
	var unknown []string
	for k := range values {
		if !known[k] {
			unknown = append(unknown, k)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("config: unknown setting %s", strings.Join(unknown, ", "))
}
