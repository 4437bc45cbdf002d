package lang

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Explanation is a [Decision] with what led to it.
type Explanation struct {
	Decision Decision
	// Considered are the statements about the action, those that deny first. After the deciding one none was asked.
	Considered []Considered
	// Variables are the policy variables and condition keys that those statements name, in order of name.
	Variables []Resolved
	// Needed is the JSON of a statement that would allow the action, for an implicit deny; "" otherwise.
	Needed string
	// Hint says in a sentence what to do or to look at; "" for what is allowed.
	Hint string
}

// Considered is a statement that is about an action, and what came of it.
type Considered struct {
	Policy    string
	Statement int // index in its document, from 0
	Sid       string
	Deny      bool
	Applies   bool
	Reason    string // why it does not apply; "" when it does
}

// Resolved is a policy variable with the values that it had.
type Resolved struct {
	Name   string   // as the policy spells it, "iot:ClientId"
	Values []string // nil when it has none
}

// Explain decides as [Set.Evaluate] does and says why. It takes its time: it is for people, not for packets.
func (s *Set) Explain(c *Connection, action, resource string) Explanation {
	e := Explanation{Decision: s.Evaluate(c, action, resource)}
	names := map[string]bool{}
	for _, st := range s.statements {
		if !st.matchesAction(action) {
			continue
		}
		applies := st.applies(c, resource)
		con := Considered{
			Policy: st.decision.Policy, Statement: st.decision.Statement, Sid: st.decision.Sid,
			Deny: st.source.Deny, Applies: applies,
		}
		if !applies {
			con.Reason = st.reason(c, resource)
		}
		e.Considered = append(e.Considered, con)
		st.source.variables(names)
		if applies {
			break
		}
	}
	for name := range names {
		v := variableOf(name)
		e.Variables = append(e.Variables, Resolved{Name: name, Values: v.texts(c, nil)})
	}
	slices.SortFunc(e.Variables, func(a, b Resolved) int { return strings.Compare(a.Name, b.Name) })
	e.advise(c, action, resource)
	return e
}

// advise fills in Needed and Hint.
func (e *Explanation) advise(c *Connection, action, resource string) {
	switch e.Decision.Effect {
	case Allow:
		return
	case ExplicitDeny:
		e.Hint = fmt.Sprintf("Statement %d of policy %s denies it, and no Allow overrides a Deny: narrow that statement.",
			e.Decision.Statement+1, e.Decision.Policy)
		return
	}
	e.Needed = needed(c, action, resource)
	if a, ok := ActionNamed(action); !ok {
		e.Hint = action + " is no action that devices are asked for."
	} else if kind, _, is := cutResource(resource); is && a.Resource != "" && kind != a.Resource {
		e.Hint = fmt.Sprintf("%s is asked about %s/..., not about %s/...", a.Name, a.Resource, kind)
	} else if len(e.Considered) == 0 {
		e.Hint = "No statement is about " + action + "."
	} else {
		e.Hint = "No statement about " + action + " applies."
	}
}

// reason says in words why the statement does not apply.
func (st *statement) reason(c *Connection, resource string) string {
	src := st.source
	if src.NotResource {
		for i, t := range st.resources {
			switch t.match(c, resource) {
			case matches:
				return "NotResource " + src.Resources[i] + " is the resource"
			case unresolved:
				if !src.Deny {
					return "NotResource " + src.Resources[i] + " has a variable without a value"
				}
			}
		}
	} else if why := st.missed(c, resource); why != "" {
		return why
	}
	for i, k := range st.conditions {
		ok, resolved := k.holds(c)
		if ok && (resolved || src.Deny || !k.op.negated) {
			continue
		}
		cond := src.Conditions[i]
		have := k.key.texts(c, nil)
		was := "has no value"
		if len(have) > 0 {
			was = "is " + quoted(have)
		}
		return fmt.Sprintf("condition %s of %s does not hold: %s %s, the policy says %s", cond.Operator, cond.Key, cond.Key, was, quoted(cond.Values))
	}
	return ""
}

// missed says which resources there are, when none of them matches.
func (st *statement) missed(c *Connection, resource string) string {
	for _, t := range st.resources {
		if t.match(c, resource) == matches {
			return ""
		}
	}
	list := make([]string, len(st.resources))
	for i, t := range st.resources {
		list[i] = st.source.Resources[i]
		if t.variables {
			if to, ok := t.resolve(c, nil); ok {
				list[i] += " (here " + written(to) + ")"
			} else {
				list[i] += " (a variable has no value)"
			}
		}
	}
	kind, name, ok := cutResource(resource)
	for i, t := range st.resources {
		other, _, is := cutResource(st.source.Resources[i])
		if ok && is && other != kind && strings.HasPrefix(other, "topic") && strings.HasPrefix(kind, "topic") &&
			t.match(c, strings.TrimSuffix(resource, kind+"/"+name)+other+"/"+name) == matches {
			return fmt.Sprintf("resource %s is of the kind %s, asked was %s", st.source.Resources[i], other, kind)
		}
	}
	return "no resource matches: " + strings.Join(list, ", ")
}

// written gives resolved parts as text.
func written(parts []part) string {
	var b strings.Builder
	for _, p := range parts {
		switch p.kind {
		case anyText:
			b.WriteByte('*')
		case anyOne:
			b.WriteByte('?')
		default:
			b.WriteString(p.text)
		}
	}
	return b.String()
}

func quoted(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(q, " or ")
}

// Variables lists the names between ${ and } in resources and condition values, and the condition keys, each once
// and in order.
func (s *Statement) Variables() []string {
	names := map[string]bool{}
	s.variables(names)
	list := make([]string, 0, len(names))
	for n := range names {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

func (s *Statement) variables(names map[string]bool) {
	for _, r := range s.Resources {
		TextVariables(r, names)
	}
	for _, k := range s.Conditions {
		names[k.Key] = true
		for _, v := range k.Values {
			TextVariables(v, names)
		}
	}
}

// TextVariables adds the names of the policy variables in a text.
func TextVariables(text string, names map[string]bool) {
	for {
		_, rest, ok := strings.Cut(text, "${")
		if !ok {
			return
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			return
		}
		if len(name) != 1 || strings.IndexByte("*?$", name[0]) < 0 {
			name, _, _ = strings.Cut(name, ",")
			names[strings.TrimSpace(name)] = true
		}
		text = after
	}
}

// KnownVariable reports whether a name is that of a policy variable or condition key, whatever its value.
func KnownVariable(name string) bool {
	v := variableOf(name)
	return v.kind != unknownVariable && v.kind != lookedUp
}

// cutResource gives kind and name of an ARN's resource: "topic" and "a/b" of "arn:aws:iot:r:1:topic/a/b".
func cutResource(arn string) (kind, name string, ok bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return "", "", false
	}
	return strings.Cut(parts[5], "/")
}

// needed writes the narrowest statement of which the connection's policies could be made: where the name of the thing
// or the client id is a level of its own, a variable stands for it.
func needed(c *Connection, action, resource string) string {
	condition := map[string]map[string]string(nil)
	if kind, name, ok := cutResource(resource); ok {
		variable := ""
		switch {
		case c.thing() != nil && c.ClientID == c.Thing.Name:
			variable = "${iot:Connection.Thing.ThingName}"
		case kind != "client" && c.ClientID != "" && !c.overHTTP():
			variable = "${iot:ClientId}"
		}
		levels := strings.Split(name, "/")
		for i, l := range levels {
			if variable != "" && l == c.ClientID {
				levels[i] = variable
			} else {
				levels[i] = escape(l)
			}
		}
		if kind == "client" && variable != "" {
			condition = map[string]map[string]string{"Bool": {"iot:Connection.Thing.IsAttached": "true"}}
		}
		resource = strings.TrimSuffix(resource, kind+"/"+name) + kind + "/" + strings.Join(levels, "/")
	} else if resource != "*" {
		resource = escape(resource)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(struct {
		Effect, Action, Resource string
		Condition                map[string]map[string]string `json:",omitempty"`
	}{"Allow", action, resource, condition}); err != nil {
		return ""
	}
	return strings.TrimSpace(b.String())
}

// escape makes a text match itself alone.
func escape(text string) string {
	return strings.NewReplacer("*", "${*}", "?", "${?}", "${", "${$}{", "$(", "${$}(").Replace(text)
}
