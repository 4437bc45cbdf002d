package sim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
)

// Cloud is the back end of a fleet: it sets up, through the public APIs, what
// devices and rules need.
type Cloud struct {
	iot     *iot.Client
	data    *iotdataplane.Client
	account string
	region  string
}

// NewCloud talks to the API at endpoint (a URL) with an access key.
func NewCloud(endpoint, region, accessKey, secretKey string) *Cloud {
	creds := credentials.NewStaticCredentialsProvider(accessKey, secretKey, "")
	return &Cloud{
		region: region,
		iot: iot.New(iot.Options{
			Region: region, Credentials: creds, BaseEndpoint: &endpoint, RetryMaxAttempts: 3,
		}),
		data: iotdataplane.New(iotdataplane.Options{
			Region: region, Credentials: creds, BaseEndpoint: &endpoint, RetryMaxAttempts: 3,
		}),
	}
}

// Names are what a story creates; they differ from run to run, so that a data
// directory can be used again.
type Names struct {
	Run           string
	ClaimPolicy   string
	DevicePolicy  string
	Template      string
	TelemetryRule string
	AlertRule     string
	Stream        string // kinesis
	Topic         string // sns
	Archive       string // firehose
}

// NamesOf derives the names of a run from its id: letters and digits.
func NamesOf(run string) Names {
	return Names{
		Run:         run,
		ClaimPolicy: "qs-" + run + "-claim", DevicePolicy: "qs-" + run + "-device", Template: "qs-" + run,
		TelemetryRule: "qs_" + run + "_telemetry", AlertRule: "qs_" + run + "_alert",
		Stream: "qs-" + run + "-telemetry", Topic: "qs-" + run + "-alerts", Archive: "qs-" + run + "-archive",
	}
}

func (n Names) telemetryTopic(thing string) string { return "telemetry/" + n.Run + "/" + thing }
func (n Names) alertTopic(thing string) string     { return "alerts/" + n.Run + "/" + thing }

type statement map[string]any

func policyDocument(statements ...statement) string {
	b, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		panic("sim: " + err.Error())
	}
	return string(b)
}

func allow(action string, resources ...string) statement {
	return statement{"Effect": "Allow", "Action": action, "Resource": resources}
}

// SetUp creates the claim certificate with its policy, the devices' policy, the
// provisioning template and the two rules, and returns the claim certificate.
func (c *Cloud) SetUp(ctx context.Context, n Names) (tls.Certificate, error) {
	claim, err := c.iot.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("create the claim certificate: %w", err)
	}
	cert, err := tls.X509KeyPair([]byte(*claim.CertificatePem), []byte(*claim.KeyPair.PrivateKey))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("claim certificate: %w", err)
	}
	parts := strings.Split(*claim.CertificateArn, ":")
	if len(parts) != 6 {
		return tls.Certificate{}, fmt.Errorf("claim certificate: %q is not an ARN", *claim.CertificateArn)
	}
	c.account = parts[4]
	if err := c.claimPolicy(ctx, n, *claim.CertificateArn); err != nil {
		return tls.Certificate{}, err
	}
	if err := c.devicePolicy(ctx, n); err != nil {
		return tls.Certificate{}, err
	}
	if err := c.template(ctx, n); err != nil {
		return tls.Certificate{}, err
	}
	return cert, c.rules(ctx, n)
}

func (c *Cloud) arn(resource string) string {
	return "arn:aws:iot:" + c.region + ":" + c.account + ":" + resource
}

// claimPolicy lets a claim certificate provision, and nothing else.
func (c *Cloud) claimPolicy(ctx context.Context, n Names, certificateARN string) error {
	var topics, filters []string
	for _, t := range []string{"$aws/certificates/create/*", "$aws/certificates/create-from-csr/*", "$aws/provisioning-templates/" + n.Template + "/provision/*"} {
		topics = append(topics, c.arn("topic/"+t))
		filters = append(filters, c.arn("topicfilter/"+t))
	}
	document := policyDocument(
		allow("iot:Connect", c.arn("client/claim-*")),
		allow("iot:Publish", topics...), allow("iot:Receive", topics...), allow("iot:Subscribe", filters...),
	)
	if _, err := c.iot.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: &n.ClaimPolicy, PolicyDocument: &document}); err != nil {
		return fmt.Errorf("create the claim policy: %w", err)
	}
	if _, err := c.iot.AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: &n.ClaimPolicy, Target: &certificateARN}); err != nil {
		return fmt.Errorf("attach the claim policy: %w", err)
	}
	return nil
}

// devicePolicy lets a device be the thing that its certificate is attached to.
func (c *Cloud) devicePolicy(ctx context.Context, n Names) error {
	thing := "${iot:Connection.Thing.ThingName}"
	shadow := "$aws/things/" + thing + "/shadow/update"
	document := policyDocument(
		statement{
			"Effect": "Allow", "Action": "iot:Connect", "Resource": c.arn("client/" + thing),
			"Condition": map[string]any{"Bool": map[string]any{"iot:Connection.Thing.IsAttached": "true"}},
		},
		allow("iot:Publish", c.arn("topic/"+n.telemetryTopic(thing)), c.arn("topic/"+shadow)),
		allow("iot:Subscribe", c.arn("topicfilter/"+shadow+"/*")),
		allow("iot:Receive", c.arn("topic/"+shadow+"/*")),
	)
	if _, err := c.iot.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: &n.DevicePolicy, PolicyDocument: &document}); err != nil {
		return fmt.Errorf("create the device policy: %w", err)
	}
	return nil
}

func (c *Cloud) template(ctx context.Context, n Names) error {
	ref := func(name string) map[string]any { return map[string]any{"Ref": name} }
	body, err := json.Marshal(map[string]any{
		"Parameters": map[string]any{
			"SerialNumber":              map[string]any{"Type": "String"},
			"AWS::IoT::Certificate::Id": map[string]any{"Type": "String"},
		},
		"Resources": map[string]any{
			"thing": map[string]any{"Type": "AWS::IoT::Thing", "Properties": map[string]any{
				"ThingName":        map[string]any{"Fn::Join": []any{"", []any{"qs-" + n.Run + "-", ref("SerialNumber")}}},
				"AttributePayload": map[string]any{"serialNumber": ref("SerialNumber"), "run": n.Run},
			}},
			"certificate": map[string]any{"Type": "AWS::IoT::Certificate", "Properties": map[string]any{
				"CertificateId": ref("AWS::IoT::Certificate::Id"), "Status": "Active",
			}},
			"policy": map[string]any{"Type": "AWS::IoT::Policy", "Properties": map[string]any{"PolicyName": n.DevicePolicy}},
		},
	})
	if err != nil {
		return err
	}
	text, enabled, role := string(body), true, "arn:aws:iam::"+c.account+":role/provisioning"
	if _, err := c.iot.CreateProvisioningTemplate(ctx, &iot.CreateProvisioningTemplateInput{
		TemplateName: &n.Template, TemplateBody: &text, Enabled: &enabled, ProvisioningRoleArn: &role,
	}); err != nil {
		return fmt.Errorf("create the provisioning template: %w", err)
	}
	return nil
}

// rules creates the fan-out: all telemetry to a stream and to the archive, hot
// readings to the alert topic and back to MQTT.
func (c *Cloud) rules(ctx context.Context, n Names) error {
	version := "2016-03-23"
	role := "arn:aws:iam::" + c.account + ":role/rules"
	key, topicARN, republish := "${topic(3)}", "arn:aws:sns:"+c.region+":"+c.account+":"+n.Topic, "alerts/"+n.Run+"/${topic(3)}"
	qos := int32(1)
	for _, r := range []struct {
		name, sql string
		actions   []types.Action
	}{
		{
			n.TelemetryRule,
			"SELECT *, topic(3) AS thing, timestamp() AS receivedAt FROM 'telemetry/" + n.Run + "/+'",
			[]types.Action{
				{Kinesis: &types.KinesisAction{RoleArn: &role, StreamName: &n.Stream, PartitionKey: &key}},
				{Firehose: &types.FirehoseAction{RoleArn: &role, DeliveryStreamName: &n.Archive}},
			},
		},
		{
			n.AlertRule,
			"SELECT topic(3) AS thing, temperature, sequence, battery.volts AS volts FROM 'telemetry/" + n.Run + "/+' WHERE temperature > 80",
			[]types.Action{
				{Sns: &types.SnsAction{RoleArn: &role, TargetArn: &topicARN, MessageFormat: types.MessageFormatRaw}},
				{Republish: &types.RepublishAction{RoleArn: &role, Topic: &republish, Qos: &qos}},
			},
		},
	} {
		if _, err := c.iot.CreateTopicRule(ctx, &iot.CreateTopicRuleInput{RuleName: &r.name, TopicRulePayload: &types.TopicRulePayload{
			Sql: &r.sql, AwsIotSqlVersion: &version, Actions: r.actions,
		}}); err != nil {
			return fmt.Errorf("create rule %s: %w", r.name, err)
		}
	}
	return nil
}

// Operator makes a certificate that may listen to the alerts of the run, as a
// dashboard would.
func (c *Cloud) Operator(ctx context.Context, n Names) (tls.Certificate, error) {
	made, err := c.iot.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("create the operator's certificate: %w", err)
	}
	name := "qs-" + n.Run + "-operator"
	document := policyDocument(
		allow("iot:Connect", c.arn("client/operator-"+n.Run)),
		allow("iot:Subscribe", c.arn("topicfilter/"+n.alertTopic("*"))),
		allow("iot:Receive", c.arn("topic/"+n.alertTopic("*"))),
	)
	if _, err := c.iot.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: &name, PolicyDocument: &document}); err != nil {
		return tls.Certificate{}, fmt.Errorf("create the operator's policy: %w", err)
	}
	if _, err := c.iot.AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: &name, Target: made.CertificateArn}); err != nil {
		return tls.Certificate{}, fmt.Errorf("attach the operator's policy: %w", err)
	}
	return tls.X509KeyPair([]byte(*made.CertificatePem), []byte(*made.KeyPair.PrivateKey))
}

// Configure writes the desired state of a thing.
func (c *Cloud) Configure(ctx context.Context, thing string, desired map[string]any) error {
	body, err := json.Marshal(map[string]any{"state": map[string]any{"desired": desired}})
	if err != nil {
		return err
	}
	if _, err := c.data.UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{ThingName: &thing, Payload: body}); err != nil {
		return fmt.Errorf("%s: desired: %w", thing, err)
	}
	return nil
}

// Applied tells whether the thing's shadow shows the desired state as reported,
// with nothing left to do.
func (c *Cloud) Applied(ctx context.Context, thing string) error {
	out, err := c.data.GetThingShadow(ctx, &iotdataplane.GetThingShadowInput{ThingName: &thing})
	if err != nil {
		return fmt.Errorf("%s: shadow: %w", thing, err)
	}
	var doc struct {
		State struct {
			Reported map[string]any  `json:"reported"`
			Delta    json.RawMessage `json:"delta"`
		} `json:"state"`
	}
	if err := json.Unmarshal(out.Payload, &doc); err != nil {
		return fmt.Errorf("%s: shadow: %w", thing, err)
	}
	if len(doc.State.Delta) > 0 || len(doc.State.Reported) == 0 {
		return errors.New(thing + ": the configuration was not applied: " + string(out.Payload))
	}
	return nil
}

// Things counts the things whose attribute run is the run's.
func (c *Cloud) Things(ctx context.Context, run string) (int, error) {
	p := iot.NewListThingsPaginator(c.iot, &iot.ListThingsInput{AttributeName: new("run"), AttributeValue: &run})
	n := 0
	for p.HasMorePages() {
		page, err := p.NextPage(ctx)
		if err != nil {
			return n, fmt.Errorf("list things: %w", err)
		}
		n += len(page.Things)
	}
	return n, nil
}
