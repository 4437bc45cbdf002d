package template

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"flotilla/internal/policy/lang"
)

// Finding is something in a template that is accepted, and fails or surprises when a device is provisioned.
type Finding struct {
	Path    string // where, as in Error
	Message string // one sentence
}

// String is the path and the message.
func (f Finding) String() string { return f.Path + ": " + f.Message }

// linter goes through a template.
type linter struct {
	t     *Template
	used  map[string]bool // parameters
	found []Finding
}

// Lint says what AWS refuses, or what goes wrong, only when a device is provisioned. The order is that of the
// template's sections.
func (t *Template) Lint() []Finding {
	l := &linter{t: t, used: map[string]bool{}}
	if t.thing != nil {
		l.thing(t.thing)
	}
	if t.certificate != nil {
		l.certificate(t.certificate)
	}
	for i := range t.policies {
		l.policy(&t.policies[i])
	}
	if t.certificate != nil && len(t.policies) == 0 {
		l.add("Resources", "no policy is attached to the certificate: unless a thing group brings one, the device may not even connect")
	}
	for _, s := range t.device {
		l.config(s.conf, "DeviceConfiguration."+s.name)
	}
	for _, name := range t.names {
		switch {
		case !l.used[name] && name != certificatePrefix+"Id":
			if t.flow == JITP {
				l.add("Parameters."+name, "is not used, and a certificate without a value for it is not provisioned")
			} else {
				l.add("Parameters."+name, "is not used")
			}
		}
		if t.flow == Fleet && strings.HasPrefix(name, certificatePrefix) && name != certificatePrefix+"Id" && !t.parameters[name].hasDefault {
			l.add("Parameters."+name, "has never a value: in fleet provisioning only AWS::IoT::Certificate::Id has")
		}
		if t.flow == JITP && !strings.HasPrefix(name, certificatePrefix) && !t.parameters[name].hasDefault {
			l.add("Parameters."+name, "has never a value: just-in-time provisioning has the AWS::IoT::Certificate:: parameters alone")
		}
	}
	return l.found
}

func (l *linter) add(path, message string) { l.found = append(l.found, Finding{path, message}) }

func (l *linter) thing(r *thing) {
	path := "Resources." + r.logical + ".Properties."
	for _, f := range []struct {
		name string
		x    expr
	}{{"ThingName", r.name}, {"ThingTypeName", r.typeName}, {"BillingGroup", r.billing}, {"ThingGroups", r.groups}} {
		l.expr(f.x, path+f.name)
	}
	if l.t.flow != RegisterThing && fixed(r.name) {
		l.add(path+"ThingName", "depends on no parameter: every device becomes the same thing")
	}
	for _, a := range r.attributes {
		l.expr(a.x, path+"AttributePayload."+a.name)
	}
}

func (l *linter) certificate(r *certificate) {
	path := "Resources." + r.logical + ".Properties."
	for _, f := range []struct {
		name string
		x    expr
	}{
		{"CertificateSigningRequest", r.csr},
		{"CertificateId", r.id},
		{"CertificatePem", r.pem},
		{"CACertificatePem", r.ca},
		{"Status", r.status},
		{"ThingPrincipalType", r.binding},
	} {
		l.expr(f.x, path+f.name)
	}
	if text, ok := constant(r.status); ok && strings.EqualFold(text, "INACTIVE") {
		l.add(path+"Status", "is INACTIVE: the device cannot connect until someone activates its certificate")
	}
	if id, ok := r.id.(ref); l.t.flow != RegisterThing && (!ok || id.name != certificatePrefix+"Id") {
		l.add(path+"CertificateId", "is not {\"Ref\": \"AWS::IoT::Certificate::Id\"}: no device is provisioned")
	}
}

func (l *linter) policy(r *policy) {
	path := "Resources." + r.logical + ".Properties."
	l.expr(r.name, path+"PolicyName")
	if x, ok := r.name.(ref); ok && l.t.flow == Fleet && !strings.HasPrefix(x.name, certificatePrefix) {
		l.add(path+"PolicyName", "is what the device says: unless the hook gives it, a device may choose any policy that there is")
	}
	if r.document == nil {
		return
	}
	path += "PolicyDocument"
	l.expr(r.document.x, path)
	text, ok := constant(r.document.x)
	if r.document.tree != nil {
		ok = l.tree(r.document.tree, path)
		if ok {
			b, err := r.document.tree.append(nil, &env{t: l.t, left: maxProduced}, path)
			text, ok = string(b), err == nil
		}
	}
	if !ok {
		return
	}
	if _, err := lang.Parse(text); err != nil {
		l.add(path, "is not a policy: "+err.Error())
	}
}

// tree tells whether a document has no functions.
func (l *linter) tree(t *tree, path string) bool {
	if t.x != nil {
		l.expr(t.x, path)
		return false
	}
	plain := true
	for _, item := range t.items {
		plain = l.tree(item, path) && plain
	}
	return plain
}

func (l *linter) config(c config, path string) {
	l.expr(c.x, path)
	for _, item := range c.list {
		l.config(item, path)
	}
}

// expr looks at a value, which may be nil.
func (l *linter) expr(x expr, path string) {
	switch x := x.(type) {
	case ref:
		l.parameter(x.name, x.path)
	case array:
		for i, item := range x.items {
			if item == nil {
				l.add(x.path+"["+strconv.Itoa(i)+"]", "is null, which is an error when it is used")
			}
			l.expr(item, path)
		}
	case join:
		l.expr(x.list, path)
	case selection:
		l.expr(x.index, path)
		l.expr(x.list, path)
		l.index(x)
	case findInMap:
		l.expr(x.name, path)
		l.expr(x.key, path)
		l.expr(x.field, path)
		l.lookUp(x)
	case split:
		if d, ok := constant(x.delimiter); ok && d == "" {
			l.add(x.path, "the delimiter is empty, which is an error when it is used")
		}
		l.expr(x.whole, path)
	case substitution:
		for _, p := range x.parts {
			if _, own := x.vars[p.text]; p.variable && !own {
				l.parameter(p.text, x.path)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(x.vars)) {
			l.expr(x.vars[name], path)
		}
	}
}

func (l *linter) parameter(name, path string) {
	l.used[name] = true
	if _, declared := l.t.parameters[name]; declared {
		return
	}
	key, ofCertificate := strings.CutPrefix(name, certificatePrefix)
	switch {
	case ofCertificate && !certificateKeys[key]:
		l.add(path, "refers to "+name+", which no certificate has")
	case ofCertificate && l.t.flow == Fleet && key != "Id":
		l.add(path, "refers to "+name+", which has no value in fleet provisioning")
	case !ofCertificate && l.t.flow == JITP:
		l.add(path, "refers to "+name+", which is not declared in Parameters and has no value in just-in-time provisioning")
	case !ofCertificate:
		l.add(path, "refers to "+name+", which is not declared in Parameters")
	}
}

// index checks a constant index of a literal list.
func (l *linter) index(x selection) {
	text, ok := constant(x.index)
	if !ok {
		return
	}
	i, err := strconv.Atoi(text)
	list, literal := x.list.(array)
	switch {
	case err != nil || i < 0:
		l.add(x.path, strconv.Quote(clip(text))+" is not an index")
	case literal && i >= len(list.items):
		l.add(x.path, "index "+text+" is outside a list of "+strconv.Itoa(len(list.items)))
	}
}

// lookUp checks as many keys of Fn::FindInMap as are constant.
func (l *linter) lookUp(x findInMap) {
	name, ok := constant(x.name)
	if !ok {
		return
	}
	rows, ok := l.t.mappings[name]
	if !ok {
		l.add(x.path, "there is no mapping "+strconv.Quote(clip(name)))
		return
	}
	field, fieldKnown := constant(x.field)
	key, keyKnown := constant(x.key)
	switch row, ok := rows[key]; {
	case keyKnown && !ok:
		l.add(x.path, "mapping "+strconv.Quote(clip(name))+" has no key "+strconv.Quote(clip(key)))
	case keyKnown && fieldKnown:
		if _, ok := row[field]; !ok {
			l.add(x.path, "mapping "+strconv.Quote(clip(name))+" has no "+strconv.Quote(clip(field))+" under "+strconv.Quote(clip(key)))
		}
	}
}

// fixed tells whether a value is the same for every device.
func fixed(x expr) bool {
	switch x := x.(type) {
	case ref:
		return false
	case array:
		return !slices.ContainsFunc(x.items, func(i expr) bool { return !fixed(i) })
	case join:
		return fixed(x.list)
	case selection:
		return fixed(x.index) && fixed(x.list)
	case findInMap:
		return fixed(x.name) && fixed(x.key) && fixed(x.field)
	case split:
		return fixed(x.whole)
	case substitution:
		for _, p := range x.parts {
			if v, own := x.vars[p.text]; p.variable && (!own || !fixed(v)) {
				return false
			}
		}
	}
	return true
}
