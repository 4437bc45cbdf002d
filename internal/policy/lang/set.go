package lang

import "strings"

// Named is a document with the name of its policy, which a [Decision] tells.
type Named struct {
	Name     string
	Document *Document
}

// Set is a compiled list of policies. It is immutable and safe for concurrent use.
type Set struct {
	statements []*statement            // Deny first, else in order
	byAction   map[string][]*statement // the same by the actions of the device gateway, spelled as AWS does
	usesTime   bool
	usesThing  bool
}

// statement is a compiled Statement.
type statement struct {
	source      *Statement
	decision    Decision
	actions     []*template
	notAction   bool
	resources   []*template
	notResource bool
	conditions  []*condition
}

// Compile makes the set of the policies that apply to a connection. It takes documents made by [Parse].
func Compile(policies ...Named) *Set {
	s := &Set{byAction: make(map[string][]*statement, len(actions))}
	var allow []*statement
	for _, p := range policies {
		for i := range p.Document.Statements {
			c := compileStatement(&p.Document.Statements[i])
			if c == nil {
				continue
			}
			c.decision.Policy, c.decision.Statement = p.Name, i
			s.usesTime = s.usesTime || c.uses(ofTime)
			s.usesThing = s.usesThing || c.uses(ofThing)
			if c.decision.Effect == ExplicitDeny {
				s.statements = append(s.statements, c)
			} else {
				allow = append(allow, c)
			}
		}
	}
	s.statements = append(s.statements, allow...)
	for _, a := range actions {
		for _, st := range s.statements {
			if st.matchesAction(a.Name) {
				s.byAction[a.Name] = append(s.byAction[a.Name], st)
			}
		}
	}
	return s
}

// compileStatement gives nil for a statement that can't come from Parse.
func compileStatement(in *Statement) *statement {
	out := &statement{source: in, notAction: in.NotAction, notResource: in.NotResource}
	out.decision = Decision{Effect: Allow, Sid: in.Sid}
	if in.Deny {
		out.decision.Effect = ExplicitDeny
	}
	for _, a := range in.Actions {
		t, err := parseTemplate(strings.ToLower(a), true)
		if err != nil || t.variables { // variables have no place in actions
			continue
		}
		out.actions = append(out.actions, t)
	}
	for _, r := range in.Resources {
		t, err := parseTemplate(r, true)
		if err != nil {
			return nil
		}
		out.resources = append(out.resources, t)
	}
	for _, c := range in.Conditions {
		op, ok := parseOperator(c.Operator)
		if !ok {
			return nil
		}
		k, err := compileCondition(op, c)
		if err != nil {
			return nil
		}
		out.conditions = append(out.conditions, k)
	}
	return out
}

func ofTime(v *variable) bool { return v.kind == currentTime || v.kind == epochTime }

func ofThing(v *variable) bool {
	switch v.kind {
	case thingName, thingTypeName, thingAttribute, thingIsAttached:
		return true
	}
	return false
}

// uses tells whether the statement asks for a variable of a kind.
func (st *statement) uses(of func(*variable) bool) bool {
	in := func(t *template) bool {
		for i := range t.parts {
			if t.parts[i].kind == valueOf && of(&t.parts[i].value) {
				return true
			}
		}
		return false
	}
	for _, r := range st.resources {
		if in(r) {
			return true
		}
	}
	for _, c := range st.conditions {
		if of(&c.key) {
			return true
		}
		for i := range c.values {
			if in(c.values[i].template) {
				return true
			}
		}
	}
	return false
}

// UsesTime reports whether a decision may change as time passes, so that it must not be kept.
func (s *Set) UsesTime() bool { return s.usesTime }

// UsesThing reports whether a decision may depend on the connection's Thing: else it need not be known.
func (s *Set) UsesThing() bool { return s.usesThing }

// Evaluate decides whether the connection may do action on resource: an explicit deny wins over every allow, and
// what no statement allows is denied. It does not keep c.
//
//	action    "iot:Publish"; compared without case
//	resource  the full ARN; compared with case
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
func (s *Set) Evaluate(c *Connection, action, resource string) Decision {
	statements, known := s.byAction[action]
	if known {
		for _, st := range statements {
			if st.applies(c, resource) {
				return st.decision
			}
		}
		return Decision{}
	}
	for _, st := range s.statements {
		if st.matchesAction(action) && st.applies(c, resource) {
			return st.decision
		}
	}
	return Decision{}
}

func (st *statement) matchesAction(action string) bool {
	action = strings.ToLower(action)
	other := otherName(action)
	for _, t := range st.actions {
		if t.match(nil, action) == matches || other != "" && t.match(nil, other) == matches {
			return !st.notAction
		}
	}
	return st.notAction
}

// applies tells whether resource and conditions fit. Where a variable has no value, AWS leaves its text in place,
// "which might cause authorization failure": such a template matches nothing, and a statement that allows by what
// it does not match (NotResource, a negated condition) does not apply.
func (st *statement) applies(c *Connection, resource string) bool {
	matched, resolved := false, true
	for _, t := range st.resources {
		switch t.match(c, resource) {
		case matches:
			matched = true
		case unresolved:
			resolved = false
		}
		if matched {
			break
		}
	}
	allows := st.decision.Effect == Allow
	if matched == st.notResource || st.notResource && !resolved && allows {
		return false
	}
	for _, k := range st.conditions {
		ok, resolved := k.holds(c)
		if !ok || !resolved && allows && k.op.negated {
			return false
		}
	}
	return true
}

// For gives the authorizer of a connection whose policies never change: those that a custom authorizer returned, or
// that are built in. It keeps c.
func (s *Set) For(c *Connection) Authorizer { return fixedAuthorizer{s, c} }

type fixedAuthorizer struct {
	set  *Set
	conn *Connection
}

func (a fixedAuthorizer) Authorize(action, resource string) Decision {
	return a.set.Evaluate(a.conn, action, resource)
}
