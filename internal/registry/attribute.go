package registry

import (
	"encoding/json"
	"fmt"
	"maps"

	"flotilla/internal/aws/iot"
)

const (
	maxName           = 128
	maxAttributeValue = 800

	namePattern           = "[a-zA-Z0-9:_-]+"
	attributeNamePattern  = "[a-zA-Z0-9_.,@/:#-]+"
	attributeValuePattern = `[a-zA-Z0-9_.,@/:#=\[\]-]*`
)

// validName checks a name of a thing, type or group. The door has checked those
// that came by the API; those of templates come from other rooms.
func validName(what, name string) error {
	if name == "" || len(name) > maxName || !consistsOf(name, ":_-") {
		return constraint(what+" name", name, namePattern, maxName)
	}
	return nil
}

func constraint(what, value, pattern string, most int) error {
	if len(value) > 64 {
		value = value[:64] + "..."
	}
	return invalid("1 validation error detected: Value %q at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: %s and have length less than or equal to %d",
		value, what, pattern, most)
}

// consistsOf tells whether s has ASCII letters, digits and the others only.
func consistsOf(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' {
			continue
		}
		ok := false
		for j := range len(others) {
			ok = ok || others[j] == c
		}
		if !ok {
			return false
		}
	}
	return true
}

func validAttributes(attributes map[string]string) error {
	for name, v := range attributes {
		if name == "" || len(name) > maxName || !consistsOf(name, "_.,@/:#-") {
			return constraint("attribute name", name, attributeNamePattern, maxName)
		}
		if len(v) > maxAttributeValue || !consistsOf(v, "_.,@/:#=[]-") {
			return constraint("attribute value", v, attributeValuePattern, maxAttributeValue)
		}
	}
	return nil
}

// payload gives the attributes of a payload; nil when it says nothing of them.
func payload(p *iot.AttributePayload) (attributes map[string]string, merge bool) {
	if p == nil {
		return nil, false
	}
	return p.Attributes, value(p.Merge)
}

// apply gives the attributes after an update. Without merge the given ones take
// the place of all; an empty value removes its attribute.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AttributePayload.html
func apply(old map[string]string, p *iot.AttributePayload) (map[string]string, error) {
	given, merge := payload(p)
	if err := validAttributes(given); err != nil {
		return nil, err
	}
	if p == nil || given == nil && merge {
		return old, nil
	}
	out := map[string]string{}
	if merge {
		maps.Copy(out, old)
	}
	for name, v := range given {
		if v == "" {
			delete(out, name)
		} else {
			out[name] = v
		}
	}
	return out, nil
}

// fits checks how many attributes there are, and their size.
func (r *Registry) fits(attributes map[string]string, most int, owner string) error {
	if len(attributes) > most {
		return invalid("%s can have at most %d attributes", owner, most)
	}
	size := 0
	for name, v := range attributes {
		size += len(name) + len(v)
	}
	if size > r.cfg.MaxAttributeBytes {
		return invalid("The attributes have %d bytes, at most %d are allowed", size, r.cfg.MaxAttributeBytes)
	}
	return nil
}

func (r *Registry) thingFits(attributes map[string]string, typeName string) error {
	if typeName == "" {
		return r.fits(attributes, r.cfg.MaxAttributesNoType, "A thing without a thing type")
	}
	return r.fits(attributes, r.cfg.MaxAttributes, "A thing")
}

// encode writes attributes, or another value of the kind, as the tables have it.
func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("registry: " + err.Error()) // maps and slices of strings always marshal
	}
	return string(text)
}

func decode(text string, to any) error {
	if err := json.Unmarshal([]byte(text), to); err != nil {
		return fmt.Errorf("registry: stored value: %w", err)
	}
	return nil
}
