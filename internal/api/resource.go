package api

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"flotilla/internal/aws"
	"flotilla/internal/aws/wire"
)

// anyResource is the resource of operations that name none.
const anyResource = "*"

// resourceTypes are the kinds of AWS IoT's resources, by the label of the path that names one; "" is a part of
// another's name, or nothing that policies name.
//
// AWS: https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsiot.html
var resourceTypes = map[string]string{
	"actionName": "mitigationaction", "authorizerName": "authorizer", "billingGroupName": "billinggroup",
	"caCertificateId": "cacert", "certificateId": "cert", "certificateProviderName": "certificateprovider", "clientId": "client",
	"commandId": "command", "domainConfigurationName": "domainconfiguration", "indexName": "index", "jobId": "job",
	"jobTemplateId": "jobtemplate", "name": "dimension", "otaUpdateId": "otaupdate", "packageName": "package",
	"policyName": "policy", "roleAlias": "rolealias", "ruleName": "rule", "scheduledAuditName": "scheduledaudit",
	"securityProfileName": "securityprofile", "streamId": "stream", "templateName": "provisioningtemplate",
	"thingGroupName": "thinggroup", "thingName": "thing", "thingTypeName": "thingtype", "topic": "topic",

	"confirmationToken": "", "executionId": "", "executionNumber": "", "findingId": "", "policyVersionId": "", "taskId": "",
	"versionId": "", "violationId": "",
}

// source is where a request names a resource: a member of the body, which may be a list, a parameter of the query, a
// header, or a label. kind is the type of resource; "" when the value is an ARN.
type source struct {
	from       func(x *exchange, name string) ([]string, error)
	name, kind string
	otherwise  string // the value when there is none; "" = none
}

// sources are those of operations whose labels don't tell. An operation is allowed when it is on all its resources.
// What an ARN names is looked for in this account and region, whatever the ARN says, as the rooms do.
var sources = map[string][]source{
	"AddThingToBillingGroup":      {{fromBody, "thingName", "thing", ""}, {fromBody, "thingArn", "", ""}, {fromBody, "billingGroupName", "billinggroup", ""}, {fromBody, "billingGroupArn", "", ""}},
	"AddThingToThingGroup":        {{fromBody, "thingName", "thing", ""}, {fromBody, "thingArn", "", ""}, {fromBody, "thingGroupName", "thinggroup", ""}, {fromBody, "thingGroupArn", "", ""}},
	"AssociateTargetsWithJob":     {{fromLabel, "jobId", "job", ""}, {fromBody, "targets", "", ""}},
	"AttachPolicy":                {{fromBody, "target", "", ""}},
	"AttachPrincipalPolicy":       {{fromHeader, "X-Amzn-Iot-Principal", "", ""}},
	"AttachSecurityProfile":       {{fromLabel, "securityProfileName", "securityprofile", ""}, {fromQuery, "securityProfileTargetArn", "", ""}},
	"AttachThingPrincipal":        {{fromHeader, "X-Amzn-Principal", "", ""}},
	"CreateJob":                   {{fromLabel, "jobId", "job", ""}, {fromBody, "targets", "", ""}, {fromBody, "jobTemplateArn", "", ""}},
	"CreateOTAUpdate":             {{fromLabel, "otaUpdateId", "otaupdate", ""}, {fromBody, "targets", "", ""}},
	"CreateProvisioningTemplate":  {{fromBody, "templateName", "provisioningtemplate", ""}},
	"CreateThingGroup":            {{fromLabel, "thingGroupName", "thinggroup", ""}, {fromBody, "parentGroupName", "thinggroup", ""}},
	"DeleteCommandExecution":      {{fromQuery, "targetArn", "", ""}},
	"DeleteTopicRuleDestination":  {{fromLabel, "arn", "", ""}},
	"DetachPolicy":                {{fromBody, "target", "", ""}},
	"DetachPrincipalPolicy":       {{fromHeader, "X-Amzn-Iot-Principal", "", ""}},
	"DetachSecurityProfile":       {{fromLabel, "securityProfileName", "securityprofile", ""}, {fromQuery, "securityProfileTargetArn", "", ""}},
	"DetachThingPrincipal":        {{fromHeader, "X-Amzn-Principal", "", ""}},
	"DescribeManagedJobTemplate":  {{fromLabel, "templateName", "jobtemplate", ""}},
	"GetBucketsAggregation":       {{fromBody, "indexName", "index", "AWS_Things"}},
	"GetCardinality":              {{fromBody, "indexName", "index", "AWS_Things"}},
	"GetCommandExecution":         {{fromQuery, "targetArn", "", ""}},
	"GetEffectivePolicies":        {{fromBody, "principal", "", ""}},
	"GetPercentiles":              {{fromBody, "indexName", "index", "AWS_Things"}},
	"GetStatistics":               {{fromBody, "indexName", "index", "AWS_Things"}},
	"GetTopicRuleDestination":     {{fromLabel, "arn", "", ""}},
	"ListAttachedPolicies":        {{fromLabel, "target", "", ""}},
	"ListCommandExecutions":       {{fromBody, "commandArn", "", ""}, {fromBody, "targetArn", "", ""}},
	"ListPolicyPrincipals":        {{fromHeader, "X-Amzn-Iot-Policy", "policy", ""}},
	"ListPrincipalPolicies":       {{fromHeader, "X-Amzn-Iot-Principal", "", ""}},
	"ListPrincipalThings":         {{fromHeader, "X-Amzn-Principal", "", ""}},
	"ListPrincipalThingsV2":       {{fromHeader, "X-Amzn-Principal", "", ""}},
	"ListTagsForResource":         {{fromQuery, "resourceArn", "", ""}},
	"RemoveThingFromBillingGroup": {{fromBody, "thingName", "thing", ""}, {fromBody, "thingArn", "", ""}, {fromBody, "billingGroupName", "billinggroup", ""}, {fromBody, "billingGroupArn", "", ""}},
	"RemoveThingFromThingGroup":   {{fromBody, "thingName", "thing", ""}, {fromBody, "thingArn", "", ""}, {fromBody, "thingGroupName", "thinggroup", ""}, {fromBody, "thingGroupArn", "", ""}},
	"SearchIndex":                 {{fromBody, "indexName", "index", "AWS_Things"}},
	"SetDefaultAuthorizer":        {{fromBody, "authorizerName", "authorizer", ""}},
	"TagResource":                 {{fromBody, "resourceArn", "", ""}},
	"TestAuthorization":           {{fromBody, "principal", "", ""}},
	"UntagResource":               {{fromBody, "resourceArn", "", ""}},
	"StartCommandExecution":       {{fromBody, "commandArn", "", ""}, {fromBody, "targetArn", "", ""}},
	"UpdateThingGroupsForThing":   {{fromBody, "thingName", "thing", ""}, {fromBody, "thingGroupsToAdd", "thinggroup", ""}, {fromBody, "thingGroupsToRemove", "thinggroup", ""}},
	"UpdateTopicRuleDestination":  {{fromBody, "arn", "", ""}},
}

// resources are the ARNs of what the operation acts on, as policies name them; ["*"] when it names nothing.
func (x *exchange) resources() ([]string, error) {
	switch e := x.endpoint; {
	case e.Service != "iot" && e.Service != "iotdata" && e.Service != "iot-jobs-data":
		return x.resourceOfOther()
	case e.Service != "iotdata" && sources[e.Name] != nil:
		return x.resourcesOf(sources[e.Name])
	default:
		return x.resourcesOfLabels(), nil
	}
}

func (x *exchange) resourcesOf(list []source) ([]string, error) {
	var out []string
	for _, s := range list {
		values, err := s.from(x, s.name)
		if err != nil {
			return nil, err
		}
		if len(values) == 0 && s.otherwise != "" {
			values = []string{s.otherwise}
		}
		for _, v := range values {
			arn := x.s.account.ARN("iot", s.kind+"/"+v)
			if s.kind == "" {
				arn = x.arn(v)
			}
			if !slices.Contains(out, arn) {
				out = append(out, arn)
			}
		}
	}
	if out == nil {
		return []string{anyResource}, nil
	}
	return out, nil
}

// arn is what a text that should be an ARN names in this account. What is none names a certificate.
func (x *exchange) arn(text string) string {
	a, ok := aws.ParseARN(text)
	switch {
	case !ok:
		return x.s.account.ARN("iot", "cert/"+text)
	case a.Service == "iot":
		return x.s.account.ARN("iot", a.Resource)
	}
	return text
}

func (x *exchange) resourcesOfLabels() []string {
	var out []string
	for i, name := range x.endpoint.labels {
		kind := resourceTypes[name]
		switch {
		case name == "metricName":
			kind = "custommetric"
			if strings.HasPrefix(x.endpoint.Path, "/fleet-metric") {
				kind = "fleetmetric"
			}
		case name == "versionName": // of the package before it
			out[len(out)-1] += "/version/" + x.labels[i]
			continue
		case x.endpoint.Name == "UpdateThingShadow" || x.endpoint.Name == "GetThingShadow" || x.endpoint.Name == "DeleteThingShadow":
			if shadow, _ := (&wire.Request{Query: x.query}).QueryValue("name"); shadow != "" {
				return []string{x.s.account.ARN("iot", "thing/"+x.labels[i]+"/"+shadow)}
			}
		}
		if kind != "" {
			out = append(out, x.s.account.ARN("iot", kind+"/"+x.labels[i]))
		}
	}
	if out == nil {
		return []string{anyResource}
	}
	return out
}

// resourceOfOther is the resource of an operation of another service than AWS IoT: an identity, a function, or what
// the path says.
func (x *exchange) resourceOfOther() ([]string, error) {
	e := x.endpoint
	if e.Target != "" {
		return x.resourceOfTarget()
	}
	if e.Service == "lambda" && e.Name == "CreateFunction" {
		names, err := fromBody(x, "FunctionName")
		if err != nil || len(names) != 1 {
			return []string{anyResource}, err
		}
		return []string{x.s.account.ARN("lambda", "function:"+functionName(names[0]))}, nil
	}
	user := x.query.Get("identityName") // of ListAccessKeys
	for i, name := range e.labels {
		switch {
		case e.Service == "lambda" && (name == "FunctionName" || name == "Resource"):
			return []string{x.s.account.ARN("lambda", "function:"+functionName(x.labels[i]))}, nil
		case e.Service == "flotilla" && name == "identityName":
			user = x.labels[i]
		}
	}
	switch {
	case e.Service == "flotilla" && user != "":
		return []string{"arn:aws:iam::" + x.s.account.ID + ":user/" + user}, nil
	case len(x.labels) == 0:
		return []string{anyResource}, nil
	}
	path := strings.TrimPrefix(e.Path, "/")
	for i, name := range e.labels {
		path = strings.Replace(strings.Replace(path, "{"+name+"}", x.labels[i], 1), "{"+name+"+}", x.labels[i], 1)
	}
	return []string{x.s.account.ARN(e.Service, path)}, nil
}

// targeted are the members that name the resource of an operation which a header or a form names, the more exact
// first. What is no ARN is the end of one.
//
// AWS: https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
var targeted = map[string][]struct{ member, kind string }{
	"sns":            {{"TopicArn", ""}, {"TargetArn", ""}, {"ResourceArn", ""}, {"SubscriptionArn", ""}, {"Name", ""}},
	"events":         {{"Arn", ""}, {"EventBusName", "event-bus/"}, {"Name", "rule/"}},
	"dynamodb":       {{"TableName", "table/"}, {"ResourceArn", ""}},
	"secretsmanager": {{"SecretId", "secret:"}, {"Name", "secret:"}},
	"sqs":            {{"QueueUrl", ""}, {"QueueName", ""}},
}

// resourceOfTarget is the resource that a member of the body names.
func (x *exchange) resourceOfTarget() ([]string, error) {
	e := x.endpoint
	if e.Service == "dynamodb" && (e.Name == "BatchGetItem" || e.Name == "BatchWriteItem") {
		return x.batchedTables()
	}
	for _, m := range targeted[e.Service] {
		values, err := fromBody(x, m.member)
		if err != nil {
			return nil, err
		}
		if len(values) == 0 {
			continue
		}
		name := values[0]
		if a, ok := aws.ParseARN(name); ok {
			return []string{x.s.account.ARN(e.Service, a.Resource)}, nil
		}
		if e.Service == "sqs" {
			name = name[strings.LastIndexByte(name, '/')+1:]
		}
		kind := m.kind
		if e.Service == "events" && strings.HasSuffix(e.Name, "EventBus") {
			kind = "event-bus/"
		}
		return []string{x.s.account.ARN(e.Service, kind+name)}, nil
	}
	return []string{anyResource}, nil
}

// batchedTables are the tables that a batch names.
func (x *exchange) batchedTables() ([]string, error) {
	members, err := x.members()
	if err != nil || members["RequestItems"] == nil {
		return []string{anyResource}, err
	}
	var tables map[string]jsontext.Value
	if err := json.Unmarshal(members["RequestItems"], &tables); err != nil || len(tables) == 0 {
		return nil, errBody
	}
	var out []string
	for name := range tables {
		if a, ok := aws.ParseARN(name); ok {
			name = strings.TrimPrefix(a.Resource, "table/")
		}
		out = append(out, x.s.account.ARN("dynamodb", "table/"+name))
	}
	slices.Sort(out)
	return out, nil
}

// functionName is the name in what Lambda takes for one: a name, an ARN or a part of it, each with or without a
// version.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html
func functionName(text string) string {
	if _, after, ok := strings.Cut(text, "function:"); ok {
		text = after
	}
	name, _, _ := strings.Cut(text, ":")
	return name
}

func fromLabel(x *exchange, name string) ([]string, error) {
	if i := slices.Index(x.endpoint.labels, name); i >= 0 {
		return []string{x.labels[i]}, nil
	}
	return nil, nil
}

func fromQuery(x *exchange, name string) ([]string, error) { return x.query[name], nil }

func fromHeader(x *exchange, name string) ([]string, error) { return x.r.Header[name], nil }

// fromBody gives the texts of a member of the body: one, or those of a list.
func fromBody(x *exchange, name string) ([]string, error) {
	members, err := x.members()
	if err != nil {
		return nil, err
	}
	raw := members[name]
	if raw == nil {
		return nil, nil
	}
	var out []string
	d := jsontext.NewDecoder(strings.NewReader(string(raw)))
	for {
		t, err := d.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, errBody
		case t.Kind() == '"':
			out = append(out, t.String())
		}
	}
}

var errBody = &aws.CommonError{Status: 400, Code: "SerializationException", Message: "The body is not a JSON object, or a name is in it twice."}

// members are those of the body's JSON object. Names that are there twice are refused, lest a decision be about one
// and the operation about the other.
func (x *exchange) members() (map[string]jsontext.Value, error) {
	if x.parsed != nil {
		return x.parsed, nil
	}
	members := map[string]jsontext.Value{}
	if len(x.body) > 0 {
		d := jsontext.NewDecoder(strings.NewReader(string(x.body)))
		if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
			return nil, errBody
		}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, errBody
			}
			text := name.String()
			value, err := d.ReadValue()
			if err != nil {
				return nil, errBody
			}
			members[text] = value.Clone()
		}
		if _, err := d.ReadToken(); err != nil {
			return nil, errBody
		}
	}
	x.parsed = members
	return members, nil
}
