package mqtt

import "strings"

// Reserved tells whether a topic name or filter belongs to AWS IoT.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/reserved-topics.html
func Reserved(topic string) bool { return topic != "" && topic[0] == '$' }

// publishable are the reserved topics that clients publish to; {format} is json or
// cbor, {namespace} is namespace- and a name. All others are spoken by the service only.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/reserved-topics.html
var publishable = [...]string{
	"things/+/shadow/get",
	"things/+/shadow/update",
	"things/+/shadow/delete",
	"things/+/shadow/name/+/get",
	"things/+/shadow/name/+/update",
	"things/+/shadow/name/+/delete",
	"things/+/jobs/get",
	"things/+/jobs/start-next",
	"things/+/jobs/+/get",
	"things/+/jobs/+/update",
	"things/+/jobs/+/{namespace}/get",
	"things/+/jobs/+/{namespace}/update",
	"certificates/create/{format}",
	"certificates/create-from-csr/{format}",
	"provisioning-templates/+/provision/{format}",
	"things/+/streams/+/get/{format}",
	"things/+/streams/+/describe/{format}",
	"things/+/defender/metrics/{format}",
	"commands/things/+/executions/+/response",
	"commands/clients/+/executions/+/response",
	"commands/things/+/executions/+/response/{format}",
	"commands/clients/+/executions/+/response/{format}",
	"device_location/+/get_position_estimate",
}

// MayPublish tells whether clients may publish to a valid topic name, as far as the
// reserved topics go.
func MayPublish(topic string) bool {
	if !Reserved(topic) {
		return true
	}
	rest, ok := strings.CutPrefix(topic, "$aws/")
	if !ok {
		return false
	}
	if rule, _, ok := BasicIngest(topic); ok {
		return rule != ""
	}
	for _, p := range publishable {
		if matchReserved(p, rest) {
			return true
		}
	}
	return false
}

// matchReserved is Match with non-empty names and formats.
func matchReserved(pattern, topic string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, "/")
		t, trest, tmore := strings.Cut(topic, "/")
		switch {
		case pmore != tmore:
			return false
		case p == "+":
			if t == "" {
				return false
			}
		case p == "{namespace}":
			if name, ok := strings.CutPrefix(t, "namespace-"); !ok || name == "" {
				return false
			}
		case p == "{format}":
			if t != "json" && t != "cbor" {
				return false
			}
		case p != t:
			return false
		}
		if !pmore {
			return true
		}
		pattern, topic = prest, trest
	}
}

// Confidential tells whether messages on a topic carry what only the service and one
// client may know: ownership tokens, keys. Nobody else is shown them, rules included.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
func Confidential(topic string) bool {
	return strings.HasPrefix(topic, "$aws/certificates/create") || strings.HasPrefix(topic, "$aws/provisioning-templates/")
}

// MayRetain tells whether a PUBLISH to a valid topic name may have RETAIN set.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html#mqtt-retain
func MayRetain(topic string) bool { return !Reserved(topic) }

// MaySubscribe tells whether clients may subscribe to a valid filter, as far as the
// reserved topics go: to anything but Basic Ingest topics.
func MaySubscribe(filter string) bool {
	_, filter, _ = cutShare(filter)
	return !strings.HasPrefix(filter, basicIngestPrefix)
}
