package template

import "strings"

// Override says what happens to a property of a resource that exists already.
type Override string

// The values of OverrideSettings; the empty Override is the absence of one.
const (
	DoNothing Override = "DO_NOTHING"
	Replace   Override = "REPLACE"
	Fail      Override = "FAIL"
	Merge     Override = "MERGE"
)

type thing struct {
	logical                    string
	name, typeName, billing    expr
	attributes                 []attribute
	hasAttributes              bool
	groups                     expr
	onAttributes, onType, onGr Override
}

type attribute struct {
	name string
	x    expr
}

type certificate struct {
	logical                           string
	csr, id, pem, ca, status, binding expr
	onStatus                          Override
}

type policy struct {
	logical  string
	name     expr
	document *document
}

func (t *Template) parseResources(n *node) error {
	if !n.isObject() || len(n.names) == 0 {
		return fail(InvalidTemplate, "Resources", "must be an object with at least one resource")
	}
	for i, logical := range n.names {
		path, r := "Resources."+logical, n.items[i]
		if !r.isObject() {
			return fail(InvalidTemplate, path, "must be an object")
		}
		for _, member := range r.names {
			switch member {
			case "Type", "Properties", "OverrideSettings":
			default:
				return fail(InvalidTemplate, path+"."+member, "is not a member of a resource")
			}
		}
		kind, properties := r.member("Type"), r.member("Properties")
		if kind == nil || !kind.isString() {
			return fail(InvalidTemplate, path, "Type is missing")
		}
		if properties == nil || !properties.isObject() {
			return fail(InvalidTemplate, path, "Properties is missing or not an object")
		}
		overrides := r.member("OverrideSettings")
		var err error
		switch kind.text {
		case "AWS::IoT::Thing":
			err = t.parseThing(logical, path, properties, overrides)
		case "AWS::IoT::Certificate":
			err = t.parseCertificate(logical, path, properties, overrides)
		case "AWS::IoT::Policy":
			err = t.parsePolicy(logical, path, properties, overrides)
		default:
			err = fail(InvalidTemplate, path, "Type %q is none of AWS::IoT::Thing, AWS::IoT::Certificate, AWS::IoT::Policy", kind.text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Template) parseThing(logical, path string, properties, overrides *node) error {
	if t.thing != nil {
		return fail(InvalidTemplate, path, "a template has at most one AWS::IoT::Thing")
	}
	r := &thing{logical: logical}
	for i, name := range properties.names {
		n, path := properties.items[i], path+".Properties."+name
		var err error
		switch name {
		case "ThingName":
			r.name, err = compileValue(n, path)
			if text, ok := constant(r.name); ok && err == nil {
				err = checkThingName(path, text)
			}
		case "ThingTypeName":
			r.typeName, err = compileValue(n, path)
		case "BillingGroup":
			r.billing, err = compileValue(n, path)
		case "ThingGroups":
			r.groups, err = compileList(n, path)
		case "AttributePayload":
			if !n.isObject() || isFunction(n) {
				return fail(InvalidTemplate, path, "must be an object of names and values")
			}
			r.hasAttributes = true
			for j, key := range n.names {
				x, err := compileValue(n.items[j], path+"."+key)
				if err != nil {
					return err
				}
				r.attributes = append(r.attributes, attribute{key, x})
			}
		case "PackageVersions":
			return fail(InvalidTemplate, path, "package versions in templates are not supported")
		default:
			return fail(InvalidTemplate, path, "is not a property of AWS::IoT::Thing")
		}
		if err != nil {
			return err
		}
	}
	if r.name == nil {
		return fail(InvalidTemplate, path, "ThingName is missing")
	}
	t.thing = r
	return eachOverride(overrides, path, func(path, name, setting string) error {
		var on *Override
		merge := true
		switch name {
		case "AttributePayload", "ATTRIBUTE_PAYLOAD":
			on = &r.onAttributes
		case "ThingTypeName", "THING_TYPE_NAME":
			on, merge = &r.onType, false
		case "ThingGroups", "THING_GROUPS":
			on = &r.onGr
		default:
			return fail(InvalidTemplate, path, "has no override setting")
		}
		return setOverride(on, path, setting, merge)
	})
}

func (t *Template) parseCertificate(logical, path string, properties, overrides *node) error {
	if t.certificate != nil {
		return fail(InvalidTemplate, path, "a template has at most one AWS::IoT::Certificate")
	}
	r := &certificate{logical: logical}
	for i, name := range properties.names {
		path := path + ".Properties." + name
		x, err := compileValue(properties.items[i], path)
		if err != nil {
			return err
		}
		switch name {
		case "CertificateSigningRequest":
			r.csr = x
		case "CertificateId", "CertificateID":
			r.id = x
		case "CertificatePem":
			r.pem = x
		case "CACertificatePem":
			r.ca = x
		case "Status":
			r.status = x
			if text, ok := constant(x); ok {
				if _, err := checkStatus(path, text); err != nil {
					return err
				}
			}
		case "ThingPrincipalType":
			r.binding = x
		default:
			return fail(InvalidTemplate, path, "is not a property of AWS::IoT::Certificate")
		}
	}
	sources := 0
	for _, x := range []expr{r.csr, r.id, r.pem} {
		if x != nil {
			sources++
		}
	}
	if sources != 1 || r.ca != nil && r.pem == nil {
		return fail(InvalidTemplate, path, "exactly one of CertificateSigningRequest, CertificateId and CertificatePem (with CACertificatePem or without) is needed")
	}
	t.certificate = r
	return eachOverride(overrides, path, func(path, name, setting string) error {
		if name != "Status" && name != "STATUS" {
			return fail(InvalidTemplate, path, "has no override setting")
		}
		return setOverride(&r.onStatus, path, setting, false)
	})
}

func (t *Template) parsePolicy(logical, path string, properties, overrides *node) error {
	r := policy{logical: logical}
	for i, name := range properties.names {
		n, path := properties.items[i], path+".Properties."+name
		var err error
		switch name {
		case "PolicyName":
			r.name, err = compileValue(n, path)
		case "PolicyDocument":
			r.document, err = compileDocument(n, path)
		default:
			err = fail(InvalidTemplate, path, "is not a property of AWS::IoT::Policy")
		}
		if err != nil {
			return err
		}
	}
	if (r.name == nil) == (r.document == nil) {
		return fail(InvalidTemplate, path, "either PolicyName or PolicyDocument is needed, not both")
	}
	if overrides != nil {
		return fail(InvalidTemplate, path, "OverrideSettings are not available for policies")
	}
	t.policies = append(t.policies, r)
	return nil
}

func eachOverride(n *node, path string, fn func(path, name, setting string) error) error {
	if n == nil {
		return nil
	}
	path += ".OverrideSettings"
	if !n.isObject() {
		return fail(InvalidTemplate, path, "must be an object")
	}
	for i, name := range n.names {
		path := path + "." + name
		if !n.items[i].isString() {
			return fail(InvalidTemplate, path, "must be a string")
		}
		if err := fn(path, name, n.items[i].text); err != nil {
			return err
		}
	}
	return nil
}

func setOverride(on *Override, path, setting string, merge bool) error {
	if *on != "" {
		return fail(InvalidTemplate, path, "is given twice")
	}
	switch o := Override(setting); {
	case o == DoNothing, o == Replace, o == Fail, o == Merge && merge:
		*on = o
		return nil
	case o == Merge:
		return fail(InvalidTemplate, path, "MERGE is for AttributePayload and ThingGroups")
	}
	return fail(InvalidTemplate, path, "%q is none of DO_NOTHING, REPLACE, FAIL, MERGE", setting)
}

// checkThingName checks the pattern of CreateThing.
func checkThingName(path, name string) error {
	ok := name != "" && len(name) <= 128
	for i := 0; i < len(name) && ok; i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == ':' || c == '_' || c == '-'
	}
	if !ok {
		return fail(InvalidRequest, path, "%q is not a thing name: 1 to 128 characters of a-z A-Z 0-9 : _ -", clip(name))
	}
	return nil
}

// checkStatus returns the status in the API's spelling; AWS's own example
// writes "Active".
func checkStatus(path, status string) (string, error) {
	switch s := strings.ToUpper(status); s {
	case "ACTIVE", "INACTIVE":
		return s, nil
	}
	return "", fail(InvalidTemplate, path, "Status is ACTIVE or INACTIVE, not %q", clip(status))
}

// clip keeps what a message quotes short.
func clip(s string) string {
	if len(s) <= 140 {
		return s
	}
	return strings.ToValidUTF8(s[:140], "") + "…"
}
