package sql

import "slices"

// eval computes an expression. It never panics; what goes wrong for good is noted by frame.fail.
type eval func(f *frame) value

// program is what a statement or a template needs to know at run time.
type program struct {
	version  string // what sql_version() returns
	whole    bool   // numbers without fraction are Ints, since 2016-03-23
	root     pathNode
	slots    int
	rows     int // one place for the current row of each nested query
	vars     []programVar
	outer    *program // whose variables a template sees
	external bool
	calls    []string // external functions, those of variables that are used included
	dynamodb int      // calls of get_dynamodb
	patterns int      // steps that literal regular expressions took
}

type programVar struct {
	name     string
	eval     eval
	external bool
	calls    []string
}

// compiler turns expressions into closures.
type compiler struct {
	prog   *program
	scopes []scope // of the nested queries around the expression
}

// scope is where names are looked up in a nested query.
type scope struct {
	row   int // place in frame.rows
	alias string
}

func undefined(*frame) value { return value{} }

func constant(v value) eval { return func(*frame) value { return v } }

func (c *compiler) expr(x expr) eval {
	switch x := x.(type) {
	case *literal:
		return constant(x.value)
	case *nameExpr, *memberExpr:
		return c.path(x)
	case *starExpr:
		return (*frame).star
	case *varExpr:
		return c.variable(x)
	case *indexExpr:
		of, index := c.expr(x.of), c.expr(x.index)
		return func(f *frame) value { return get(f, of(f), index(f)) }
	case *unaryExpr:
		return c.unary(x)
	case *binaryExpr:
		return c.binary(x)
	case *callExpr:
		return c.call(x)
	case *castExpr:
		of, to := c.expr(x.x), x.to
		return func(f *frame) value { return cast(f, of(f), to) }
	case *caseExpr:
		return c.caseOf(x)
	case *arrayExpr:
		items := c.list(x.items)
		return func(f *frame) value {
			vals := make([]value, len(items))
			for i, item := range items {
				vals[i] = item(f)
			}
			f.spend(len(items))
			return arrayValue(vals)
		}
	case *objectExpr:
		vals, keys := c.list(x.vals), x.keys
		return func(f *frame) value {
			o := newObject(len(keys))
			for i, val := range vals {
				o.set(keys[i], val(f))
			}
			f.spend(len(keys))
			return objectValue(o)
		}
	case *queryExpr:
		return c.nested(x.query)
	}
	return undefined
}

func (c *compiler) list(xs []expr) []eval {
	out := make([]eval, len(xs))
	for i, x := range xs {
		out[i] = c.expr(x)
	}
	return out
}

// path compiles a name with what is read of it by dots.
func (c *compiler) path(x expr) eval {
	if i, ok := c.slot(x); ok {
		return func(f *frame) value { return f.read(i) }
	}
	switch x := x.(type) {
	case *nameExpr:
		for i := len(c.scopes) - 1; i >= 0; i-- {
			if row := c.scopes[i].row; c.scopes[i].alias == x.name {
				return func(f *frame) value { return f.rows[row] }
			}
		}
		row, name := c.scopes[len(c.scopes)-1].row, x.name
		return func(f *frame) value { return f.member(f.rows[row], name) }
	case *memberExpr:
		return c.members(x)
	}
	return undefined
}

// members compiles what is read by dots of something that is no path into the payload.
func (c *compiler) members(x *memberExpr) eval {
	var names []string // the last one first
	var of expr = x
	for m, ok := of.(*memberExpr); ok; m, ok = of.(*memberExpr) {
		names, of = append(names, m.name), m.of
	}
	from := c.expr(of)
	for _, name := range slices.Backward(names) {
		outer := from
		from = func(f *frame) value { return f.member(outer(f), name) }
	}
	return from
}

// slot is the slot of a path into the payload; ok is false for any other expression.
func (c *compiler) slot(x expr) (i int, ok bool) {
	if len(c.scopes) > 0 {
		return 0, false
	}
	n := c.node(x)
	if n == nil {
		return 0, false
	}
	return n.slot, true
}

func (c *compiler) node(x expr) *pathNode {
	switch x := x.(type) {
	case *nameExpr:
		return c.prog.root.grow(x.name, c.prog)
	case *memberExpr:
		if of := c.node(x.of); of != nil {
			return of.grow(x.name, c.prog)
		}
	}
	return nil
}

func (n *pathNode) grow(key string, p *program) *pathNode {
	if c := n.child(key); c != nil {
		return c
	}
	c := &pathNode{key: key, slot: p.slots}
	p.slots++
	n.children = append(n.children, c)
	return c
}

func (c *compiler) variable(x *varExpr) eval {
	for _, owner := range []*program{c.prog, c.prog.outer} {
		if owner == nil {
			continue
		}
		for i := range owner.vars {
			if owner.vars[i].name == x.name {
				c.prog.external = c.prog.external || owner.vars[i].external
				c.prog.calls = append(c.prog.calls, owner.vars[i].calls...)
				return func(f *frame) value { return f.variable(owner, i) }
			}
		}
	}
	return undefined
}

func (c *compiler) unary(x *unaryExpr) eval {
	of := c.expr(x.x)
	switch x.op {
	case "NOT":
		return func(f *frame) value {
			b, ok := of(f).toBool()
			if !ok {
				return value{}
			}
			return boolValue(!b)
		}
	case "EXISTS":
		return func(f *frame) value {
			switch v := of(f); v.kind {
			case arrayKind:
				return boolValue(len(f.items(v)) > 0)
			case objectKind:
				return boolValue(len(f.members(v).keys) > 0)
			}
			return boolValue(false)
		}
	}
	return func(f *frame) value {
		n, ok := of(f).toDecimal()
		return numberValue(n.neg(), ok)
	}
}

func (c *compiler) binary(x *binaryExpr) eval {
	l, r := c.expr(x.l), c.expr(x.r)
	switch x.op {
	case "AND", "OR":
		and := x.op == "AND"
		return func(f *frame) value {
			a, ok1 := l(f).toBool()
			b, ok2 := r(f).toBool()
			if !ok1 || !ok2 {
				return value{}
			}
			if and {
				return boolValue(a && b)
			}
			return boolValue(a || b)
		}
	case "=", "<>":
		want := x.op == "="
		return func(f *frame) value {
			eq, ok := f.equal(l(f), r(f))
			if !ok {
				return value{}
			}
			return boolValue(eq == want)
		}
	case "IN":
		return func(f *frame) value { return in(f, l(f), r(f)) }
	case "+":
		return func(f *frame) value { return plus(f, l(f), r(f)) }
	case "-":
		return arithmetic(l, r, func(a, b number) (number, bool) { return a.add(b.neg()) })
	case "*":
		return arithmetic(l, r, number.mul)
	case "/":
		return arithmetic(l, r, number.div)
	case "%":
		return arithmetic(l, r, number.mod)
	}
	return compare(x.op, l, r)
}

func compare(op string, l, r eval) eval {
	var want [3]bool // for less, equal, greater
	switch op {
	case "<":
		want = [3]bool{true, false, false}
	case "<=":
		want = [3]bool{true, true, false}
	case ">":
		want = [3]bool{false, false, true}
	case ">=":
		want = [3]bool{false, true, true}
	}
	return func(f *frame) value {
		a, ok1 := l(f).toDecimal()
		b, ok2 := r(f).toDecimal()
		if !ok1 || !ok2 {
			return value{}
		}
		return boolValue(want[a.cmp(b)+1])
	}
}

func arithmetic(l, r eval, op func(a, b number) (number, bool)) eval {
	return func(f *frame) value {
		a, ok1 := l(f).toDecimal()
		b, ok2 := r(f).toDecimal()
		if !ok1 || !ok2 {
			return value{}
		}
		return numberValue(op(a, b))
	}
}

// plus adds numbers, and concatenates when a side is a String.
func plus(f *frame, a, b value) value {
	if a.kind == stringKind || b.kind == stringKind {
		s, ok1 := f.toText(a)
		t, ok2 := f.toText(b)
		if !ok1 || !ok2 || !f.fits(len(s)+len(t)) {
			return value{}
		}
		return stringValue(f.built(s + t))
	}
	if a.kind != numberKind || b.kind != numberKind {
		return value{}
	}
	return numberValue(a.add(b.number))
}

func in(f *frame, v, list value) value {
	if v.isUndefined() || list.kind != arrayKind {
		return value{}
	}
	for _, item := range f.items(list) {
		if !f.spend(1) {
			break
		}
		if f.same(v, item) {
			return boolValue(true)
		}
	}
	return boolValue(false)
}

func (c *compiler) caseOf(x *caseExpr) eval {
	type branch struct{ is, then eval }
	of := c.expr(x.of)
	branches := make([]branch, len(x.when))
	for i, w := range x.when {
		branches[i] = branch{c.expr(w.is), c.expr(w.then)}
	}
	without := undefined
	if x.without != nil {
		without = c.expr(x.without)
	}
	return func(f *frame) value {
		v := of(f)
		if v.isUndefined() {
			return value{}
		}
		for i := range branches {
			if eq, _ := f.equal(v, branches[i].is(f)); eq {
				return branches[i].then(f)
			}
		}
		return without(f)
	}
}

// condition compiles WHERE: whether an expression is true. The operands of AND are
// evaluated only until one is not, so that cheap conditions guard external functions.
func (c *compiler) condition(x expr) func(f *frame) bool {
	if b, ok := x.(*binaryExpr); ok && b.op == "AND" {
		l, r := c.operandOfAnd(b.l), c.operandOfAnd(b.r)
		return func(f *frame) bool { return l(f) && r(f) }
	}
	of := c.expr(x)
	return func(f *frame) bool { return of(f).isTrue() }
}

func (c *compiler) operandOfAnd(x expr) func(f *frame) bool {
	if b, ok := x.(*binaryExpr); ok && b.op == "AND" {
		return c.condition(b)
	}
	of := c.expr(x)
	return func(f *frame) bool {
		b, ok := of(f).toBool()
		return b && ok
	}
}

func (c *compiler) call(x *callExpr) eval {
	fn := x.fn
	if fn.external {
		c.prog.external = true
		c.prog.calls = append(c.prog.calls, x.name)
	}
	if n := len(x.args); n < fn.min || n > fn.max {
		return undefined // "wrong number of arguments"
	}
	if fn.compile != nil {
		return fn.compile(c, x.args)
	}
	args := c.list(x.args)
	switch {
	case fn.none != nil:
		return func(f *frame) value {
			f.spend(1)
			return fn.none(f)
		}
	case fn.one != nil:
		a := args[0]
		return func(f *frame) value {
			f.spend(1)
			return fn.one(f, a(f))
		}
	case fn.two != nil:
		a, b := args[0], args[1]
		return func(f *frame) value {
			f.spend(1)
			return fn.two(f, a(f), b(f))
		}
	}
	return func(f *frame) value {
		f.spend(1)
		vals := make([]value, len(args))
		for i, a := range args {
			vals[i] = a(f)
		}
		return fn.many(f, vals)
	}
}

// text is the value of a literal string argument.
func (c *compiler) text(x expr) (s string, ok bool) {
	if l, isLiteral := x.(*literal); isLiteral && l.value.kind == stringKind {
		return l.value.text, true
	}
	return "", false
}
