package api

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/sts"
	"flotilla/internal/aws/wire"
)

// protocol is that of a service whose requests name their operation.
//
//	awsJson   POST /, X-Amz-Target: Service.Operation, JSON both ways; an error has its name in __type
//	awsQuery  POST / or GET /?, the form's Action names the operation; the answer is XML
//
// AWS: https://smithy.io/2.0/aws/protocols/index.html
type protocol struct{ aws.Protocol }

func (x *exchange) spoken() protocol {
	if x.service == nil {
		return protocol{}
	}
	return protocol{x.service.protocol}
}

func (p protocol) contentType() string { return "application/x-amz-json-" + p.JSON }

// getCallerIdentity says who signed. No policy can deny it.
//
// AWS: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
func (s *Server) getCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityRequest) (*sts.GetCallerIdentityResponse, error) {
	c := aws.CallerFrom(ctx)
	return &sts.GetCallerIdentityResponse{Arn: &c.ARN, UserId: &c.ID, Account: &c.Account}, nil
}

// target finds the operation that a request names. A form becomes the JSON that it stands for.
func (x *exchange) target() (*endpoint, error) {
	if x.service.protocol.Query != "" {
		return x.targetOfForm()
	}
	names := x.r.Header["X-Amz-Target"]
	if x.r.Method != http.MethodPost || x.path != "/" || len(names) != 1 || x.service.byTarget[names[0]] == nil {
		return nil, &aws.CommonError{
			Status: http.StatusBadRequest, Code: "UnknownOperationException",
			Message: "The " + x.service.title + " has no operation " + printable(strings.Join(names, " ")) + " here.",
		}
	}
	return x.service.byTarget[names[0]], nil
}

func (x *exchange) targetOfForm() (*endpoint, error) {
	form := x.query
	if x.r.Method == http.MethodPost {
		var err error
		if form, err = url.ParseQuery(string(x.body)); err != nil {
			return nil, &aws.CommonError{Status: http.StatusBadRequest, Code: "MalformedQueryString", Message: "The body is not a form."}
		}
	}
	name := form.Get("Action")
	e := x.service.byTarget[name]
	if x.path != "/" || e == nil || len(form["Action"]) != 1 {
		return nil, &aws.CommonError{
			Status: http.StatusBadRequest, Code: "InvalidAction",
			Message: "The operation " + printable(name) + " is not implemented by the " + x.service.title + ".",
		}
	}
	body, err := wire.FormJSON(form)
	if err != nil {
		return nil, &aws.CommonError{Status: http.StatusBadRequest, Code: "MalformedQueryString", Message: err.Error()}
	}
	x.body = body
	return e, nil
}

// appendTyped is an exception as awsJson has it.
func appendTyped(exc aws.Exception) []byte {
	b := wire.AppendString([]byte(`{"__type":`), exc.ErrorCode())
	members := exc.AppendJSON(nil)
	if len(members) > 2 {
		b = append(b, ',')
	}
	return append(b, members[1:]...)
}

// answerXML writes the members of an output, which are JSON, as XML.
func (x *exchange) answerXML(p protocol, status int, body []byte) {
	var b strings.Builder
	name := x.endpoint.Name
	b.WriteString("<" + name + `Response xmlns="` + p.Query + `">`)
	if members := string(body); members != "{}" {
		b.WriteString("<" + name + "Result>")
		d := json.NewDecoder(strings.NewReader(members))
		d.UseNumber()
		_, err := d.Token()
		if err == nil {
			err = writeMembers(&b, d, p.Maps)
		}
		if err != nil {
			panic("api: " + err.Error()) // generated encoders write JSON
		}
		b.WriteString("</" + name + "Result>")
	}
	b.WriteString("<ResponseMetadata><RequestId>" + x.id + "</RequestId></ResponseMetadata></" + name + "Response>")
	x.writeAs("text/xml", status, []byte(b.String()))
}

// writeMembers writes the rest of an object, to its end.
func writeMembers(b *strings.Builder, d *json.Decoder, maps []string) error {
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if err := writeElement(b, d, name, slices.Contains(maps, name), maps); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// writeElement writes the value that follows.
func writeElement(b *strings.Builder, d *json.Decoder, name string, isMap bool, maps []string) error {
	t, err := d.Token()
	if err != nil || t == nil {
		return err
	}
	b.WriteString("<" + name + ">")
	switch v := t.(type) {
	case json.Delim:
		if v == '[' {
			err = writeList(b, d, maps)
		} else if isMap {
			err = writeEntries(b, d, maps)
		} else {
			err = writeMembers(b, d, maps)
		}
	case string:
		err = xml.EscapeText(b, []byte(v))
	case json.Number:
		b.WriteString(v.String())
	case bool:
		if v {
			b.WriteString("true")
		} else {
			b.WriteString("false")
		}
	}
	b.WriteString("</" + name + ">")
	return err
}

func writeList(b *strings.Builder, d *json.Decoder, maps []string) error {
	for d.More() {
		if err := writeElement(b, d, "member", false, maps); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func writeEntries(b *strings.Builder, d *json.Decoder, maps []string) error {
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		b.WriteString("<entry><key>")
		if err := xml.EscapeText(b, []byte(key)); err != nil {
			return err
		}
		b.WriteString("</key>")
		if err := writeElement(b, d, "value", false, maps); err != nil {
			return err
		}
		b.WriteString("</entry>")
	}
	_, err := d.Token()
	return err
}

// errorXML is how an exception is answered.
type errorXML struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Namespace string   `xml:"xmlns,attr"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// queryCodes are the names that errors have in the query protocol.
var queryCodes = map[string]string{
	"IncompleteSignatureException": "IncompleteSignature", "InvalidSignatureException": "SignatureDoesNotMatch",
	"MissingAuthenticationTokenException": "MissingAuthenticationToken", "UnrecognizedClientException": "InvalidClientTokenId",
	"AccessDeniedException": "AccessDenied", "ThrottlingException": "Throttling",
}

func (x *exchange) exceptionXML(p protocol, exc aws.Exception) {
	e := errorXML{Namespace: p.Query, Type: "Sender", Code: exc.ErrorCode(), Message: exc.Error(), RequestID: x.id}
	if name := queryCodes[e.Code]; name != "" {
		e.Code = name
	}
	if exc.StatusCode() >= http.StatusInternalServerError {
		e.Type = "Receiver"
	}
	text, err := xml.Marshal(e)
	if err != nil {
		panic("api: " + err.Error()) // strings always marshal
	}
	x.writeAs("text/xml", exc.StatusCode(), text)
}
