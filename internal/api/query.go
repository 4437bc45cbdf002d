package api

import (
	"context"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"flotilla/internal/aws"
)

// queryService is a service with AWS's query protocol: a form in the body of POST / names the operation, and the
// answer is XML.
//
// AWS: https://docs.aws.amazon.com/STS/latest/APIReference/CommonParameters.html
type queryService struct {
	namespace  string
	operations map[string]func(ctx context.Context, in url.Values) (any, error)
}

// stsNamespace is that of the answers of STS.
const stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"

// queryServices are those that have the query protocol, by the service of the credential scope.
func (s *Server) queryServices() map[string]*queryService {
	return map[string]*queryService{
		"sts": {stsNamespace, map[string]func(context.Context, url.Values) (any, error){"GetCallerIdentity": s.getCallerIdentity}},
	}
}

// callerIdentity is the result of GetCallerIdentity.
type callerIdentity struct {
	Arn, UserId, Account string
}

// getCallerIdentity says who signed. No policy can deny it.
//
// AWS: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
func (s *Server) getCallerIdentity(ctx context.Context, _ url.Values) (any, error) {
	c := aws.CallerFrom(ctx)
	return callerIdentity{Arn: c.ARN, UserId: c.ID, Account: c.Account}, nil
}

// serveQuery serves a signed request of the query protocol.
func (x *exchange) serveQuery(q *queryService, p aws.Principal) {
	form := x.query
	if x.r.Method == http.MethodPost {
		var err error
		if form, err = url.ParseQuery(string(x.body)); err != nil {
			x.failQuery(q, &aws.CommonError{Status: http.StatusBadRequest, Code: "MalformedQueryString", Message: "The body is not a form."})
			return
		}
	}
	name := form.Get("Action")
	fn := q.operations[name]
	if x.path != "/" || fn == nil || len(form["Action"]) != 1 {
		x.failQuery(q, &aws.CommonError{
			Status: http.StatusBadRequest, Code: "InvalidAction",
			Message: "The operation " + printable(name) + " is not implemented. Those that are: GetCallerIdentity.",
		})
		return
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), x.s.cfg.Timeout)
	defer cancel()
	out, err := fn(aws.WithCaller(ctx, &aws.Caller{Principal: p, Account: x.s.account.ID, SourceIP: x.sourceIP(), RequestID: x.id}), form)
	if err != nil {
		x.failQuery(q, err)
		return
	}
	var b strings.Builder
	enc := xml.NewEncoder(&b)
	element := func(name string) xml.StartElement { return xml.StartElement{Name: xml.Name{Local: name}} }
	response, metadata := element(name+"Response"), element("ResponseMetadata")
	response.Attr = []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: q.namespace}}
	err = errors.Join(
		enc.EncodeToken(response), enc.EncodeElement(out, element(name+"Result")),
		enc.EncodeToken(metadata), enc.EncodeElement(x.id, element("RequestId")), enc.EncodeToken(metadata.End()),
		enc.EncodeToken(response.End()), enc.Flush(),
	)
	if err != nil {
		x.failQuery(q, err)
		return
	}
	x.writeAs("text/xml", http.StatusOK, []byte(b.String()))
}

// queryError is how an error is answered.
type queryError struct {
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
}

func (x *exchange) failQuery(q *queryService, err error) {
	exc, ok := errors.AsType[aws.Exception](err)
	if !ok {
		x.s.log.Error("an API request failed", "op", x.op(), "requestId", x.id, "err", err)
		exc = errInternal
	}
	e := queryError{Namespace: q.namespace, Type: "Sender", Code: exc.ErrorCode(), Message: exc.Error(), RequestID: x.id}
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
