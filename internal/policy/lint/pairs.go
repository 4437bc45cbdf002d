package lint

import (
	"slices"
	"strings"

	"flotilla/internal/policy/lang"
)

// allowed gives the resources that Allow statements open for an action.
func (l *linter) allowed(action, kind string) (list []resource, by []*statement) {
	for _, s := range l.statements {
		if s.Deny || !s.about(action) {
			continue
		}
		if s.NotResource {
			list, by = append(list, resource{text: "NotResource", all: true}), append(by, s)
		}
		for _, r := range s.resources(kind) {
			list, by = append(list, r), append(by, s)
		}
	}
	return list, by
}

// pairs looks at actions that need each other.
func (l *linter) pairs() {
	subscribe, subscribers := l.allowed("iot:Subscribe", "topicfilter")
	receive, receivers := l.allowed("iot:Receive", "topic")
	if len(subscribe) > 0 && len(receive) == 0 {
		l.report(receiveMissing, subscribers[0], "iot:Receive", "subscriptions are allowed, but no message of them is")
	}
	if len(subscribe) > 0 {
		for i, r := range receive {
			if !slices.ContainsFunc(subscribe, func(f resource) bool { return f.all || !r.all && covers(filterPattern(f.name), r.name) }) {
				l.once(receiveWider, receivers[i], r.text, "no topic filter that may be subscribed to has all of %s", r.text)
			}
		}
	}
	retain, retainers := l.allowed("iot:RetainPublish", "topic")
	publish, _ := l.allowed("iot:Publish", "topic")
	for i, r := range retain {
		if !slices.ContainsFunc(publish, func(p resource) bool { return p.all || !r.all && covers(p.name, r.name) }) {
			l.once(publishMissing, retainers[i], r.text, "iot:Publish is not allowed for all of %s", r.text)
		}
	}
	l.evaded(subscribe)
}

// evaded looks for a Deny of a subscription beside an Allow with wildcards: a wider filter gets the same messages.
func (l *linter) evaded(subscribe []resource) {
	wide := slices.ContainsFunc(subscribe, func(f resource) bool { return f.all || strings.Contains(f.name, "*") })
	if !wide {
		return
	}
	for _, s := range l.statements {
		if !s.Deny || !s.about("iot:Subscribe") || s.condition || s.NotResource {
			continue
		}
		for _, r := range s.resources("topicfilter") {
			if r.all || r.open() || l.receiveDenied(r) {
				continue
			}
			l.once(denyEvaded, s, r.text, "a filter that is wider, as with + or # in an earlier level, is allowed and gets the same messages")
		}
	}
}

func (l *linter) receiveDenied(filter resource) bool {
	for _, s := range l.statements {
		if !s.Deny || !s.about("iot:Receive") || s.condition {
			continue
		}
		for _, r := range s.resources("topic") {
			if r.all || covers(r.name, filterPattern(filter.name)) {
				return true
			}
		}
	}
	return false
}

// dead looks for statements that never decide: what they are about is denied, or allowed by another one.
func (l *linter) dead() {
	for _, s := range l.statements {
		if len(s.parsed) == 0 || s.NotAction {
			continue
		}
		if k := contradiction(s); k != "" {
			l.report(deadStatement, s, k, "no request meets the conditions about %s", k)
			continue
		}
		for _, o := range l.statements {
			if o == s || o.condition && !sameConditions(o, s) || len(o.parsed) == 0 || o.NotAction || !contains(o, s) {
				continue
			}
			same := contains(s, o) && sameConditions(o, s)
			switch {
			case o.Deny && !s.Deny:
				l.once(deadStatement, s, "", "statement %d denies all that this one allows", o.index+1)
			case o.Deny == s.Deny && (!same || o.index < s.index):
				l.once(redundant, s, "", "statement %d contains it", o.index+1)
			}
		}
	}
}

// contains tells whether o is about every action and resource of s.
func contains(o, s *statement) bool {
	for _, a := range s.Actions {
		if !slices.ContainsFunc(o.Actions, func(p string) bool { return covers(strings.ToLower(p), strings.ToLower(a)) }) {
			return false
		}
	}
	for _, r := range s.Resources {
		if !slices.ContainsFunc(o.Resources, func(p string) bool { return covers(p, r) }) {
			return false
		}
	}
	return true
}

func sameConditions(a, b *statement) bool {
	return slices.EqualFunc(a.Conditions, b.Conditions, func(x, y lang.Condition) bool {
		return x.Operator == y.Operator && strings.EqualFold(x.Key, y.Key) && slices.Equal(x.Values, y.Values)
	})
}

// contradiction names a key whose condition never holds: it has nothing to match, or never a value.
func contradiction(s *statement) string {
	for _, k := range s.Conditions {
		if strings.HasPrefix(k.Operator, "ForAll") || strings.HasSuffix(k.Operator, "IfExists") || strings.Contains(k.Operator, "Not") {
			continue
		}
		if len(k.Values) == 0 || !lang.KnownVariable(k.Key) && k.Operator != "Null" {
			return k.Key
		}
	}
	return ""
}
