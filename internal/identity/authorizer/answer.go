package authorizer

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"flotilla/internal/policy/lang"
)

// AWS's limits of an answer.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-lambda.html
const (
	maxAnswer    = 128 << 10 // bytes; ten documents of 2,048 characters, escaped and indented, take less
	maxDocuments = 10
	minSeconds   = 300
	maxSeconds   = 86400
)

var (
	validPrincipal   = regexp.MustCompile(`^[a-zA-Z0-9]{1,128}$`)
	allowInvalidUTF8 = jsontext.AllowInvalidUTF8(true)
)

// answer is what an authorizer's function answers, checked.
type answer struct {
	authenticated   bool
	principal       string
	documents       []string
	disconnectAfter time.Duration
	refreshAfter    time.Duration
	policies        *lang.Set
}

// decodeAnswer reads and checks an answer: a JSON object, or a JSON string that holds one (functions often encode
// twice). Policy documents are objects or strings that hold them. Unknown members are left alone, those of the wrong
// type or twice there are errors.
//
// Of an answer that says isAuthenticated false nothing else is looked at. Without disconnectAfterInSeconds a
// connection lasts as long as it may, without refreshAfterInSeconds its policies hold as long as it lasts.
func decodeAnswer(authorizer string, text []byte) (*answer, error) {
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), maxAnswer)
	}
	if jsontext.Value(text).Kind() == '"' {
		var inner string
		if err := json.Unmarshal(text, &inner); err != nil {
			return nil, errors.New("it is not JSON")
		}
		text = []byte(inner)
	}
	var in struct {
		IsAuthenticated *bool            `json:"isAuthenticated"`
		PrincipalID     jsontext.Value   `json:"principalId"`
		PolicyDocuments []jsontext.Value `json:"policyDocuments"`
		DisconnectAfter *int64           `json:"disconnectAfterInSeconds"`
		RefreshAfter    *int64           `json:"refreshAfterInSeconds"`
	}
	if jsontext.Value(text).Kind() != '{' {
		return nil, errors.New("it is not a JSON object")
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, shape(err)
	}
	if in.IsAuthenticated == nil {
		return nil, errors.New("isAuthenticated is missing")
	}
	a := &answer{authenticated: *in.IsAuthenticated}
	if !a.authenticated {
		return a, nil
	}
	if err := json.Unmarshal(in.PrincipalID, &a.principal); err != nil || !validPrincipal.MatchString(a.principal) {
		return nil, errors.New("principalId is not of 1 to 128 letters and digits")
	}
	var err error
	if a.disconnectAfter, err = seconds("disconnectAfterInSeconds", in.DisconnectAfter, maxSeconds*time.Second); err != nil {
		return nil, err
	}
	if a.refreshAfter, err = seconds("refreshAfterInSeconds", in.RefreshAfter, a.disconnectAfter); err != nil {
		return nil, err
	}
	return a, a.compile(authorizer, in.PolicyDocuments)
}

// shape tells which member is wrong, without its value.
func shape(err error) error {
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return fmt.Errorf("%s is a %s", e.JSONPointer, e.JSONKind)
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(e, jsontext.ErrDuplicateName) {
		return fmt.Errorf("%s is there twice", e.JSONPointer)
	}
	return errors.New("it is not JSON")
}

func seconds(name string, given *int64, otherwise time.Duration) (time.Duration, error) {
	if given == nil {
		return otherwise, nil
	}
	if *given < minSeconds || *given > maxSeconds {
		return 0, fmt.Errorf("%s is not within 300 to 86400", name)
	}
	return time.Duration(*given) * time.Second, nil
}

// compile checks the policy documents by the rules of CreatePolicy.
func (a *answer) compile(authorizer string, documents []jsontext.Value) error {
	if len(documents) > maxDocuments {
		return fmt.Errorf("it has %d policyDocuments, at most 10 are allowed", len(documents))
	}
	named := make([]lang.Named, 0, len(documents))
	for i, d := range documents {
		var text string
		switch d.Kind() {
		case '"':
			if err := json.Unmarshal(d, &text); err != nil {
				return fmt.Errorf("policyDocuments[%d] is not a string", i)
			}
		case '{':
			if err := d.Compact(); err != nil {
				return fmt.Errorf("policyDocuments[%d] is not JSON", i)
			}
			text = string(d)
		default:
			return fmt.Errorf("policyDocuments[%d] is neither an object nor a string", i)
		}
		if err := lang.Validate(text); err != nil {
			return fmt.Errorf("policyDocuments[%d]: %w", i, err)
		}
		parsed, err := lang.Parse(text)
		if err != nil {
			return fmt.Errorf("policyDocuments[%d]: %w", i, err)
		}
		a.documents = append(a.documents, text)
		named = append(named, lang.Named{Name: fmt.Sprintf("%s policyDocuments[%d]", authorizer, i), Document: parsed})
	}
	a.policies = lang.Compile(named...)
	return nil
}
