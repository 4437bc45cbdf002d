package lint

import "fmt"

// Severity says how bad a finding is. The zero value is the mildest.
type Severity uint8

// The severities, from worth a look to an open door.
const (
	Info Severity = iota
	Low
	Medium
	High
)

var severityNames = []string{"info", "low", "medium", "high"}

func (s Severity) String() string { return severityNames[s] }

// MarshalText gives the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseSeverity reads a name.
func ParseSeverity(name string) (Severity, error) {
	for i, n := range severityNames {
		if n == name {
			return Severity(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no severity: info, low, medium or high", name)
}

// Rule is a kind of finding.
type Rule struct {
	ID       string
	Severity Severity
	Title    string // what is found, in a few words
	Fix      string
}

// Finding is one place where a rule was broken.
type Finding struct {
	Rule      string   `json:"rule"`
	Severity  Severity `json:"severity"`
	Statement int      `json:"statement"` // index from 0; -1 for the document as a whole
	Sid       string   `json:"sid,omitempty"`
	Resource  string   `json:"resource,omitempty"` // the resource, action, variable or key in question; "" for all of the statement
	Reason    string   `json:"reason"`
	Fix       string   `json:"fix"`
}

// Ids of the rules.
const (
	connectAny        = "connect-any-client"
	connectUnbound    = "connect-not-bound"
	connectUnattached = "connect-not-attached"
	unboundClientID   = "unbound-client-id"
	actionWildcard    = "action-wildcard"
	resourceWildcard  = "resource-wildcard"
	publishReserved   = "publish-reserved"
	foreignThing      = "foreign-thing"
	subscribeAll      = "subscribe-all"
	anyRoleAlias      = "any-role-alias"
	notAction         = "not-action"
	notResource       = "not-resource"
	subscribeOnTopic  = "subscribe-on-topic"
	resourceKind      = "resource-kind"
	mqttWildcard      = "mqtt-wildcard-in-topic"
	denyFilter        = "deny-filter-literal"
	denyEvaded        = "deny-subscribe-evaded"
	receiveMissing    = "receive-missing"
	receiveWider      = "receive-wider"
	publishMissing    = "publish-missing"
	unknownVariable   = "unknown-variable"
	variableHTTP      = "variable-not-over-https"
	unknownAction     = "unknown-action"
	deadStatement     = "dead-statement"
	redundant         = "redundant-statement"
)

// rules in the order of the documentation.
var rules = []Rule{
	{connectAny, High, "a client may connect under any client id, and end the connection of any other", "Allow client/${iot:Connection.Thing.ThingName}, with the condition iot:Connection.Thing.IsAttached true."},
	{connectUnbound, Medium, "the client ids that a client may take are not bound to its certificate", "Add the condition iot:Connection.Thing.IsAttached true, or name the client by ${iot:Connection.Thing.ThingName}."},
	{connectUnattached, Info, "iot:Connect by thing name without the condition IsAttached", "Add the condition iot:Connection.Thing.IsAttached true: it says what is meant, and keeps meaning it when the resource is widened."},
	{unboundClientID, High, "${iot:ClientId} guards topics, but the client chooses its id freely; \"+\" is one", "Bind iot:Connect to the thing, or use ${iot:Connection.Thing.ThingName} in topics."},
	{actionWildcard, High, "every action is allowed, those of later releases too", "List the actions that the device needs."},
	{resourceWildcard, High, "every resource of a kind is allowed", "Name the topics of the device, with a policy variable as one of their levels."},
	{publishReserved, High, "publishing to reserved topics beyond the device's own", "Allow $aws/things/${iot:Connection.Thing.ThingName}/... and the $aws/rules/<rule>/... that the device uses."},
	{foreignThing, High, "shadows and jobs of other things are allowed", "Put ${iot:Connection.Thing.ThingName} where the name of the thing stands; over HTTPS, where it has no value, the name itself or a certificate variable."},
	{subscribeAll, High, "a subscription to everything is allowed", "Name the topic filters of the device."},
	{anyRoleAlias, High, "any role alias may be assumed", "Name the role aliases."},
	{notAction, High, "Allow with NotAction allows every action but a few", "List the actions in Action; forbid with a Deny statement."},
	{notResource, High, "Allow with NotResource allows every resource but a few", "List the resources in Resource; forbid with a Deny statement."},
	{subscribeOnTopic, High, "iot:Subscribe on topic/..., which it is never asked about", "Write topicfilter/... for iot:Subscribe, topic/... for iot:Publish and iot:Receive."},
	{resourceKind, Medium, "an action and a resource that do not fit each other", "See the table of actions for the resource of each."},
	{mqttWildcard, Medium, "+ or # in topic/..., where they are ordinary characters that no topic name has", "Use * and ? in topic/...; + and # belong in topicfilter/..."},
	{denyFilter, Medium, "a Deny of a topic filter with + or #, which denies this one filter and none that overlaps it", "Deny iot:Receive on topic/... with *: it is asked for each message, whatever the filter."},
	{denyEvaded, Medium, "a Deny of iot:Subscribe that a filter with wildcards walks around", "Deny iot:Receive on the same topics as well, or allow only the filters that are needed."},
	{receiveMissing, Medium, "iot:Subscribe without iot:Receive: no message arrives", "Allow iot:Receive on topic/... of the same names, here or in another policy of the device."},
	{receiveWider, Low, "iot:Receive is allowed for more than iot:Subscribe", "Give both the same names: topic/... and topicfilter/..."},
	{publishMissing, Low, "iot:RetainPublish without iot:Publish, which is asked first", "Allow iot:Publish on the same topics."},
	{unknownVariable, Medium, "a policy variable or condition key that never has a value", "See the table of variables for the names."},
	{variableHTTP, Medium, "a variable of MQTT connections in a statement about HTTPS requests", "Use a certificate variable, or the name itself."},
	{unknownAction, Medium, "an action that devices are never asked for", "See the table of actions; what an API caller may do stands in other policies."},
	{deadStatement, Medium, "a statement that can never decide", "Remove it, or mend what keeps it from applying."},
	{redundant, Info, "a statement that another one of the policy contains", "Remove it."},
}

// Rules lists the rules.
func Rules() []Rule { return append([]Rule(nil), rules...) }

func ruleOf(id string) Rule {
	for _, r := range rules {
		if r.ID == id {
			return r
		}
	}
	panic("lint: no rule " + id)
}
