package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/policy/lang"
)

// Document checks a policy document, as [lang.Parse] gives it. Findings come by severity, the worst first, then in the
// order of the statements. One document is looked at alone: what another policy of the same device adds is not known.
func Document(d *lang.Document) []Finding {
	l := &linter{}
	for i := range d.Statements {
		l.statements = append(l.statements, newStatement(i, &d.Statements[i]))
	}
	for _, s := range l.statements {
		l.actions(s)
		l.variables(s)
		if !s.Deny {
			l.negations(s)
			l.breadth(s)
			l.connect(s)
		}
		l.kinds(s)
		l.wildcards(s)
	}
	l.clientID()
	l.pairs()
	l.dead()
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.Statement, b.Statement))
	})
	return l.found
}

type linter struct {
	statements []*statement
	found      []Finding
}

// statement is a statement with its actions and resources worked out.
type statement struct {
	*lang.Statement
	index     int
	names     []lang.Action // the device actions that it is about
	parsed    []resource    // of Resource; empty for NotResource
	bound     bool          // its conditions hold for an attached thing alone
	condition bool          // it has conditions
}

func newStatement(i int, in *lang.Statement) *statement {
	s := &statement{Statement: in, index: i, condition: len(in.Conditions) > 0}
	for _, a := range lang.Actions() {
		if slices.ContainsFunc(in.Actions, func(p string) bool { return actionMatches(p, a) }) != in.NotAction {
			s.names = append(s.names, a)
		}
	}
	if !in.NotResource {
		for _, r := range in.Resources {
			s.parsed = append(s.parsed, parseResource(r))
		}
	}
	for _, k := range in.Conditions {
		s.bound = s.bound || binds(k)
	}
	return s
}

// actionMatches tells whether an action pattern is about an action, under either of its names.
func actionMatches(pattern string, a lang.Action) bool {
	pattern = strings.ToLower(pattern)
	name := strings.ToLower(a.Name)
	if covers(pattern, name) {
		return true
	}
	jobs := "iotjobsdata:" + strings.TrimPrefix(name, "iot:")
	b, ok := lang.ActionNamed(jobs)
	return ok && b.Name == a.Name && covers(pattern, jobs)
}

// binds tells whether a condition ties the client id to the certificate: to a thing attached to it, or to a name in it.
func binds(k lang.Condition) bool {
	key := strings.ToLower(k.Key)
	op := strings.TrimPrefix(strings.TrimPrefix(k.Operator, "ForAnyValue:"), "ForAllValues:")
	if strings.HasSuffix(op, "IfExists") || strings.Contains(op, "Not") {
		return false
	}
	switch {
	case key == "iot:connection.thing.isattached":
		return (op == "Bool" || strings.HasPrefix(op, "StringEquals")) && len(k.Values) == 1 && strings.EqualFold(k.Values[0], "true")
	case strings.HasPrefix(key, "iot:connection.thing."):
		return op != "Null" // these have a value for an attached thing alone
	case !strings.HasPrefix(op, "String") || len(k.Values) == 0:
	case key == "iot:clientid":
		return !slices.ContainsFunc(k.Values, func(v string) bool { return !ownName(v) })
	case strings.HasPrefix(key, "iot:certificate"):
		return !slices.ContainsFunc(k.Values, func(v string) bool { return !hasClientID(v) })
	}
	return false
}

// ownName tells whether a text holds a variable that the connection can't choose: of its thing, or of its certificate.
func ownName(text string) bool {
	names := map[string]bool{}
	lang.TextVariables(text, names)
	for n := range names {
		n = strings.ToLower(n)
		if strings.HasPrefix(n, "iot:connection.thing.") || strings.HasPrefix(n, "iot:certificate") {
			return true
		}
	}
	return false
}

// guarded tells whether a name has a variable of the connection in it.
func guarded(name string) bool { return ownName(name) || hasClientID(name) }

func hasClientID(name string) bool {
	return strings.Contains(strings.ToLower(name), "${iot:clientid}")
}

func (s *statement) about(name string) bool {
	return slices.ContainsFunc(s.names, func(a lang.Action) bool { return a.Name == name })
}

// resources gives the resources that an action may be asked about.
func (s *statement) resources(kind string) (list []resource) {
	for _, r := range s.parsed {
		if r.kindIs(kind) {
			list = append(list, r)
		}
	}
	return list
}

// report adds a finding; s is nil for the document as a whole.
func (l *linter) report(id string, s *statement, where, reason string, args ...any) {
	r := ruleOf(id)
	f := Finding{Rule: id, Severity: r.Severity, Statement: -1, Resource: where, Reason: fmt.Sprintf(reason, args...), Fix: r.Fix}
	if s != nil {
		f.Statement, f.Sid = s.index, s.Sid
	}
	l.found = append(l.found, f)
}

// once adds a finding unless the statement has one of that rule.
func (l *linter) once(id string, s *statement, where, reason string, args ...any) {
	if !slices.ContainsFunc(l.found, func(f Finding) bool { return f.Rule == id && s != nil && f.Statement == s.index }) {
		l.report(id, s, where, reason, args...)
	}
}

func (l *linter) actions(s *statement) {
	for _, a := range s.Actions {
		lower := strings.ToLower(a)
		if !s.Deny && !s.NotAction && (a == "*" || lower == "iot:*") {
			l.report(actionWildcard, s, a, "%s allows every action", a)
		}
		ours := strings.HasPrefix(lower, "iot:") || strings.HasPrefix(lower, "iotjobsdata:")
		if ours && !slices.ContainsFunc(lang.Actions(), func(d lang.Action) bool { return actionMatches(a, d) }) {
			l.report(unknownAction, s, a, "no device is asked for %s", a)
		}
	}
}

func (l *linter) negations(s *statement) {
	if s.NotAction {
		l.report(notAction, s, strings.Join(s.Actions, ", "), "everything but %s is allowed", strings.Join(s.Actions, ", "))
	}
	if s.NotResource {
		l.report(notResource, s, strings.Join(s.Resources, ", "), "everything but %s is allowed", strings.Join(s.Resources, ", "))
	}
}

// connect looks at which client ids may be taken. Two connections of one client id end each other.
func (l *linter) connect(s *statement) {
	if !s.about("iot:Connect") || s.NotResource {
		return
	}
	for _, r := range s.resources("client") {
		switch {
		case s.bound:
		case r.open() || strings.Trim(strings.ToLower(r.name), "*") == "${iot:clientid}":
			l.once(connectAny, s, r.text, "%s is any client id", r.text)
		case ownName(r.name):
			if strings.Contains(strings.ToLower(r.name), "${iot:connection.thing.") {
				l.once(connectUnattached, s, r.text, "the condition iot:Connection.Thing.IsAttached is not there")
			}
		case strings.ContainsAny(r.name, "*?") || hasClientID(r.name):
			l.once(connectUnbound, s, r.text, "whoever has this policy may take any client id of the form %s", r.name)
		}
	}
}

// clientID looks at topics that are guarded by an id that the client is free to choose.
func (l *linter) clientID() {
	var open *statement
	for _, s := range l.statements {
		if s.Deny || !s.about("iot:Connect") || s.bound {
			continue
		}
		if s.NotResource {
			open = s
		}
		for _, r := range s.resources("client") {
			if r.open() || hasClientID(r.name) {
				open = s
			}
		}
	}
	if open == nil {
		return
	}
	for _, s := range l.statements {
		for _, r := range s.parsed {
			if !s.Deny && r.kind != "client" && hasClientID(r.name) && !ownName(r.name) {
				l.once(unboundClientID, s, r.text, "statement %d lets the client choose its id, so this matches the names of others", open.index+1)
			}
		}
	}
}
