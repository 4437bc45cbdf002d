package function

import "testing"

// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
func TestPermissionsAreHeld(t *testing.T) {
	const account, rule = "123456789012", "arn:aws:iot:us-east-1:123456789012:rule/work"
	for name, c := range map[string]struct {
		statement
		source string
		want   bool
	}{
		"any source":         {statement{Principal: iotPrincipal, Action: "lambda:InvokeFunction"}, rule, true},
		"unknown source":     {statement{Principal: iotPrincipal, Action: "lambda:InvokeFunction"}, "", true},
		"everybody":          {statement{Principal: "*", Action: "lambda:*"}, rule, true},
		"that source":        {statement{Principal: iotPrincipal, Action: "lambda:InvokeFunction", SourceARN: rule}, rule, true},
		"pattern":            {statement{Principal: iotPrincipal, Action: "*", SourceARN: "arn:aws:iot:*:123456789012:rule/w?r*"}, rule, true},
		"that account":       {statement{Principal: iotPrincipal, Action: "*", Account: account}, rule, true},
		"other principal":    {statement{Principal: "sns.amazonaws.com", Action: "*"}, rule, false},
		"other action":       {statement{Principal: iotPrincipal, Action: "lambda:GetFunction"}, rule, false},
		"other account":      {statement{Principal: iotPrincipal, Action: "*", Account: "999999999999"}, rule, false},
		"other source":       {statement{Principal: iotPrincipal, Action: "*", SourceARN: rule + "2"}, rule, false},
		"source not known":   {statement{Principal: iotPrincipal, Action: "*", SourceARN: rule}, "", false},
		"star stays in part": {statement{Principal: iotPrincipal, Action: "*", SourceARN: "arn:aws:*:rule/work"}, rule, false},
	} {
		if got := c.allows(c.source, account); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
