package function

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/lambda"
	"flotilla/internal/store"
)

// maxPolicyBytes bounds the policy of a function, as AWS does.
const maxPolicyBytes = 20480

// iotPrincipal is whom rooms of this server act as when they invoke functions.
const iotPrincipal = "iot.amazonaws.com"

// statement is one permission to invoke a function.
type statement struct {
	ID, Action, Principal string
	SourceARN, Account    string `json:",omitzero"`
}

// policyStatement is a statement as policies have it.
type policyStatement struct {
	Sid       string
	Effect    string
	Principal any
	Action    string
	Resource  string
	Condition map[string]map[string]string `json:",omitempty"`
}

func (s *statement) policy(resource string) *policyStatement {
	p := &policyStatement{Sid: s.ID, Effect: "Allow", Action: s.Action, Resource: resource}
	switch {
	case s.Principal == "*":
		p.Principal = "*"
	case strings.HasSuffix(s.Principal, ".amazonaws.com"):
		p.Principal = map[string]string{"Service": s.Principal}
	case strings.HasPrefix(s.Principal, "arn:"):
		p.Principal = map[string]string{"AWS": s.Principal}
	default:
		p.Principal = map[string]string{"AWS": "arn:aws:iam::" + s.Principal + ":root"}
	}
	if s.Account != "" {
		p.Condition = map[string]map[string]string{"StringEquals": {"AWS:SourceAccount": s.Account}}
	}
	if s.SourceARN != "" {
		if p.Condition == nil {
			p.Condition = map[string]map[string]string{}
		}
		p.Condition["ArnLike"] = map[string]string{"AWS:SourceArn": s.SourceARN}
	}
	return p
}

// allows tells whether a permission lets IoT invoke the function for a resource of the account.
func (s *statement) allows(source, account string) bool {
	switch {
	case s.Principal != iotPrincipal && s.Principal != "*",
		s.Action != "lambda:InvokeFunction" && s.Action != "lambda:*" && s.Action != "*",
		s.Account != "" && s.Account != account:
		return false
	}
	return s.SourceARN == "" || like(s.SourceARN, source)
}

// like matches as the condition ArnLike does: * is any text, ? any character, in each part of the ARN.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
func like(pattern, arn string) bool {
	p, a := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	if len(p) != 6 || len(a) != 6 {
		return false
	}
	for i := range p {
		if !glob(p[i], a[i]) {
			return false
		}
	}
	return true
}

func glob(pattern, text string) bool {
	star, mark, i, j := -1, 0, 0, 0
	for j < len(text) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == text[j]):
			i, j = i+1, j+1
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// permitted holds the call of a room against the permissions of the function.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/access-control-resource-based.html
func (f *Functions) permitted(ctx context.Context, c *chosen) error {
	source, qualifier := aws.SourceFrom(ctx), c.qualifier
	if qualifier == latestTag {
		qualifier = ""
	}
	for _, s := range c.settings.Statements[qualifier] {
		if s.allows(source, f.account.ID) {
			return nil
		}
	}
	return &DeniedError{c.name, source}
}

func (f *Functions) policy(r *record, qualifier string) string {
	resource := f.arn(r.name)
	if qualifier != "" {
		resource += ":" + qualifier
	}
	document := struct {
		Version   string
		ID        string `json:"Id"`
		Statement []*policyStatement
	}{Version: "2012-10-17", ID: "default"}
	for _, s := range r.settings.Statements[qualifier] {
		document.Statement = append(document.Statement, s.policy(resource))
	}
	text, _ := json.Marshal(&document) // strings alone: it can't fail
	return string(text)
}

// AddPermission lets a principal invoke a function. What Flotilla holds against permissions are the calls of its own rules,
// authorizers and provisioning templates: they act as iot.amazonaws.com, with their ARN as the source.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
func (f *Functions) AddPermission(ctx context.Context, in *lambda.AddPermissionRequest) (*lambda.AddPermissionResponse, error) {
	err := refused(map[string]bool{
		"EventSourceToken": in.EventSourceToken != nil, "PrincipalOrgID": in.PrincipalOrgID != nil,
		"FunctionUrlAuthType": in.FunctionUrlAuthType != nil, "InvokedViaFunctionUrl": value(in.InvokedViaFunctionUrl),
	})
	if err != nil {
		return nil, err
	}
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	if c.qualifier == latestTag {
		return nil, invalid("We currently do not support adding policies for $LATEST.")
	}
	s := &statement{ID: in.StatementId, Action: in.Action, Principal: in.Principal, SourceARN: value(in.SourceArn), Account: value(in.SourceAccount)}
	var out *lambda.AddPermissionResponse
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		if err := revised(r, in.RevisionId); err != nil {
			return err
		}
		list := r.settings.Statements[c.qualifier]
		if slices.ContainsFunc(list, func(o *statement) bool { return o.ID == s.ID }) {
			return &lambda.ResourceConflictException{Type: "User", Message: "The statement id (" + s.ID + ") provided already exists. Please provide a new statement id, or remove the existing statement."}
		}
		if r.settings.Statements == nil {
			r.settings.Statements = map[string][]*statement{}
		}
		r.settings.Statements[c.qualifier] = append(list, s)
		if size := len(f.policy(r, c.qualifier)); size > maxPolicyBytes {
			return &lambda.PolicyLengthExceededException{Type: "User", Message: "The final policy size is bigger than the limit (20480)."}
		}
		r.settings.PolicyRevision = uuid.NewString()
		resource := f.arn(r.name)
		if c.qualifier != "" {
			resource += ":" + c.qualifier
		}
		text, _ := json.Marshal(s.policy(resource)) // strings alone: it can't fail
		out = &lambda.AddPermissionResponse{Statement: new(string(text))}
		return updateFunction(tx, r)
	})
	return out, err
}

// revised holds the revision of a policy that a caller knows against the one that is.
func revised(r *record, revision *string) error {
	if revision == nil {
		return nil
	}
	return precondition(&version{revision: r.settings.PolicyRevision}, revision)
}

// RemovePermission takes a permission back.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_RemovePermission.html
func (f *Functions) RemovePermission(ctx context.Context, in *lambda.RemovePermissionRequest) (*lambda.RemovePermissionResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	err = f.change(ctx, c.name, func(_ context.Context, tx store.Tx, r *record) error {
		if err := revised(r, in.RevisionId); err != nil {
			return err
		}
		list := r.settings.Statements[c.qualifier]
		i := slices.IndexFunc(list, func(o *statement) bool { return o.ID == in.StatementId })
		if i < 0 {
			return &lambda.ResourceNotFoundException{Type: "User", Message: "Statement " + in.StatementId + " is not found in resource policy."}
		}
		r.settings.Statements[c.qualifier] = slices.Delete(list, i, i+1)
		r.settings.PolicyRevision = uuid.NewString()
		return updateFunction(tx, r)
	})
	return &lambda.RemovePermissionResponse{}, err
}

// GetPolicy gives the permissions of a function as a policy.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetPolicy.html
func (f *Functions) GetPolicy(ctx context.Context, in *lambda.GetPolicyRequest) (*lambda.GetPolicyResponse, error) {
	c, err := f.choose(ctx, in.FunctionName, value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	if len(c.settings.Statements[c.qualifier]) == 0 {
		return nil, &lambda.ResourceNotFoundException{Type: "User", Message: "The resource you requested does not exist."}
	}
	return &lambda.GetPolicyResponse{Policy: new(f.policy(c.record, c.qualifier)), RevisionId: &c.settings.PolicyRevision}, nil
}
