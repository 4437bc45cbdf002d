package lang_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"flotilla/internal/policy/lang"
)

// naiveKeys lists every key of a connection with its values: the pages about policy variables, written down.
// Keys are in lower case, but for the names of thing attributes.
func naiveKeys(c *lang.Connection) map[string][]string {
	keys := map[string][]string{}
	put := func(key string, values ...string) {
		for _, v := range values {
			if v != "" {
				keys[key] = append(keys[key], v)
			}
		}
	}
	http := strings.HasPrefix(c.Protocol, "http")
	put("aws:sourceip", c.SourceIP)
	put("iot:clientid", c.ClientID)
	put("iot:domainname", c.DomainName)
	put("iot:connectattributes", c.ConnectAttributes...)
	if !c.Time.IsZero() {
		put("aws:currenttime", c.Time.UTC().Format("2006-01-02T15:04:05Z"))
		put("aws:epochtime", strconv.FormatInt(c.Time.Unix(), 10))
	}
	if t := c.Thing; t != nil && t.Attached && !http && (t.Exclusive || t.Name == c.ClientID) {
		put("iot:connection.thing.thingname", t.Name)
		put("iot:connection.thing.thingtypename", t.TypeName)
		put("iot:connection.thing.isattached", "true")
		for k, v := range t.Attributes {
			put("iot:connection.thing.attributes["+k+"]", v)
		}
	} else if !http {
		put("iot:connection.thing.isattached", "false")
	}
	if x := c.Certificate; x != nil {
		put("iot:certificateid", x.ID)
		put("iot:certificate.serialnumber", x.SerialNumber)
		for prefix, names := range map[string]map[string][]string{"subject.": x.Subject, "issuer.": x.Issuer, "subject.alternativename.": x.SubjectAlternativeName, "issuer.alternativename.": x.IssuerAlternativeName} {
			for name, values := range names {
				base := "iot:certificate." + prefix + strings.ToLower(name)
				for i, v := range values[:min(5, len(values))] {
					if v == "" || strings.ContainsAny(v, "*$+?#") || len([]rune(v)) > 1024 {
						continue
					}
					if !strings.Contains(prefix, "alternative") {
						for _, special := range []string{`\`, `"`, ",", "+", "=", "<", ">", ";"} {
							v = strings.ReplaceAll(v, special, `\`+special)
						}
					}
					put(base+"."+strconv.Itoa(i), v)
					put(base+".list", v)
					if i == 0 {
						put(base, v)
					}
				}
			}
		}
	}
	return keys
}

func naiveKey(key string) string {
	lower := strings.ToLower(key)
	if i := strings.IndexByte(key, '['); i >= 0 && strings.HasPrefix(lower, "iot:connection.thing.attributes[") {
		return lower[:i] + key[i:]
	}
	return lower
}

// Runes that stand for wildcards in a pattern, so that the same characters in values stay themselves.
const (
	star  = '\U000F0001'
	query = '\U000F0002'
)

// naiveText replaces variables; ok is false when one has no value.
func naiveText(text string, wildcards bool, keys map[string][]string) (pattern []rune, ok bool) {
	for text != "" {
		if len(text) >= 4 && (text[:2] == "${" && text[3] == '}' || text[:2] == "$(" && text[3] == ')') && strings.Contains("*?$", text[2:3]) {
			pattern, text = append(pattern, rune(text[2])), text[4:]
			continue
		}
		if strings.HasPrefix(text, "${") {
			name, rest, _ := strings.Cut(text[2:], "}")
			key, deflt, has := strings.Cut(name, ",")
			values := keys[naiveKey(strings.TrimSpace(key))]
			multi := strings.HasSuffix(strings.ToLower(strings.TrimSpace(key)), ".list") || naiveKey(key) == "iot:connectattributes"
			switch {
			case len(values) > 0 && !multi:
				pattern = append(pattern, []rune(values[0])...)
			case has:
				pattern = append(pattern, []rune(strings.Trim(strings.TrimSpace(deflt), "'"))...)
			default:
				return nil, false
			}
			text = rest
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch {
		case wildcards && r == '*':
			r = star
		case wildcards && r == '?':
			r = query
		}
		pattern = append(pattern, r)
	}
	return pattern, true
}

func naiveGlob(p, s []rune) bool {
	switch {
	case len(p) == 0:
		return len(s) == 0
	case p[0] == star:
		return naiveGlob(p[1:], s) || len(s) > 0 && naiveGlob(p, s[1:])
	default:
		return len(s) > 0 && (p[0] == query || p[0] == s[0]) && naiveGlob(p[1:], s[1:])
	}
}

// naiveCompare compares one value of the request with one of the policy. resolved is false without a value to compare with.
func naiveCompare(op, have, want string, keys map[string][]string) (match, resolved bool) {
	pattern, ok := naiveText(want, strings.HasSuffix(op, "Like"), keys)
	if !ok {
		return false, false
	}
	text := string(pattern)
	ordered := func(c int) bool {
		switch {
		case strings.HasSuffix(op, "LessThanEquals"):
			return c <= 0
		case strings.HasSuffix(op, "GreaterThanEquals"):
			return c >= 0
		case strings.HasSuffix(op, "LessThan"):
			return c < 0
		case strings.HasSuffix(op, "GreaterThan"):
			return c > 0
		}
		return c == 0
	}
	switch {
	case strings.HasSuffix(op, "IgnoreCase"), op == "Bool":
		return strings.EqualFold(have, text), true
	case op == "StringLike":
		return naiveGlob(pattern, []rune(have)), true
	case strings.HasPrefix(op, "String"):
		return have == text, true
	case strings.HasPrefix(op, "Numeric"):
		h, ok1 := new(big.Rat).SetString(have)
		w, ok2 := new(big.Rat).SetString(text)
		return ok1 && ok2 && ordered(h.Cmp(w)), true
	case strings.HasPrefix(op, "Date"):
		at := func(s string) (time.Time, bool) {
			if n, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) > 4 {
				return time.Unix(n, 0), true
			}
			t, err := time.Parse(time.RFC3339, s)
			return t, err == nil
		}
		h, ok1 := at(have)
		w, ok2 := at(text)
		return ok1 && ok2 && ordered(h.Compare(w)), true
	case op == "IpAddress":
		if !strings.Contains(text, "/") {
			text += "/32"
		}
		p, err1 := netip.ParsePrefix(text)
		a, err2 := netip.ParseAddr(have)
		return err1 == nil && err2 == nil && p.Contains(a), true
	}
	panic("operator " + op)
}

// naiveHolds is the table of the page on condition logic.
func naiveHolds(k lang.Condition, keys map[string][]string) (ok, resolved bool) {
	op, set := k.Operator, ""
	if s, rest, has := strings.Cut(op, ":"); has {
		set, op = s, rest
	}
	have := keys[naiveKey(k.Key)]
	if op == "Null" {
		for _, v := range k.Values {
			if (v == "true") == (len(have) == 0) {
				return true, true
			}
		}
		return false, true
	}
	op, ifExists := strings.CutSuffix(op, "IfExists")
	positive := strings.Replace(op, "Not", "", 1)
	negated := positive != op
	if len(have) == 0 {
		return ifExists || set == "ForAllValues" || negated && set == "", true
	}
	resolved = true
	good := 0
	for _, h := range have {
		hit := false
		for _, w := range k.Values {
			m, r := naiveCompare(positive, h, w, keys)
			if hit = hit || m; hit {
				break
			}
			resolved = resolved && r
		}
		if hit != negated {
			good++
		}
	}
	if set == "ForAllValues" || set == "" && negated {
		return good == len(have), resolved
	}
	return good > 0, resolved
}

// naiveEvaluate is the language, statement by statement, with nothing prepared.
func naiveEvaluate(policies []*lang.Document, c *lang.Connection, action, resource string) lang.Effect {
	keys := naiveKeys(c)
	result := lang.ImplicitDeny
	for _, d := range policies {
		for _, s := range d.Statements {
			about := false
			for _, a := range s.Actions {
				p, _ := naiveText(strings.ToLower(a), true, nil)
				about = about || naiveGlob(p, []rune(strings.ToLower(action)))
			}
			if about == s.NotAction {
				continue
			}
			matched, resolved := false, true
			for _, r := range s.Resources {
				p, ok := naiveText(r, true, keys)
				matched = matched || ok && naiveGlob(p, []rune(resource))
				resolved = resolved && (ok || matched)
			}
			if matched == s.NotResource || s.NotResource && !resolved && !s.Deny {
				continue
			}
			all := true
			for _, k := range s.Conditions {
				ok, resolved := naiveHolds(k, keys)
				negated := strings.Contains(k.Operator, "Not")
				all = all && ok && (resolved || s.Deny || !negated)
			}
			switch {
			case !all:
			case s.Deny:
				return lang.ExplicitDeny
			default:
				result = lang.Allow
			}
		}
	}
	return result
}

func generate(t *rapid.T) (documents []string, c *lang.Connection, action, resource string) {
	pick := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
	variable := func() string {
		return pick("variable", "iot:ClientId", "iot:clientid", "aws:SourceIp", "iot:DomainName", "iot:Connection.Thing.ThingName", "iot:Connection.Thing.ThingTypeName",
			"iot:Connection.Thing.Attributes[site]", "iot:Connection.Thing.Attributes[Site]", "iot:Connection.Thing.Attributes[none]", "iot:Connection.Thing.IsAttached",
			"iot:CertificateId", "iot:Certificate.SerialNumber", "iot:Certificate.Subject.CommonName", "iot:Certificate.Subject.Country.1", "iot:Certificate.Subject.Country.List",
			"iot:Certificate.Subject.Country.7", "iot:Certificate.Issuer.Organization", "iot:Certificate.Subject.AlternativeName.DNSName", "aws:EpochTime", "aws:CurrentTime", "iot:ConnectAttributes", "iot:Nope")
	}
	text := func() string {
		var b strings.Builder
		for range rapid.IntRange(0, 4).Draw(t, "parts") {
			switch rapid.IntRange(0, 6).Draw(t, "part") {
			case 0:
				b.WriteString("${" + variable() + "}")
			case 1:
				b.WriteString("${" + variable() + ", 'a'}")
			case 2:
				b.WriteString(pick("escape", "${*}", "${?}", "${$}", "$(*)", "$"))
			default:
				b.WriteString(pick("text", "*", "?", "a", "b", "/", "dev-1", "berlin", "ü", "a*", "+", "#"))
			}
		}
		return b.String()
	}
	resourceText := func() string {
		return pick("kind", "*", arn+"topic/"+text(), arn+"topic/"+text(), arn+"topic/"+text(), arn+"topicfilter/"+text())
	}
	condition := func() map[string]any {
		out := map[string]any{}
		for range rapid.IntRange(0, 2).Draw(t, "conditions") {
			op := pick("operator", "StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike", "StringNotLike",
				"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals",
				"DateEquals", "DateLessThan", "DateGreaterThanEquals", "Bool", "IpAddress", "NotIpAddress", "Null")
			value := text
			switch {
			case strings.HasPrefix(op, "Numeric"):
				value = func() string { return pick("number", "5", "5.0", "-1", "1e3", "1772600767") }
			case strings.HasPrefix(op, "Date"):
				value = func() string { return pick("date", "2026-03-04T05:06:07Z", "2020-01-01T00:00:00Z", "1772600767") }
			case op == "Bool", op == "Null":
				value = func() string { return pick("bool", "true", "false") }
			case strings.HasSuffix(op, "IpAddress"):
				value = func() string { return pick("address", "203.0.113.0/24", "203.0.113.10", "10.0.0.0/8") }
			}
			if op != "Null" {
				op = pick("set", "", "", "ForAllValues:", "ForAnyValue:") + op + pick("ifExists", "", "", "IfExists")
			}
			values := []string{}
			for range rapid.IntRange(0, 3).Draw(t, "values") {
				values = append(values, value())
			}
			out[op] = map[string]any{variable(): values}
		}
		return out
	}
	for range rapid.IntRange(1, 2).Draw(t, "policies") {
		var statements []map[string]any
		for range rapid.IntRange(0, 4).Draw(t, "statements") {
			st := map[string]any{
				"Effect": pick("effect", "Allow", "Allow", "Deny"),
				pick("action", "Action", "Action", "Action", "NotAction"): []string{
					pick("name", "*", "iot:*", "iot:Publish", "IOT:publish", "iot:P*", "iot:Subscribe", "iot:?ublish", "iot:UpdateJobExecution"),
				},
				pick("resource", "Resource", "Resource", "Resource", "NotResource"): []string{resourceText(), resourceText()},
				"Condition": condition(),
			}
			statements = append(statements, st)
		}
		if statements == nil {
			statements = []map[string]any{}
		}
		d, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, string(d))
	}
	c = conn()
	c.Protocol = pick("protocol", "mqtt", "mqtt", "https")
	c.ClientID = pick("client", "dev-1", "dev-1", "dev-1", "a*", "+", "")
	if rapid.Bool().Draw(t, "change thing") {
		c.Thing.Attached, c.Thing.Exclusive = rapid.Bool().Draw(t, "attached"), rapid.Bool().Draw(t, "exclusive")
	}
	if rapid.IntRange(0, 3).Draw(t, "lacks") == 0 {
		c.Certificate, c.SourceIP, c.ConnectAttributes = nil, "", nil
	}
	action = pick("asked action", "iot:Publish", "iot:Subscribe", "iot:Connect")
	resource = arn + pick("asked kind", "topic/", "topicfilter/", "client/")
	for range rapid.IntRange(0, 3).Draw(t, "levels") {
		resource += pick("level", "a", "b", "/", "dev-1", "berlin", "ü", "*", "?", "203.0.113.10", "US", "DE", "ab12", "Pump", "$", "+")
	}
	return documents, c, action, resource
}

// The compiled set decides as the language read word by word does; Explain agrees with both; and the statement that
// Explain says is needed does allow.
func TestAgreesWithNaive(t *testing.T) {
	counts := map[lang.Effect]int{}
	rapid.Check(t, func(t *rapid.T) {
		texts, c, action, resource := generate(t)
		var documents []*lang.Document
		var named []lang.Named
		for i, text := range texts {
			d, err := lang.Parse(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			documents = append(documents, d)
			named = append(named, lang.Named{Name: fmt.Sprint("p", i), Document: d})
		}
		set := lang.Compile(named...)
		want := naiveEvaluate(documents, c, action, resource)
		got := set.Evaluate(c, action, resource)
		if got.Effect != want {
			t.Fatalf("%s %s: %v, the naive reading gives %v\n%s", action, resource, got.Effect, want, strings.Join(texts, "\n"))
		}
		counts[want]++
		e := set.Explain(c, action, resource)
		if e.Decision != got {
			t.Fatalf("Explain decides %+v, Evaluate %+v", e.Decision, got)
		}
		checkExplanation(t, e, named, c, action, resource)
	})
	for _, e := range []lang.Effect{lang.Allow, lang.ImplicitDeny, lang.ExplicitDeny} {
		if counts[e] == 0 {
			t.Errorf("no case gave %v", e)
		}
	}
}

func checkExplanation(t *rapid.T, e lang.Explanation, named []lang.Named, c *lang.Connection, action, resource string) {
	for i, s := range e.Considered {
		if s.Applies != (s.Reason == "") {
			t.Fatalf("statement %+v: a reason is there if and only if it does not apply", s)
		}
		last := i == len(e.Considered)-1
		if s.Applies && (!last || s.Policy != e.Decision.Policy || s.Statement != e.Decision.Statement) {
			t.Fatalf("statement %+v applies and did not decide: %+v", s, e.Decision)
		}
	}
	if (e.Needed != "") != (e.Decision.Effect == lang.ImplicitDeny) {
		t.Fatalf("%v needs %q", e.Decision.Effect, e.Needed)
	}
	if e.Needed == "" {
		return
	}
	d, err := lang.Parse(`{"Version":"2012-10-17","Statement":[` + e.Needed + `]}`)
	if err != nil {
		t.Fatalf("needed %s: %v", e.Needed, err)
	}
	with := lang.Compile(append(slices.Clone(named), lang.Named{Name: "needed", Document: d})...)
	if !with.Evaluate(c, action, resource).Allowed() {
		t.Fatalf("%s %s is not allowed by %s", action, resource, e.Needed)
	}
}
