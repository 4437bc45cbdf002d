package mqtt_test

import (
	"testing"

	"flotilla/internal/mqtt"
)

// Jobs of a namespace are asked for, and worked off, on topics that name it.
func TestMayPublishOfNamespace(t *testing.T) {
	for topic, want := range map[string]bool{
		"$aws/things/t/jobs/$next/namespace-a/get":          true,
		"$aws/things/t/jobs/j/namespace-a/update":           true,
		"$aws/things/t/jobs/j/namespace-a/update/accepted":  false,
		"$aws/things/t/jobs/j/namespace-/update":            false,
		"$aws/things/t/jobs/j/other-a/update":               false,
		"$aws/things/t/jobs/j/namespace-a/start-next":       false,
		"$aws/things/t/jobs/notify-next-namespace-a":        false,
		"$aws/things/t/jobs//namespace-a/get":               false,
		"$aws/things/t/jobs/j/namespace-a/namespace-b/get":  false,
		"$aws/things//jobs/j/namespace-a/get":               false,
		"$aws/things/t/shadow/name/namespace-a/update/more": false,
	} {
		if got := mqtt.MayPublish(topic); got != want {
			t.Errorf("%s: %v", topic, got)
		}
	}
}
