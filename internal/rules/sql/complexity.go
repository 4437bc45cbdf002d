package sql

// Complexity counts what makes a statement slow to run or hard to read.
type Complexity struct {
	// Conditions are the comparisons and other leaves that AND, OR and NOT join in WHERE.
	Conditions int
	// Expressions are what a reader has to understand one by one: each column, SET variable and condition, and beyond
	// the first one of it each operator, function call, CASE, CAST and nested query. AND, OR and NOT, names and literals
	// are none: SELECT a, b + 1, c * 9 / 5 + 32 has 5.
	Expressions int
	// CaseDepth is how deep CASE expressions nest.
	CaseDepth int
	// NestedQueries are the SELECT expressions inside the statement.
	NestedQueries int
	// ExternalCalls are the calls of functions that read other systems.
	ExternalCalls int
}

// Complexity measures the statement.
func (s *Statement) Complexity() Complexity { return s.complexity }

func measure(set []setVar, q *query) Complexity {
	var c Complexity
	for _, sv := range set {
		c.whole(sv.x, 0)
	}
	c.query(q, 0)
	c.Conditions = conditions(q.where)
	return c
}

func conditions(x expr) int {
	switch x := x.(type) {
	case nil:
		return 0
	case *binaryExpr:
		if x.op == "AND" || x.op == "OR" {
			return conditions(x.l) + conditions(x.r)
		}
	case *unaryExpr:
		if x.op == "NOT" {
			return conditions(x.x)
		}
	}
	return 1
}

func (c *Complexity) query(q *query, cases int) {
	for i := range q.columns {
		c.whole(q.columns[i].x, cases)
	}
	if q.from != nil {
		c.walk(q.from, cases)
	}
	c.where(q.where, cases)
}

// where counts the conditions that AND, OR and NOT join.
func (c *Complexity) where(x expr, cases int) {
	switch x := x.(type) {
	case nil:
		return
	case *binaryExpr:
		if x.op == "AND" || x.op == "OR" {
			c.where(x.l, cases)
			c.where(x.r, cases)
			return
		}
	case *unaryExpr:
		if x.op == "NOT" {
			c.where(x.x, cases)
			return
		}
	}
	c.whole(x, cases)
}

// whole counts a column, a variable or a condition: one, or the operations in it when they are more.
func (c *Complexity) whole(x expr, cases int) {
	before := c.Expressions
	c.walk(x, cases)
	c.Expressions = max(c.Expressions, before+1)
}

func (c *Complexity) walk(x expr, cases int) {
	if x == nil {
		return
	}
	switch x.(type) {
	case *unaryExpr, *binaryExpr, *callExpr, *castExpr, *caseExpr, *queryExpr:
		c.Expressions++
	}
	switch x := x.(type) {
	case *memberExpr:
		c.walk(x.of, cases)
	case *indexExpr:
		c.walk(x.of, cases)
		c.walk(x.index, cases)
	case *unaryExpr:
		c.walk(x.x, cases)
	case *binaryExpr:
		c.walk(x.l, cases)
		c.walk(x.r, cases)
	case *callExpr:
		scheme := ""
		if x.name == "decode" && len(x.args) > 1 {
			if l, ok := x.args[1].(*literal); ok {
				scheme = l.value.text
			}
		}
		if x.fn.external || scheme == "proto" {
			c.ExternalCalls++
		}
		for _, arg := range x.args {
			c.walk(arg, cases)
		}
	case *castExpr:
		c.walk(x.x, cases)
	case *caseExpr:
		cases++
		c.CaseDepth = max(c.CaseDepth, cases)
		c.walk(x.of, cases)
		for _, w := range x.when {
			c.walk(w.is, cases)
			c.walk(w.then, cases)
		}
		c.walk(x.without, cases)
	case *arrayExpr:
		for _, item := range x.items {
			c.walk(item, cases)
		}
	case *objectExpr:
		for _, val := range x.vals {
			c.walk(val, cases)
		}
	case *queryExpr:
		c.NestedQueries++
		c.query(x.query, cases)
	}
}
