package policy

import (
	"encoding/json"

	"flotilla/internal/aws"
	"flotilla/internal/policy/lang"
)

// claimSet is what a claim certificate of CreateProvisioningClaim may do: connect, and talk to the topics that make
// certificates and provision by its template. Nothing else, whatever is attached to it.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html#trusted-user
func claimSet(account aws.Account, template string) *lang.Set {
	provision := "$aws/provisioning-templates/" + template + "/provision/*"
	resources := func(kind string, topics ...string) (out []string) {
		for _, t := range topics {
			out = append(out, account.ARN("iot", kind+"/"+t))
		}
		return out
	}
	type statement struct {
		Sid, Effect string
		Action      []string
		Resource    []string
	}
	text, err := json.Marshal(map[string]any{
		"Version": "2012-10-17",
		"Statement": []statement{
			{"Connect", "Allow", []string{"iot:Connect"}, resources("client", "*")},
			{"Provision", "Allow", []string{"iot:Publish", "iot:Receive"}, resources("topic", "$aws/certificates/create/*", "$aws/certificates/create-from-csr/*", provision)},
			{"Replies", "Allow", []string{"iot:Subscribe"}, resources("topicfilter", "$aws/certificates/create/*", "$aws/certificates/create-from-csr/*", provision)},
		},
	})
	if err != nil {
		return nil // denies everything
	}
	d, err := lang.Parse(string(text))
	if err != nil {
		return nil
	}
	return lang.Compile(lang.Named{Name: "$claim/" + template, Document: d})
}
