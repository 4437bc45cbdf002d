package commands

import (
	"encoding/base64"
	"encoding/json"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-json-experiment/json/jsontext"

	"flotilla/internal/aws/iot"
)

const (
	maxPayload    = 32 << 10 // bytes, as AWS has it
	maxParameters = 100

	typeJSON = "application/json"
	typeCBOR = "application/cbor"
)

// placeholder is what a template has for a value: the name of a parameter, or the timeout.
var placeholder = regexp.MustCompile(`\$\{aws:iot:commandexecution::(?:parameter:([.$a-zA-Z0-9_-]+)|(executionTimeoutSec))\}`)

// checkDefinition refuses a command that no execution could be made of.
func checkDefinition(in *iot.CreateCommandRequest) error {
	if ns := value(in.Namespace); ns != "" && ns != iot.CommandNamespaceAwsIoT {
		return invalid("The namespace %s is not implemented", ns)
	}
	switch {
	case in.PayloadTemplate != nil && in.Payload != nil:
		return invalid("Either payload or payloadTemplate is given, not both")
	case in.PayloadTemplate == nil && (in.Payload == nil || len(in.Payload.Content) == 0):
		return invalid("A payload is required")
	case in.PayloadTemplate == nil && in.Preprocessor != nil:
		return invalid("A preprocessor is for a payloadTemplate")
	case in.PayloadTemplate == nil && len(in.Payload.Content) > maxPayload:
		return invalid("A payload has at most %d bytes", maxPayload)
	case len(in.MandatoryParameters) > maxParameters:
		return invalid("A command has at most %d parameters", maxParameters)
	}
	seen := map[string]bool{}
	for _, p := range in.MandatoryParameters {
		if seen[p.Name] {
			return invalid("The parameter %s is given twice", p.Name)
		}
		seen[p.Name] = true
		if err := checkParameter(p); err != nil {
			return err
		}
	}
	if in.PayloadTemplate == nil {
		return nil
	}
	if !json.Valid([]byte(*in.PayloadTemplate)) {
		return invalid("payloadTemplate is not JSON")
	}
	for _, m := range placeholder.FindAllStringSubmatch(*in.PayloadTemplate, -1) {
		if m[2] == "" && !seen[m[1]] {
			return invalid("payloadTemplate has a parameter %s that is not among mandatoryParameters", m[1])
		}
	}
	if rest := placeholder.ReplaceAllString(*in.PayloadTemplate, ""); strings.Contains(rest, "${aws:iot:commandexecution::") {
		return invalid("payloadTemplate has a placeholder that is not implemented")
	}
	return nil
}

// checkParameter refuses values and conditions that do not fit the type.
func checkParameter(p *iot.CommandParameter) error {
	for _, v := range []*iot.CommandParameterValue{p.Value, p.DefaultValue} {
		if v == nil {
			continue
		}
		if err := fits(p, v); err != nil {
			return err
		}
	}
	for _, c := range p.ValueConditions {
		o := c.Operand
		switch {
		case o == nil:
			return invalid("%s: a condition has no operand", p.Name)
		case o.NumberRange != nil && (number(o.NumberRange.Min) == nil || number(o.NumberRange.Max) == nil), o.Number != nil && number(*o.Number) == nil,
			slices.ContainsFunc(o.Numbers, func(n string) bool { return number(n) == nil }):
			return invalid("%s: an operand is no number", p.Name)
		}
		ok := false
		switch c.ComparisonOperator {
		case iot.CommandParameterValueComparisonOperatorInSet, iot.CommandParameterValueComparisonOperatorNotInSet:
			ok = o.Numbers != nil || o.Strings != nil
		case iot.CommandParameterValueComparisonOperatorInRange, iot.CommandParameterValueComparisonOperatorNotInRange:
			ok = o.NumberRange != nil
		case iot.CommandParameterValueComparisonOperatorEquals, iot.CommandParameterValueComparisonOperatorNotEquals:
			ok = o.Number != nil || o.String != nil
		default:
			ok = o.Number != nil
		}
		if !ok {
			return invalid("%s: the operand does not fit %s", p.Name, c.ComparisonOperator)
		}
	}
	return nil
}

// number reads a number exactly; nil when the text is none.
func number(text string) *big.Rat {
	if len(text) > 64 || strings.ContainsAny(text, "eE/_xXpP") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || len(text) > 64 {
			return nil
		}
		return new(big.Rat).SetFloat64(f)
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil
	}
	return r
}

// typeOf is the type of a value; "" when there is not just one.
func typeOf(v *iot.CommandParameterValue) string {
	kind, n := "", 0
	for _, c := range []struct {
		is   bool
		kind string
	}{
		{v.S != nil, iot.CommandParameterTypeString},
		{v.B != nil, iot.CommandParameterTypeBoolean},
		{v.I != nil, iot.CommandParameterTypeInteger},
		{v.L != nil, iot.CommandParameterTypeLong},
		{v.D != nil, iot.CommandParameterTypeDouble},
		{v.BIN != nil, iot.CommandParameterTypeBinary},
		{v.UL != nil, iot.CommandParameterTypeUnsignedlong},
	} {
		if c.is {
			kind = c.kind
			n++
		}
	}
	if n != 1 {
		return ""
	}
	return kind
}

// textOf is a value as text: what conditions compare and what stands within strings.
func textOf(v *iot.CommandParameterValue) string {
	switch {
	case v.S != nil:
		return *v.S
	case v.B != nil:
		return strconv.FormatBool(*v.B)
	case v.I != nil:
		return strconv.Itoa(int(*v.I))
	case v.L != nil:
		return strconv.FormatInt(*v.L, 10)
	case v.D != nil:
		return strconv.FormatFloat(*v.D, 'f', -1, 64)
	case v.UL != nil:
		return *v.UL
	}
	return base64.StdEncoding.EncodeToString(v.BIN)
}

// fits refuses a value of another type, or that a condition excludes.
func fits(p *iot.CommandParameter, v *iot.CommandParameterValue) error {
	kind := typeOf(v)
	switch {
	case kind == "":
		return invalid("%s: a value has just one of S, B, I, L, D, BIN and UL", p.Name)
	case p.Type != nil && *p.Type != kind:
		return invalid("%s: the value is %s, not %s", p.Name, kind, *p.Type)
	}
	if v.UL != nil {
		if _, err := strconv.ParseUint(*v.UL, 10, 64); err != nil {
			return invalid("%s: %q is no unsigned long", p.Name, *v.UL)
		}
	}
	for _, c := range p.ValueConditions {
		if c.Operand != nil && !holds(c, kind, textOf(v)) {
			return invalid("%s: the value does not satisfy %s", p.Name, c.ComparisonOperator)
		}
	}
	return nil
}

// holds tells whether a value satisfies a condition. A condition about numbers is not satisfied by what is none.
func holds(c *iot.CommandParameterValueCondition, kind, text string) bool {
	o := c.Operand
	var n *big.Rat
	if kind != iot.CommandParameterTypeString && kind != iot.CommandParameterTypeBinary && kind != iot.CommandParameterTypeBoolean {
		n = number(text)
	}
	among := func() bool {
		return slices.Contains(o.Strings, text) || n != nil && slices.ContainsFunc(o.Numbers, func(t string) bool { return n.Cmp(number(t)) == 0 })
	}
	equal := func() bool {
		return o.String != nil && *o.String == text || n != nil && o.Number != nil && n.Cmp(number(*o.Number)) == 0
	}
	within := func() bool {
		return n != nil && o.NumberRange != nil && n.Cmp(number(o.NumberRange.Min)) >= 0 && n.Cmp(number(o.NumberRange.Max)) <= 0
	}
	sign, compared := 0, n != nil && o.Number != nil
	if compared {
		sign = n.Cmp(number(*o.Number))
	}
	switch c.ComparisonOperator {
	case iot.CommandParameterValueComparisonOperatorEquals:
		return equal()
	case iot.CommandParameterValueComparisonOperatorNotEquals:
		return !equal()
	case iot.CommandParameterValueComparisonOperatorLessThan:
		return compared && sign < 0
	case iot.CommandParameterValueComparisonOperatorLessThanEquals:
		return compared && sign <= 0
	case iot.CommandParameterValueComparisonOperatorGreaterThan:
		return compared && sign > 0
	case iot.CommandParameterValueComparisonOperatorGreaterThanEquals:
		return compared && sign >= 0
	case iot.CommandParameterValueComparisonOperatorInSet:
		return among()
	case iot.CommandParameterValueComparisonOperatorNotInSet:
		return !among()
	case iot.CommandParameterValueComparisonOperatorInRange:
		return within()
	case iot.CommandParameterValueComparisonOperatorNotInRange:
		return n != nil && !within()
	}
	return false
}

// payloadOf makes the payload of an execution, and its content type. A placeholder that is all of a string becomes a value
// of its own type; within a string it is text.
func payloadOf(def *iot.CreateCommandRequest, given map[string]*iot.CommandParameterValue, timeout int64) (payload []byte, contentType string, err error) {
	values := map[string]*iot.CommandParameterValue{}
	for _, p := range def.MandatoryParameters {
		v := given[p.Name]
		switch {
		case v == nil && p.Value != nil:
			v = p.Value
		case v == nil:
			v = p.DefaultValue
		}
		if v == nil {
			return nil, "", invalid("The parameter %s is required", p.Name)
		}
		if err := fits(p, v); err != nil {
			return nil, "", err
		}
		values[p.Name] = v
	}
	for name := range given {
		if values[name] == nil {
			return nil, "", invalid("The command has no parameter %s", name)
		}
	}
	if def.PayloadTemplate == nil {
		return def.Payload.Content, value(def.Payload.ContentType), nil
	}
	text := []byte(fill(*def.PayloadTemplate, values, timeout))
	if len(text) > maxPayload {
		return nil, "", invalid("The payload has more than %d bytes", maxPayload)
	}
	if !json.Valid(text) {
		return nil, "", invalid("The payload is not JSON with these parameters")
	}
	if p := def.Preprocessor; p == nil || p.AwsJsonSubstitution == nil || p.AwsJsonSubstitution.OutputFormat != iot.OutputFormatCbor {
		return text, typeJSON, nil
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, "", invalid("The payload is not JSON: %v", err)
	}
	b, err := cbor.Marshal(numbers(v))
	return b, typeCBOR, err
}

// numbers has CBOR's numbers for JSON's.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = numbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = numbers(e)
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}

// fill puts values into a template; what is longer than a payload may be ends anywhere.
func fill(template string, values map[string]*iot.CommandParameterValue, timeout int64) string {
	valueOf := func(m []string) *iot.CommandParameterValue {
		if m[2] != "" {
			return &iot.CommandParameterValue{L: &timeout}
		}
		return values[m[1]]
	}
	var out strings.Builder
	rest := template
	for {
		at := placeholder.FindStringSubmatchIndex(rest)
		if at == nil || out.Len() > maxPayload {
			out.WriteString(rest)
			return out.String()
		}
		v := valueOf(placeholder.FindStringSubmatch(rest[at[0]:at[1]]))
		alone := at[0] > 0 && rest[at[0]-1] == '"' && (at[0] < 2 || rest[at[0]-2] != '\\') && at[1] < len(rest) && rest[at[1]] == '"'
		if alone && v.S == nil && v.BIN == nil {
			out.WriteString(rest[:at[0]-1])
			out.WriteString(textOf(v))
			rest = rest[at[1]+1:]
			continue
		}
		quoted, err := jsontext.AppendQuote(nil, textOf(v))
		if err != nil { // it is not UTF-8: the payload is refused as no JSON
			quoted = []byte(`"\xff"`)
		}
		out.WriteString(rest[:at[0]])
		out.Write(quoted[1 : len(quoted)-1])
		rest = rest[at[1]:]
	}
}
