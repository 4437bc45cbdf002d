package lang

import "strings"

// Action is a policy action of devices.
type Action struct {
	Name     string // as AWS spells it, "iot:Publish"
	Resource string // kind of the resource that it is asked about, "topic"; "" when that is always "*"
	HTTP     bool   // asked for HTTPS requests only, where thing variables and the client id have no value
}

// actions are the policy actions of AWS IoT Core with the resources that they are asked about.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-policy-actions.html,
// https://docs.aws.amazon.com/iot/latest/developerguide/iot-action-resources.html
var actions = []Action{
	{Name: "iot:Connect", Resource: "client"},
	{Name: "iot:Publish", Resource: "topic"},
	{Name: "iot:RetainPublish", Resource: "topic"},
	{Name: "iot:Subscribe", Resource: "topicfilter"},
	{Name: "iot:Receive", Resource: "topic"},
	{Name: "iot:GetRetainedMessage", Resource: "topic", HTTP: true},
	{Name: "iot:ListRetainedMessages", HTTP: true},
	{Name: "iot:DeleteConnection", Resource: "client", HTTP: true},
	{Name: "iot:GetThingShadow", Resource: "thing", HTTP: true},
	{Name: "iot:UpdateThingShadow", Resource: "thing", HTTP: true},
	{Name: "iot:DeleteThingShadow", Resource: "thing", HTTP: true},
	{Name: "iot:ListNamedShadowsForThing", HTTP: true},
	{Name: "iot:DescribeJobExecution", Resource: "thing", HTTP: true},
	{Name: "iot:GetPendingJobExecutions", Resource: "thing", HTTP: true},
	{Name: "iot:StartNextPendingJobExecution", Resource: "thing", HTTP: true},
	{Name: "iot:UpdateJobExecution", Resource: "thing", HTTP: true},
	{Name: "iot:AssumeRoleWithCertificate", Resource: "rolealias", HTTP: true},
}

// Actions lists the policy actions of AWS IoT Core. Those of a job execution have a second name in the service
// iotjobsdata, which newer pages use; a policy may say either.
func Actions() []Action { return append([]Action(nil), actions...) }

// ActionNamed gives the action of a name, in either service, compared without case.
func ActionNamed(name string) (Action, bool) {
	other := otherName(strings.ToLower(name))
	for _, a := range actions {
		if strings.EqualFold(a.Name, name) || other != "" && strings.EqualFold(a.Name, other) {
			return a, true
		}
	}
	return Action{}, false
}

const (
	coreService = "iot:"
	jobsService = "iotjobsdata:"
)

// otherName gives the second name of an action in lower case; "" when it has none.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-action-resources.html, where the four are
// iotjobsdata:..., and older editions of the page, where they are iot:...
func otherName(lower string) string {
	to := jobsService
	name, ok := strings.CutPrefix(lower, coreService)
	if !ok {
		to = coreService
		if name, ok = strings.CutPrefix(lower, jobsService); !ok {
			return ""
		}
	}
	switch name {
	case "describejobexecution", "getpendingjobexecutions", "startnextpendingjobexecution", "updatejobexecution":
		return to + name
	}
	return ""
}

// ResourceARN completes a resource as people write it, "a/b" or "topic/a/b", to the ARN that an action is asked about.
// What is "*" or begins with "arn:" stays as it is. prefix is the ARN up to the resource, "arn:aws:iot:us-east-1:123456789012:".
func ResourceARN(prefix, action, text string) string {
	if text == "*" || strings.HasPrefix(text, "arn:") {
		return text
	}
	a, ok := ActionNamed(action)
	if !ok || a.Resource == "" || hasKind(text) {
		return prefix + text
	}
	return prefix + a.Resource + "/" + text
}

// hasKind tells whether a text begins with the kind of a resource.
func hasKind(text string) bool {
	kind, _, ok := strings.Cut(text, "/")
	if !ok {
		return false
	}
	for _, a := range actions {
		if a.Resource == kind {
			return true
		}
	}
	return false
}
