package sim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"flotilla/internal/api/client"
)

// Cloud is the back end of a fleet: it sets up, through the public APIs, what
// devices and rules need.
type Cloud struct {
	api     *client.Client
	account string
	region  string
}

// NewCloud talks to the API at endpoint (a URL) with an access key.
func NewCloud(endpoint, region, accessKey, secretKey string) *Cloud {
	return &Cloud{region: region, api: client.New(endpoint, region, accessKey, secretKey)}
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

// object is what a request or a document says by name.
type object = map[string]any

func (c *Cloud) iot(ctx context.Context, method, path string, in, out any) error {
	return c.api.Call(ctx, "iot", method, path, in, out)
}

type statement = object

func policyDocument(statements ...statement) string {
	b, err := json.Marshal(object{"Version": "2012-10-17", "Statement": statements})
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
	cert, arn, err := c.certificate(ctx)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("claim certificate: %w", err)
	}
	if err := c.claimPolicy(ctx, n, arn); err != nil {
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

// certificate makes a certificate with its key. Its ARN tells the account and the region as well.
func (c *Cloud) certificate(ctx context.Context) (cert tls.Certificate, arn string, err error) {
	var made struct {
		CertificateArn, CertificatePem string
		KeyPair                        struct{ PrivateKey string }
	}
	if err := c.iot(ctx, http.MethodPost, "/keys-and-certificate?setAsActive=true", nil, &made); err != nil {
		return cert, "", err
	}
	parts := strings.Split(made.CertificateArn, ":")
	if len(parts) != 6 {
		return cert, "", fmt.Errorf("%q is not an ARN", made.CertificateArn)
	}
	c.region, c.account = parts[3], parts[4]
	cert, err = tls.X509KeyPair([]byte(made.CertificatePem), []byte(made.KeyPair.PrivateKey))
	return cert, made.CertificateArn, err
}

func (c *Cloud) arn(resource string) string {
	return "arn:aws:iot:" + c.region + ":" + c.account + ":" + resource
}

// policy creates a policy and attaches it to target, an ARN, unless that is "".
func (c *Cloud) policy(ctx context.Context, name, document, target string) error {
	if err := c.iot(ctx, http.MethodPost, client.Path("policies", name), object{"policyDocument": document}, nil); err != nil {
		return fmt.Errorf("create the policy %s: %w", name, err)
	}
	if target == "" {
		return nil
	}
	if err := c.iot(ctx, http.MethodPut, client.Path("target-policies", name), object{"target": target}, nil); err != nil {
		return fmt.Errorf("attach the policy %s: %w", name, err)
	}
	return nil
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
	return c.policy(ctx, n.ClaimPolicy, document, certificateARN)
}

// devicePolicy lets a device be the thing that its certificate is attached to.
func (c *Cloud) devicePolicy(ctx context.Context, n Names) error {
	thing := "${iot:Connection.Thing.ThingName}"
	shadow := "$aws/things/" + thing + "/shadow/update"
	document := policyDocument(
		statement{
			"Effect": "Allow", "Action": "iot:Connect", "Resource": c.arn("client/" + thing),
			"Condition": object{"Bool": object{"iot:Connection.Thing.IsAttached": "true"}},
		},
		allow("iot:Publish", c.arn("topic/"+n.telemetryTopic(thing)), c.arn("topic/"+shadow)),
		allow("iot:Subscribe", c.arn("topicfilter/"+shadow+"/*")),
		allow("iot:Receive", c.arn("topic/"+shadow+"/*")),
	)
	return c.policy(ctx, n.DevicePolicy, document, "")
}

func (c *Cloud) template(ctx context.Context, n Names) error {
	body := templateBody("qs-"+n.Run+"-", n.DevicePolicy, object{"CertificateId": ref("AWS::IoT::Certificate::Id")},
		object{"AttributePayload": object{"serialNumber": ref("SerialNumber"), "run": n.Run}})
	return c.provisioningTemplate(ctx, n.Template, body)
}

func ref(name string) object { return object{"Ref": name} }

// templateBody is a provisioning template of things that are called prefix and serial number, have the
// certificate that the properties say, and thing's further properties.
func templateBody(prefix, policy string, certificate, thing object) string {
	certificate["Status"] = "Active"
	thing["ThingName"] = object{"Fn::Join": []any{"", []any{prefix, ref("SerialNumber")}}}
	parameter := certificate["CertificateId"]
	if parameter == nil {
		parameter = certificate["CertificateSigningRequest"]
	}
	text := object{"Type": "String"}
	b, err := json.Marshal(object{
		"Parameters": object{"SerialNumber": text, parameter.(object)["Ref"].(string): text},
		"Resources": object{
			"thing":       object{"Type": "AWS::IoT::Thing", "Properties": thing},
			"certificate": object{"Type": "AWS::IoT::Certificate", "Properties": certificate},
			"policy":      object{"Type": "AWS::IoT::Policy", "Properties": object{"PolicyName": policy}},
		},
	})
	if err != nil {
		panic("sim: " + err.Error())
	}
	return string(b)
}

func (c *Cloud) provisioningTemplate(ctx context.Context, name, body string) error {
	in := object{
		"templateName": name, "templateBody": body, "enabled": true,
		"provisioningRoleArn": "arn:aws:iam::" + c.account + ":role/provisioning",
	}
	if err := c.iot(ctx, http.MethodPost, "/provisioning-templates", in, nil); err != nil {
		return fmt.Errorf("create the provisioning template: %w", err)
	}
	return nil
}

// rules creates the fan-out: all telemetry to a stream and to the archive, hot
// readings to the alert topic and back to MQTT.
func (c *Cloud) rules(ctx context.Context, n Names) error {
	role := "arn:aws:iam::" + c.account + ":role/rules"
	topicARN := "arn:aws:sns:" + c.region + ":" + c.account + ":" + n.Topic
	for _, r := range []struct {
		name, sql string
		actions   []object
	}{
		{
			n.TelemetryRule,
			"SELECT *, topic(3) AS thing, timestamp() AS receivedAt FROM 'telemetry/" + n.Run + "/+'",
			[]object{
				{"kinesis": object{"roleArn": role, "streamName": n.Stream, "partitionKey": "${topic(3)}"}},
				{"firehose": object{"roleArn": role, "deliveryStreamName": n.Archive}},
			},
		},
		{
			n.AlertRule,
			"SELECT topic(3) AS thing, temperature, sequence, battery.volts AS volts FROM 'telemetry/" + n.Run + "/+' WHERE temperature > 80",
			[]object{
				{"sns": object{"roleArn": role, "targetArn": topicARN, "messageFormat": "RAW"}},
				{"republish": object{"roleArn": role, "topic": "alerts/" + n.Run + "/${topic(3)}", "qos": 1}},
			},
		},
	} {
		in := object{"sql": r.sql, "awsIotSqlVersion": "2016-03-23", "actions": r.actions}
		if err := c.iot(ctx, http.MethodPost, client.Path("rules", r.name), in, nil); err != nil {
			return fmt.Errorf("create rule %s: %w", r.name, err)
		}
	}
	return nil
}

// Operator makes a certificate that may listen to the alerts of the run, as a
// dashboard would.
func (c *Cloud) Operator(ctx context.Context, n Names) (tls.Certificate, error) {
	cert, arn, err := c.certificate(ctx)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("create the operator's certificate: %w", err)
	}
	name := "qs-" + n.Run + "-operator"
	document := policyDocument(
		allow("iot:Connect", c.arn("client/operator-"+n.Run)),
		allow("iot:Subscribe", c.arn("topicfilter/"+n.alertTopic("*"))),
		allow("iot:Receive", c.arn("topic/"+n.alertTopic("*"))),
	)
	if err := c.policy(ctx, name, document, arn); err != nil {
		return tls.Certificate{}, err
	}
	return cert, nil
}

// Configure writes the desired state of a thing.
func (c *Cloud) Configure(ctx context.Context, thing string, desired object) error {
	body, err := json.Marshal(object{"state": object{"desired": desired}})
	if err != nil {
		return err
	}
	if err := c.api.Call(ctx, "iotdata", http.MethodPost, client.Path("things", thing, "shadow"), body, nil); err != nil {
		return fmt.Errorf("%s: desired: %w", thing, err)
	}
	return nil
}

// Applied tells whether the thing's shadow shows the desired state as reported,
// with nothing left to do.
func (c *Cloud) Applied(ctx context.Context, thing string) error {
	var out []byte
	if err := c.api.Call(ctx, "iotdata", http.MethodGet, client.Path("things", thing, "shadow"), nil, &out); err != nil {
		return fmt.Errorf("%s: shadow: %w", thing, err)
	}
	var doc struct {
		State struct {
			Reported object          `json:"reported"`
			Delta    json.RawMessage `json:"delta"`
		} `json:"state"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return fmt.Errorf("%s: shadow: %w", thing, err)
	}
	if len(doc.State.Delta) > 0 || len(doc.State.Reported) == 0 {
		return errors.New(thing + ": the configuration was not applied: " + string(out))
	}
	return nil
}

// Things counts the things whose attribute run is the run's.
func (c *Cloud) Things(ctx context.Context, run string) (int, error) {
	query := url.Values{"attributeName": {"run"}, "attributeValue": {run}}
	n := 0
	for {
		var page struct {
			Things    []struct{}
			NextToken string
		}
		if err := c.iot(ctx, http.MethodGet, "/things?"+query.Encode(), nil, &page); err != nil {
			return n, fmt.Errorf("list things: %w", err)
		}
		n += len(page.Things)
		if page.NextToken == "" {
			return n, nil
		}
		query.Set("nextToken", page.NextToken)
	}
}
