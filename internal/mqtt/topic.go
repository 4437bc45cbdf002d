package mqtt

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of AWS on topic names and filters; a Basic Ingest or shared subscription
// prefix is not counted.
// AWS: https://docs.aws.amazon.com/general/latest/gr/iot-core.html
const (
	MaxTopicBytes     = 256
	MaxTopicSlashes   = 7
	MaxShareNameBytes = 128
)

const (
	sharePrefix       = "$share/"
	basicIngestPrefix = "$aws/rules/"
)

// ValidTopicName tells why s can not be the topic name of a PUBLISH; nil when it can.
// The error carries TopicNameInvalid [MQTT-3.3.2-2, MQTT-4.7.3-1].
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/topics.html
func ValidTopicName(s string) error {
	if err := validTopicText(s, TopicNameInvalid); err != nil {
		return err
	}
	if strings.ContainsAny(s, "+#") {
		return newError(TopicNameInvalid, "a topic name has no wildcards")
	}
	if s[0] == '$' {
		if !strings.HasPrefix(s, "$aws/") {
			return newError(TopicNameInvalid, "topics that begin with $ are reserved")
		}
		if rule, rest, ok := BasicIngest(s); ok {
			if rule == "" {
				return newError(TopicNameInvalid, "a Basic Ingest topic names a rule")
			}
			s = rest
		}
	}
	return validTopicSize(s, TopicNameInvalid)
}

// ValidTopicFilter tells why s can not be a topic filter of a SUBSCRIBE; nil when it
// can. Shared subscriptions are checked with their prefix. The error carries
// TopicFilterInvalid [MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.8.2-1, MQTT-4.8.2-2].
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/topics.html
func ValidTopicFilter(s string) error {
	if err := validTopicText(s, TopicFilterInvalid); err != nil {
		return err
	}
	if name, filter, ok := cutShare(s); ok {
		switch {
		case name == "" || len(name) > MaxShareNameBytes || strings.ContainsAny(name, "+#"):
			return newError(TopicFilterInvalid, "the name of a shared subscription has 1 to 128 bytes without / + #")
		case filter == "" || strings.HasPrefix(filter, sharePrefix):
			return newError(TopicFilterInvalid, "a shared subscription has a topic filter")
		}
		s = filter
	}
	if strings.HasPrefix(s, basicIngestPrefix) {
		return newError(TopicFilterInvalid, "Basic Ingest topics have no subscribers")
	}
	for rest, more := s, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#" && more:
			return newError(TopicFilterInvalid, "# is the last level of a filter")
		case len(level) > 1 && strings.ContainsAny(level, "+#"):
			return newError(TopicFilterInvalid, "a wildcard is a whole level")
		}
	}
	return validTopicSize(s, TopicFilterInvalid)
}

func validTopicText(s string, code ReasonCode) error {
	switch {
	case s == "":
		return newError(code, "it has at least one character")
	case len(s) > 65535:
		return newError(code, "it is too long")
	case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
		return newError(code, "it is UTF-8 without U+0000")
	}
	return nil
}

func validTopicSize(s string, code ReasonCode) error {
	if len(s) > MaxTopicBytes {
		return newError(code, fmt.Sprintf("it has at most %d bytes", MaxTopicBytes))
	}
	most := MaxTopicSlashes
	if strings.HasPrefix(s, "$aws/commands/") { // AWS's own topics of responses there have one more
		most++
	}
	if strings.Count(s, "/") > most {
		return newError(code, fmt.Sprintf("it has at most %d slashes", most))
	}
	return nil
}

// Share takes the filter of a shared subscription apart; ok is false when filter is
// not one. It checks nothing: see ValidTopicFilter.
func Share(filter string) (name, inner string, ok bool) { return cutShare(filter) }

// cutShare also accepts "$share/g", which has no inner filter.
func cutShare(s string) (name, filter string, ok bool) {
	rest, ok := strings.CutPrefix(s, sharePrefix)
	if !ok {
		return "", s, false
	}
	name, filter, _ = strings.Cut(rest, "/")
	return name, filter, true
}

// BasicIngest takes a Basic Ingest topic apart: the rule, and the topic that the rule
// sees; ok is false for other topics.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-basic-ingest.html
func BasicIngest(topic string) (rule, rest string, ok bool) {
	s, ok := strings.CutPrefix(topic, basicIngestPrefix)
	if !ok {
		return "", "", false
	}
	rule, rest, _ = strings.Cut(s, "/")
	return rule, rest, true
}

// HasWildcard tells whether a filter has a wildcard level.
func HasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

// Match tells whether a valid filter matches a topic. A shared subscription matches
// what its inner filter matches. Wildcards at the first level do not match topics
// that begin with $ [MQTT-4.7.2-1], and # stands for at least one level, unlike in
// the standard.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html#mqtt-differences
func Match(filter, topic string) bool {
	_, filter, _ = cutShare(filter)
	if filter == "" || topic == "" {
		return false
	}
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if fmore != tmore {
			return false
		}
		if !fmore {
			return true
		}
		filter, topic = frest, trest
	}
}
