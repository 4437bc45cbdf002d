package template

import (
	"strconv"
	"strings"
)

// compileValue compiles a string, number, boolean or intrinsic function.
func compileValue(n *node, path string) (expr, error) {
	if s, ok := n.scalar(); ok {
		return literal{s}, nil
	}
	if n.isObject() && isFunction(n) {
		return compileFunction(n, path)
	}
	return nil, fail(InvalidTemplate, path, "a string or an intrinsic function is needed")
}

// isFunction tells an intrinsic function from an object.
func isFunction(n *node) bool {
	return len(n.names) == 1 && (n.names[0] == "Ref" || strings.HasPrefix(n.names[0], "Fn::"))
}

// compileList compiles a literal list or a function that makes one. Elements
// that are null are kept: using them is an error of the function.
func compileList(n *node, path string) (expr, error) {
	if !n.isArray() {
		if n.isObject() && isFunction(n) {
			return compileFunction(n, path)
		}
		return nil, fail(InvalidTemplate, path, "a list or an intrinsic function that makes one is needed")
	}
	a := array{path: path, items: make([]expr, len(n.items))}
	for i, item := range n.items {
		if item.isNull() {
			continue
		}
		x, err := compileValue(item, path+"["+strconv.Itoa(i)+"]")
		if err != nil {
			return nil, err
		}
		a.items[i] = x
	}
	return a, nil
}

// compileFunction compiles {"Ref": …} or {"Fn::…": …}.
func compileFunction(n *node, path string) (expr, error) {
	name, arg := n.names[0], n.items[0]
	path += "." + name
	switch name {
	case "Ref":
		if !arg.isString() || arg.text == "" {
			return nil, fail(InvalidTemplate, path, "the name of a parameter is needed")
		}
		return ref{path, arg.text}, nil
	case "Fn::Sub":
		return compileSub(arg, path)
	case "Fn::Join":
		args, err := arguments(arg, path, 2)
		if err != nil {
			return nil, err
		}
		if !args[0].isString() {
			return nil, fail(InvalidTemplate, path, "the delimiter must be a string")
		}
		list, err := compileList(args[1], path)
		return join{path, literal{args[0].text}, list}, err
	case "Fn::Select":
		args, err := arguments(arg, path, 2)
		if err != nil {
			return nil, err
		}
		xs, err := compileAll(args[:1], path)
		if err != nil {
			return nil, err
		}
		list, err := compileList(args[1], path)
		return selection{path, xs[0], list}, err
	case "Fn::FindInMap":
		args, err := arguments(arg, path, 3)
		if err != nil {
			return nil, err
		}
		xs, err := compileAll(args, path)
		if err != nil {
			return nil, err
		}
		return findInMap{path, xs[0], xs[1], xs[2]}, nil
	case "Fn::Split":
		args, err := arguments(arg, path, 2)
		if err != nil {
			return nil, err
		}
		if !args[0].isString() {
			return nil, fail(InvalidTemplate, path, "the delimiter must be a string")
		}
		whole, err := compileValue(args[1], path)
		return split{path, literal{args[0].text}, whole}, err
	}
	return nil, fail(InvalidTemplate, path, "%s is not an intrinsic function of provisioning templates", name)
}

func arguments(n *node, path string, count int) ([]*node, error) {
	if !n.isArray() || len(n.items) != count {
		return nil, fail(InvalidTemplate, path, "a list of %d arguments is needed", count)
	}
	return n.items, nil
}

func compileAll(nodes []*node, path string) ([]expr, error) {
	xs := make([]expr, len(nodes))
	for i, n := range nodes {
		x, err := compileValue(n, path)
		if err != nil {
			return nil, err
		}
		xs[i] = x
	}
	return xs, nil
}

// compileSub compiles Fn::Sub: a string, or a list of a string and the values
// of its variables. "${!x}" stands for the text "${x}".
func compileSub(arg *node, path string) (expr, error) {
	text, vars := arg, map[string]expr{}
	if arg.isArray() {
		args, err := arguments(arg, path, 2)
		if err != nil {
			return nil, err
		}
		if !args[1].isObject() {
			return nil, fail(InvalidTemplate, path, "the second argument must be an object of variables")
		}
		text = args[0]
		for i, name := range args[1].names {
			if vars[name], err = compileValue(args[1].items[i], path+"."+name); err != nil {
				return nil, err
			}
		}
	}
	if !text.isString() {
		return nil, fail(InvalidTemplate, path, "a string with ${variables} is needed")
	}
	s := substitution{path: path, vars: vars}
	rest := text.text
	for {
		before, after, found := strings.Cut(rest, "${")
		if before != "" {
			s.parts = append(s.parts, part{text: before})
		}
		if !found {
			return s, nil
		}
		name, next, closed := strings.Cut(after, "}")
		switch {
		case !closed:
			return nil, fail(InvalidTemplate, path, "${ without }")
		case strings.HasPrefix(name, "!"):
			s.parts = append(s.parts, part{text: "${" + name[1:] + "}"})
		case strings.TrimSpace(name) == "":
			return nil, fail(InvalidTemplate, path, "${} names no variable")
		default:
			s.parts = append(s.parts, part{text: strings.TrimSpace(name), variable: true})
		}
		rest = next
	}
}
