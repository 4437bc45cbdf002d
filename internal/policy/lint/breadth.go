package lint

import (
	"slices"
	"strings"

	"flotilla/internal/policy/lang"
)

// breadth looks at what an Allow opens.
func (l *linter) breadth(s *statement) {
	for _, r := range s.parsed {
		for _, a := range s.names {
			if a.Resource == "" || a.Name == "iot:Connect" || !r.kindIs(a.Resource) {
				continue
			}
			switch a.Resource {
			case "rolealias":
				if r.open() {
					l.once(anyRoleAlias, s, r.text, "%s is every role alias", r.text)
				}
			case "thing":
				l.thing(s, a, r)
			default:
				l.topic(s, a, r)
			}
		}
	}
}

// thing looks at shadows and jobs over HTTPS.
func (l *linter) thing(s *statement, a lang.Action, r resource) {
	switch {
	case r.open():
		l.once(foreignThing, s, r.text, "%s is allowed for every thing", a.Name)
	case !guarded(r.name) && strings.ContainsAny(firstLevel(r.name), "*?"):
		l.once(foreignThing, s, r.text, "%s is allowed for every thing of the form %s", a.Name, firstLevel(r.name))
	}
}

func firstLevel(name string) string {
	level, _, _ := strings.Cut(name, "/")
	return level
}

// topic looks at a topic or a topic filter.
func (l *linter) topic(s *statement, a lang.Action, r resource) {
	const reserved = "$aws/"
	subscribes := a.Name == "iot:Subscribe"
	name := r.name
	switch {
	case subscribes && (r.open() || name == "#"):
		l.once(subscribeAll, s, r.text, "%s is every topic", r.text)
		return
	case r.open():
		l.once(resourceWildcard, s, r.text, "%s is allowed for everything", a.Name)
		return
	}
	things, isThings := strings.CutPrefix(name, reserved+"things/")
	switch {
	case isThings:
		if other := firstLevel(things); strings.ContainsAny(other, "*?") || subscribes && (other == "+" || other == "#") {
			l.once(foreignThing, s, r.text, "%s is allowed for the shadows and jobs of every thing of the form %s", a.Name, other)
		}
	case a.Name == "iot:Receive" || subscribes:
		if covers(filterPattern(name), reserved+"things/x/shadow/update") {
			l.once(foreignThing, s, r.text, "%s covers $aws/things/..., the shadows and jobs of every thing", a.Name)
		}
	case strings.HasPrefix(name, reserved+"rules/"):
		if firstLevel(strings.TrimPrefix(name, reserved+"rules/")) == "*" {
			l.once(publishReserved, s, r.text, "%s is allowed straight to every rule", a.Name)
		}
	case (a.Name == "iot:Publish" || a.Name == "iot:RetainPublish") && covers(name, reserved+"things/x/shadow/update"):
		l.once(publishReserved, s, r.text, "%s covers the reserved topics of every thing", a.Name)
	}
}

// kinds looks at actions and resources that can't meet.
func (l *linter) kinds(s *statement) {
	if s.NotResource || s.NotAction || len(s.names) == 0 {
		return
	}
	for _, r := range s.parsed {
		if r.all || slices.ContainsFunc(s.names, func(a lang.Action) bool { return a.Resource != "" && r.kindIs(a.Resource) }) {
			continue
		}
		if s.about("iot:Subscribe") && r.kind == "topic" {
			l.report(subscribeOnTopic, s, r.text, "iot:Subscribe is asked about topicfilter/%s", r.name)
			continue
		}
		l.report(resourceKind, s, r.text, "no action of the statement is asked about %s/...", r.kind)
	}
	for _, a := range s.names {
		wild := slices.ContainsFunc(s.Actions, func(p string) bool { return strings.ContainsAny(p, "*?") && actionMatches(p, a) })
		if a.Resource == "" {
			if !slices.ContainsFunc(s.parsed, func(r resource) bool { return r.all }) && !wild {
				l.report(resourceKind, s, a.Name, "%s is asked about the resource *", a.Name)
			}
		} else if !wild && len(s.resources(a.Resource)) == 0 && !l.has(subscribeOnTopic, s) {
			if a.Name == "iot:Subscribe" && slices.ContainsFunc(s.parsed, func(r resource) bool { return r.kind == "topic" }) {
				l.report(subscribeOnTopic, s, a.Name, "no resource of the statement is a topicfilter/..., so it allows no subscription")
				continue
			}
			l.report(resourceKind, s, a.Name, "%s is asked about %s/..., which no resource of the statement is", a.Name, a.Resource)
		}
	}
}

func (l *linter) has(id string, s *statement) bool {
	return slices.ContainsFunc(l.found, func(f Finding) bool { return f.Rule == id && f.Statement == s.index })
}

// wildcards looks at MQTT's wildcards, which are ordinary characters to a policy.
func (l *linter) wildcards(s *statement) {
	for _, text := range s.Resources {
		r := parseResource(text)
		switch {
		case !strings.ContainsAny(r.name, "+#"):
		case r.kind == "topic":
			l.report(mqttWildcard, s, text, "no topic name has + or # in it, so this matches nothing")
		case r.kind == "topicfilter" && s.Deny:
			l.report(denyFilter, s, text, "only the filter %s itself is denied; others that select the same topics are not", r.name)
		}
	}
}

// variables looks at names that have no value.
func (l *linter) variables(s *statement) {
	for _, name := range s.Variables() {
		lower := strings.ToLower(name)
		switch {
		case !lang.KnownVariable(name):
			l.report(unknownVariable, s, name, "%s has no value on any connection", name)
		case len(s.names) == 0 || slices.ContainsFunc(s.names, func(a lang.Action) bool { return !a.HTTP }):
		case strings.HasPrefix(lower, "iot:connection.thing.") || lower == "iot:clientid" || lower == "iot:connectattributes":
			l.report(variableHTTP, s, name, "%s has no value for %s, which is asked for HTTPS requests", name, s.names[0].Name)
		}
	}
	for _, k := range s.Conditions {
		if strings.EqualFold(k.Key, "iot:ConnectAttributes") && len(s.names) > 0 && !s.about("iot:Connect") {
			l.report(unknownVariable, s, k.Key, "iot:ConnectAttributes is a key of iot:Connect")
		}
	}
}
