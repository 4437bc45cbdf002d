package template

import (
	"strings"
	"unicode/utf8"
)

// Flow is what a template is used for.
type Flow string

// The flows. The first two are the API's TemplateType; RegisterThing is the
// operation of that name, and each line of a bulk registration.
const (
	Fleet         Flow = "FLEET_PROVISIONING"
	JITP          Flow = "JITP"
	RegisterThing Flow = "REGISTER_THING"
)

// MaxBody is the size limit of a template in characters.
const MaxBody = 10240

// certificatePrefix begins the names of the parameters that the service gives.
const certificatePrefix = "AWS::IoT::Certificate::"

// certificateKeys are the parameters that a certificate can give.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jit-provisioning.html
var certificateKeys = map[string]bool{
	"Country": true, "Organization": true, "OrganizationalUnit": true, "DistinguishedNameQualifier": true,
	"StateName": true, "CommonName": true, "SerialNumber": true, "Id": true,
}

// Template is a parsed template. It is immutable and safe for concurrent use.
type Template struct {
	flow        Flow
	parameters  map[string]parameter
	names       []string // of parameters, in order
	mappings    map[string]map[string]map[string]value
	thing       *thing
	certificate *certificate
	policies    []policy
	device      []setting
}

type parameter struct {
	fallback   string
	hasDefault bool
}

// Parse reads a template for a flow. Errors are *Error.
func Parse(body string, flow Flow) (*Template, error) {
	if utf8.RuneCountInString(body) > MaxBody {
		return nil, fail(InvalidTemplate, "", "the template has more than %d characters", MaxBody)
	}
	root, err := decode(body)
	if err != nil {
		return nil, fail(InvalidTemplate, "", "the template is not valid JSON: %v", err)
	}
	if !root.isObject() {
		return nil, fail(InvalidTemplate, "", "the template must be a JSON object")
	}
	t := &Template{flow: flow}
	for i, name := range root.names {
		n := root.items[i]
		switch name {
		case "Parameters":
			err = t.parseParameters(n)
		case "Mappings":
			err = t.parseMappings(n)
		case "Resources":
			err = t.parseResources(n)
		case "DeviceConfiguration":
			err = t.parseDevice(n)
		case "Version", "AWSTemplateFormatVersion", "Description", "Metadata":
			// Remarks for people.
		default:
			err = fail(InvalidTemplate, name, "is not a section of a provisioning template")
		}
		if err != nil {
			return nil, err
		}
	}
	if root.member("Resources") == nil {
		return nil, fail(InvalidTemplate, "Resources", "the section is missing")
	}
	if flow != RegisterThing && (t.certificate == nil || t.certificate.id == nil) {
		return nil, fail(InvalidTemplate, "Resources", "a template of type %s needs an AWS::IoT::Certificate with a CertificateId", flow)
	}
	return t, nil
}

func (t *Template) parseParameters(n *node) error {
	if !n.isObject() {
		return fail(InvalidTemplate, "Parameters", "must be an object")
	}
	t.parameters = make(map[string]parameter, len(n.names))
	for i, name := range n.names {
		path, item := "Parameters."+name, n.items[i]
		if name == "" || !item.isObject() {
			return fail(InvalidTemplate, path, "a name and an object with a Type are needed")
		}
		if key, ok := strings.CutPrefix(name, certificatePrefix); ok && !certificateKeys[key] {
			return fail(InvalidTemplate, path, "no such attribute of a certificate")
		}
		var p parameter
		typed := false
		for j, member := range item.names {
			v := item.items[j]
			switch member {
			case "Type":
				typed = v.isString() && v.text == "String"
			case "Default":
				if p.fallback, p.hasDefault = v.scalar(); !p.hasDefault {
					return fail(InvalidTemplate, path+".Default", "must be a string")
				}
			case "Description":
			default:
				return fail(InvalidTemplate, path+"."+member, "is not a member of a parameter")
			}
		}
		if !typed {
			return fail(InvalidTemplate, path, "Type must be \"String\"")
		}
		t.parameters[name] = p
		t.names = append(t.names, name)
	}
	return nil
}

// parseMappings reads the two-level maps; no function may stand in them.
func (t *Template) parseMappings(n *node) error {
	if !n.isObject() {
		return fail(InvalidTemplate, "Mappings", "must be an object")
	}
	t.mappings = make(map[string]map[string]map[string]value, len(n.names))
	for i, name := range n.names {
		path, table := "Mappings."+name, n.items[i]
		if !table.isObject() {
			return fail(InvalidTemplate, path, "must be an object of objects")
		}
		rows := make(map[string]map[string]value, len(table.names))
		for j, key := range table.names {
			path, row := path+"."+key, table.items[j]
			if !row.isObject() {
				return fail(InvalidTemplate, path, "must be an object")
			}
			fields := make(map[string]value, len(row.names))
			for k, field := range row.names {
				v, err := mapValue(row.items[k], path+"."+field)
				if err != nil {
					return err
				}
				fields[field] = v
			}
			rows[key] = fields
		}
		t.mappings[name] = rows
	}
	return nil
}

func mapValue(n *node, path string) (value, error) {
	if s, ok := n.scalar(); ok {
		return value{text: s}, nil
	}
	if !n.isArray() {
		return value{}, fail(InvalidTemplate, path, "must be a string or a list of strings; parameters and functions cannot be used in Mappings")
	}
	v := value{many: true, list: make([]string, len(n.items))}
	for i, item := range n.items {
		s, ok := item.scalar()
		if !ok {
			return value{}, fail(InvalidTemplate, path, "must be a list of strings")
		}
		v.list[i] = s
	}
	return v, nil
}

// setting is a member of DeviceConfiguration: a scalar of the document, a
// computed value, or a list of such.
type setting struct {
	name string
	conf config
}

type config struct {
	plain *node // number or boolean, kept as such
	x     expr
	list  []config
	many  bool
}

func (t *Template) parseDevice(n *node) error {
	if !n.isObject() {
		return fail(InvalidTemplate, "DeviceConfiguration", "must be an object")
	}
	for i, name := range n.names {
		c, err := compileConfig(n.items[i], "DeviceConfiguration."+name)
		if err != nil {
			return err
		}
		t.device = append(t.device, setting{name, c})
	}
	return nil
}

func compileConfig(n *node, path string) (config, error) {
	switch {
	case n.isArray():
		c := config{many: true}
		for _, item := range n.items {
			if item.isArray() {
				return config{}, fail(InvalidTemplate, path, "a list of lists is not supported")
			}
			x, err := compileConfig(item, path)
			if err != nil {
				return config{}, err
			}
			c.list = append(c.list, x)
		}
		return c, nil
	case n.isObject() && !isFunction(n):
		return config{}, fail(InvalidTemplate, path, "nested JSON objects are not supported")
	case n.isString() || n.isObject():
		x, err := compileValue(n, path)
		return config{x: x}, err
	case n.isNull():
		return config{}, fail(InvalidTemplate, path, "null is not a value")
	}
	return config{plain: n}, nil
}
