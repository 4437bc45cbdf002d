package aws

import "strings"

// Account is the one AWS account that an installation plays, in the region it
// answers for.
type Account struct {
	ID     string // twelve digits
	Region string
}

// ARN is the name of one of the account's resources in a regional service:
// service "iot", resource "thing/lamp".
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
func (a Account) ARN(service, resource string) string {
	return "arn:aws:" + service + ":" + a.Region + ":" + a.ID + ":" + resource
}

// ARN is an Amazon Resource Name in its parts.
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

// ParseARN takes a name apart; ok is false for what is no ARN. The parts are not
// checked further: Region and Account may be empty, Resource is never.
func ParseARN(s string) (a ARN, ok bool) {
	p := strings.SplitN(s, ":", 6)
	if len(p) != 6 || p[0] != "arn" || p[1] == "" || p[2] == "" || p[5] == "" {
		return ARN{}, false
	}
	return ARN{p[1], p[2], p[3], p[4], p[5]}, true
}

// String puts the parts together again.
func (a ARN) String() string {
	return strings.Join([]string{"arn", a.Partition, a.Service, a.Region, a.Account, a.Resource}, ":")
}
