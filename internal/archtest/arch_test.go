package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layer of a package: it may import layers below its own.
type layer int

const (
	pure   layer = iota // no I/O, no goroutine, no clock
	ground              // store, bus and what speaks to the outside for rooms
	room                // one AWS concept each; never imports another room
	root                // compositions
	command
)

// rooms' subpackages belong to their room unless listed here.
var layers = map[string]layer{
	"aws": pure, "aws/iot": pure, "aws/iotdata": pure, "aws/iotjobsdata": pure, "aws/lambda": pure, "aws/flotilla": pure, "aws/dynamodb": pure, "table/expression": pure, "table/number": pure,
	"mqtt": pure, "policy/lang": pure, "policy/lint": pure, "rules/sql": pure, "shadow/doc": pure, "provision/template": pure, "index/query": pure, "jobs/rollout": pure, "ota/firmware": pure,

	"store": ground, "object": ground, "outbound": ground, "bus": ground, "observe": ground, "mqtt/client": ground, "api/client": ground, "awsclient": ground,

	"gateway": room, "api": room, "iam": room, "account": room, "identity": room, "policy": room, "registry": room,
	"provision": room, "shadow": room, "rules": room, "telemetry": room, "function": room, "index": room, "jobs": room, "commands": room, "ota": room,

	"table": room,

	"audit": room, "audit/chain": pure,

	"eventbus": room, "eventbus/pattern": pure, "loggroup": ground,

	"server": root, "sim": root, "push": root,
}

// Generators and helpers of tests may import what they need.
var free = []string{"aws/gen", "store/storetest", "server/servertest", "archtest"}

// edges are the exceptions, each with its reason.
var edges = map[string]string{
	"rules -> telemetry": "the firehose action writes the archive that telemetry defines, the timestream action points of its live store",
}

// pureMayNot lists what a PURE package must not import, and why.
var pureMayNot = map[string]string{
	"net":          "I/O",
	"net/http":     "I/O",
	"os":           "I/O",
	"database/sql": "I/O",
	"log/slog":     "rooms log",
	"math/rand":    "results must repeat",
	"math/rand/v2": "results must repeat",
}

const module = "flotilla/internal/"

func TestImports(t *testing.T) {
	forEachFile(t, "../..", func(name string, f *ast.File) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		dir := path.Dir(filepath.ToSlash(name))
		from, ok := strings.CutPrefix(dir, "internal/")
		if !ok || slices.Contains(free, from) {
			return
		}
		fromRoom, fromLayer, ok := place(from)
		if !ok {
			t.Errorf("%s: package %s has no layer in archtest", name, from)
			return
		}
		for _, imp := range f.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if why, bad := pureMayNot[p]; bad && fromLayer == pure {
				t.Errorf("%s: a PURE package imports %s: %s", name, p, why)
			}
			to, ours := strings.CutPrefix(p, module)
			if !ours {
				continue
			}
			toRoom, toLayer, ok := place(to)
			switch {
			case !ok:
				t.Errorf("%s: imports %s, which has no layer", name, to)
			case toLayer == pure, toRoom == fromRoom, toLayer < fromLayer:
			case edges[fromRoom+" -> "+toRoom] != "":
			default:
				t.Errorf("%s: %s must not import %s", name, from, to)
			}
		}
	})
}

// place returns the room (or top-level name) and layer of a package.
func place(pkg string) (string, layer, bool) {
	if l, ok := layers[pkg]; ok {
		return pkg, l, true
	}
	top, _, _ := strings.Cut(pkg, "/")
	l, ok := layers[top]
	return top, l, ok
}

func TestNoSleepInTests(t *testing.T) {
	forEachFile(t, "../..", func(name string, f *ast.File) {
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		synctest := imports(f, "testing/synctest")
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Sleep" || synctest {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
				t.Errorf("%s: time.Sleep in a test; wait for the condition", name)
			}
			return true
		})
	})
}

func TestNoInit(t *testing.T) {
	forEachFile(t, "../..", func(name string, f *ast.File) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init: wire things where they are used", name)
			}
		}
	})
}

func imports(f *ast.File, p string) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == strconv.Quote(p) })
}

func TestEveryPackageHasDoc(t *testing.T) {
	dirs := map[string]bool{}
	forEachFile(t, "../..", func(name string, f *ast.File) {
		dir := path.Dir(filepath.ToSlash(name))
		dirs[dir] = dirs[dir] || f.Doc != nil
	})
	for dir, documented := range dirs {
		if !documented && !strings.HasPrefix(dir, "test/") {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func forEachFile(t *testing.T, top string, fn func(name string, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && p != top || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		fn(filepath.ToSlash(rel), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
