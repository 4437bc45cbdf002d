package domain_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// TestLifeOfAConfiguration: https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-managing.html
func TestLifeOfAConfiguration(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, ctx := newWorld(t, db, domain.Config{}), t.Context()
		created, err := w.CreateDomainConfiguration(ctx, &iot.CreateDomainConfigurationRequest{
			DomainConfigurationName: "plant", DomainName: new("MQTT.Example.com"), ServiceType: new("DATA"),
			AuthorizerConfig:   &iot.AuthorizerConfig{DefaultAuthorizerName: new("A"), AllowAuthorizerOverride: new(true)},
			AuthenticationType: new("CUSTOM_AUTH"), ApplicationProtocol: new("SECURE_MQTT"),
			TlsConfig:               &iot.TlsConfig{SecurityPolicy: new("IoTSecurityPolicy_TLS12_1_2_2022_10")},
			ServerCertificateConfig: &iot.ServerCertificateConfig{EnableOCSPCheck: new(false)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^arn:aws:iot:us-east-1:123456789012:domainconfiguration/plant/[a-z0-9]{5}$`).MatchString(*created.DomainConfigurationArn) {
			t.Error(*created.DomainConfigurationArn)
		}
		describe := func() *iot.DescribeDomainConfigurationResponse {
			t.Helper()
			out, err := w.DescribeDomainConfiguration(ctx, &iot.DescribeDomainConfigurationRequest{DomainConfigurationName: "plant"})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		made := w.Now().Truncate(time.Millisecond).UTC()
		want := &iot.DescribeDomainConfigurationResponse{
			DomainConfigurationName: new("plant"), DomainConfigurationArn: created.DomainConfigurationArn, DomainName: new("mqtt.example.com"),
			AuthorizerConfig:          &iot.AuthorizerConfig{DefaultAuthorizerName: new("A"), AllowAuthorizerOverride: new(true)},
			DomainConfigurationStatus: new("ENABLED"), ServiceType: new("DATA"), DomainType: new("CUSTOMER_MANAGED"),
			LastStatusChangeDate:    new(aws.Time{Time: made}),
			TlsConfig:               &iot.TlsConfig{SecurityPolicy: new("IoTSecurityPolicy_TLS12_1_2_2022_10")},
			ServerCertificateConfig: &iot.ServerCertificateConfig{EnableOCSPCheck: new(false)},
			AuthenticationType:      new("CUSTOM_AUTH"), ApplicationProtocol: new("SECURE_MQTT"),
		}
		if diff := cmp.Diff(want, describe()); diff != "" {
			t.Error(diff)
		}
		if user, err := w.UsesAuthorizer(ctx, "A"); user != "plant" || err != nil {
			t.Error(user, err)
		}

		_, err = w.DeleteDomainConfiguration(ctx, &iot.DeleteDomainConfigurationRequest{DomainConfigurationName: "plant"})
		wantError[*iot.InvalidRequestException](t, err, "not DISABLED")
		w.advance(time.Minute)
		updated, err := w.UpdateDomainConfiguration(ctx, &iot.UpdateDomainConfigurationRequest{
			DomainConfigurationName: "plant", DomainConfigurationStatus: new("DISABLED"), RemoveAuthorizerConfig: new(true),
			AuthenticationType: new("DEFAULT"), ApplicationProtocol: new("DEFAULT"),
			TlsConfig: &iot.TlsConfig{SecurityPolicy: new("IotSecurityPolicy_TLS13_1_3_2022_10")},
		})
		if err != nil || *updated.DomainConfigurationArn != *created.DomainConfigurationArn {
			t.Error(updated, err)
		}
		want.DomainConfigurationStatus, want.AuthorizerConfig = new("DISABLED"), nil
		want.AuthenticationType, want.ApplicationProtocol = new("DEFAULT"), new("DEFAULT")
		want.TlsConfig.SecurityPolicy = new("IotSecurityPolicy_TLS13_1_3_2022_10") // as it was given
		want.LastStatusChangeDate = new(aws.Time{Time: made.Add(time.Minute)})
		if diff := cmp.Diff(want, describe()); diff != "" {
			t.Error(diff)
		}
		if user, err := w.UsesAuthorizer(ctx, "A"); user != "" || err != nil {
			t.Error(user, err)
		}
		w.advance(time.Minute) // the status stays, so does its date
		w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: "plant", DomainConfigurationStatus: new("DISABLED")})
		if diff := cmp.Diff(want, describe()); diff != "" {
			t.Error(diff)
		}

		if _, err := w.DeleteDomainConfiguration(ctx, &iot.DeleteDomainConfigurationRequest{DomainConfigurationName: "plant"}); err != nil {
			t.Fatal(err)
		}
		_, err = w.DescribeDomainConfiguration(ctx, &iot.DescribeDomainConfigurationRequest{DomainConfigurationName: "plant"})
		wantError[*iot.ResourceNotFoundException](t, err, "plant was not found")
		_, err = w.UpdateDomainConfiguration(ctx, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: "plant"})
		wantError[*iot.ResourceNotFoundException](t, err, "plant was not found")
		_, err = w.DeleteDomainConfiguration(ctx, &iot.DeleteDomainConfigurationRequest{DomainConfigurationName: "plant"})
		wantError[*iot.ResourceNotFoundException](t, err, "plant was not found")
	})
}

// TestDefaultEndpoint is always there and can be changed.
func TestDefaultEndpoint(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, ctx := newWorld(t, db, domain.Config{}), t.Context()
		out, err := w.DescribeDomainConfiguration(ctx, &iot.DescribeDomainConfigurationRequest{DomainConfigurationName: domain.DefaultName})
		want := &iot.DescribeDomainConfigurationResponse{
			DomainConfigurationName: new("iot:Data-ATS"), DomainName: new("iot.example.org"), DomainType: new("ENDPOINT"),
			DomainConfigurationArn:    new("arn:aws:iot:us-east-1:123456789012:domainconfiguration/iot:Data-ATS"),
			DomainConfigurationStatus: new("ENABLED"), ServiceType: new("DATA"),
			TlsConfig:               &iot.TlsConfig{SecurityPolicy: new("IoTSecurityPolicy_TLS13_1_2_2022_10")},
			ServerCertificateConfig: &iot.ServerCertificateConfig{EnableOCSPCheck: new(false)},
			AuthenticationType:      new("DEFAULT"), ApplicationProtocol: new("DEFAULT"),
		}
		if diff := cmp.Diff(want, out); err != nil || diff != "" {
			t.Error(err, diff)
		}
		for range 2 {
			w.update(t, &iot.UpdateDomainConfigurationRequest{
				DomainConfigurationName: domain.DefaultName, AuthorizerConfig: &iot.AuthorizerConfig{DefaultAuthorizerName: new("B")},
			})
		}
		for _, name := range []string{"", "iot.example.org", "IOT.example.ORG", "localhost", "elsewhere.example"} {
			c, ok := w.Lookup(name)
			if !ok || c.Name != domain.DefaultName || c.DefaultAuthorizer != "B" || c.AllowAuthorizerOverride || !c.Enabled {
				t.Errorf("%s: %+v, %v", name, c, ok)
			}
		}
		_, err = w.DeleteDomainConfiguration(ctx, &iot.DeleteDomainConfigurationRequest{DomainConfigurationName: domain.DefaultName})
		wantError[*iot.InvalidRequestException](t, err, "can't be deleted")
		list, err := w.ListDomainConfigurations(ctx, &iot.ListDomainConfigurationsRequest{})
		if err != nil || len(list.DomainConfigurations) != 1 {
			t.Error(list, err)
		}
	})
}

// TestDomainOfTheDeployment is what AWS calls an AWS-managed domain.
// https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-configurable-aws.html
func TestDomainOfTheDeployment(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "two"})
	out, err := w.DescribeDomainConfiguration(t.Context(), &iot.DescribeDomainConfigurationRequest{DomainConfigurationName: "two"})
	if err != nil {
		t.Fatal(err)
	}
	if *out.DomainType != "AWS_MANAGED" || !regexp.MustCompile(`^[a-z0-9]{14}\.iot\.example\.org$`).MatchString(*out.DomainName) {
		t.Errorf("%s %s", *out.DomainType, *out.DomainName)
	}
	if c, ok := w.Lookup(*out.DomainName); !ok || c.Name != "two" {
		t.Errorf("%+v %v", c, ok)
	}
	t.Run("without a host name", func(t *testing.T) {
		d := domain.New(domain.Config{}, domain.Deps{Account: account, DB: w.db, Changes: w.bus, PublicHost: "10.0.0.1"})
		_, err := d.CreateDomainConfiguration(t.Context(), &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "three"})
		wantError[*iot.InvalidRequestException](t, err, "domainName is required")
	})
}

func TestInvalidConfiguration(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "taken", DomainName: new("taken.example.com")})
	type request = iot.CreateDomainConfigurationRequest
	for name, c := range map[string]struct {
		change func(*request)
		want   string
	}{
		"name":              {func(in *request) { in.DomainConfigurationName = "iot:Jobs" }, "Invalid domainConfigurationName"},
		"wildcard":          {func(in *request) { in.DomainName = new("*.example.com") }, "not a fully qualified domain name"},
		"one label":         {func(in *request) { in.DomainName = new("example") }, "not a fully qualified domain name"},
		"address":           {func(in *request) { in.DomainName = new("127.0.0.1") }, "not a fully qualified domain name"},
		"path":              {func(in *request) { in.DomainName = new("../../etc.example.com") }, "not a fully qualified domain name"},
		"empty label":       {func(in *request) { in.DomainName = new("a..example.com") }, "not a fully qualified domain name"},
		"long domain":       {func(in *request) { in.DomainName = new(strings.Repeat("a.", 150) + "com") }, "not a fully qualified domain name"},
		"ours":              {func(in *request) { in.DomainName = new("iot.example.org") }, "that of iot:Data-ATS"},
		"service type":      {func(in *request) { in.ServiceType = new("JOBS") }, "serviceType must be DATA"},
		"two certificates":  {func(in *request) { in.ServerCertificateArns = []string{"a", "b"} }, "more than one"},
		"certificate alone": {func(in *request) { in.DomainName, in.ServerCertificateArns = nil, []string{"a"} }, "need a domainName"},
		"validation alone":  {func(in *request) { in.ValidationCertificateArn = new(certificateARN + "a") }, "needs serverCertificateArns"},
		"certificate ARN": {func(in *request) {
			in.ServerCertificateArns = []string{"arn:aws:iam::123456789012:server-certificate/a"}
		}, "not the ARN of a certificate"},
		"certificate path":   {func(in *request) { in.ServerCertificateArns = []string{certificateARN + "../ca/root"} }, "not the ARN of a certificate"},
		"certificate folder": {func(in *request) { in.ServerCertificateArns = []string{certificateARN + "a/b"} }, "not the ARN of a certificate"},
		"security policy":    {func(in *request) { in.TlsConfig = &iot.TlsConfig{SecurityPolicy: new("TLS9")} }, `Unknown tlsConfig.securityPolicy: "TLS9"`},
		"authentication":     {func(in *request) { in.AuthenticationType = new("NONE") }, "Invalid authenticationType"},
		"application":        {func(in *request) { in.ApplicationProtocol = new("COAP") }, "Invalid applicationProtocol"},
		"X.509 over WebSocket": {func(in *request) {
			in.AuthenticationType, in.ApplicationProtocol = new("AWS_X509"), new("MQTT_WSS")
		}, "AWS_X509 has no applicationProtocol MQTT_WSS"},
		"SigV4 over MQTT": {func(in *request) {
			in.AuthenticationType, in.ApplicationProtocol = new("AWS_SIGV4"), new("SECURE_MQTT")
		}, "AWS_SIGV4 has no applicationProtocol SECURE_MQTT"},
		"authorizer": {func(in *request) {
			in.AuthorizerConfig = &iot.AuthorizerConfig{DefaultAuthorizerName: new("C")}
		}, "defaultAuthorizerName: Authorizer C was not found"},
		"OCSP": {func(in *request) {
			in.ServerCertificateConfig = &iot.ServerCertificateConfig{EnableOCSPCheck: new(true)}
		}, "enableOCSPCheck is not supported"},
		"OCSP function": {func(in *request) {
			in.ServerCertificateConfig = &iot.ServerCertificateConfig{OcspLambdaArn: new("a")}
		}, "ocspLambdaArn is not supported"},
		"OCSP responder": {func(in *request) {
			in.ServerCertificateConfig = &iot.ServerCertificateConfig{OcspAuthorizedResponderArn: new("a")}
		}, "ocspAuthorizedResponderArn is not supported"},
		"client certificate callback": {func(in *request) {
			in.ClientCertificateConfig = &iot.ClientCertificateConfig{ClientCertificateCallbackArn: new("a")}
		}, "clientCertificateCallbackArn is not supported"},
		"tags": {func(in *request) { in.Tags = []*iot.Tag{{Key: "k"}} }, "tags of domain configurations are not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &request{DomainConfigurationName: "new", DomainName: new("new.example.com")}
			c.change(in)
			_, err := w.CreateDomainConfiguration(t.Context(), in)
			wantError[*iot.InvalidRequestException](t, err, c.want)
		})
	}
	t.Run("name taken", func(t *testing.T) {
		_, err := w.CreateDomainConfiguration(t.Context(), &request{DomainConfigurationName: "taken", DomainName: new("new.example.com")})
		e := wantError[*iot.ResourceAlreadyExistsException](t, err, "Domain configuration taken exists already")
		if !strings.Contains(e.ResourceArn, "domainconfiguration/taken/") {
			t.Error(e.ResourceArn)
		}
	})
	t.Run("domain taken", func(t *testing.T) {
		_, err := w.CreateDomainConfiguration(t.Context(), &request{DomainConfigurationName: "new", DomainName: new("TAKEN.example.com")})
		wantError[*iot.ResourceAlreadyExistsException](t, err, "A domain configuration of taken.example.com exists already")
	})
	for name, c := range map[string]struct {
		in   *iot.UpdateDomainConfigurationRequest
		want string
	}{
		"update status":      {&iot.UpdateDomainConfigurationRequest{DomainConfigurationStatus: new("OFF")}, "Invalid domainConfigurationStatus"},
		"update both":        {&iot.UpdateDomainConfigurationRequest{RemoveAuthorizerConfig: new(true), AuthorizerConfig: &iot.AuthorizerConfig{}}, "can't be given together"},
		"update policy":      {&iot.UpdateDomainConfigurationRequest{TlsConfig: &iot.TlsConfig{SecurityPolicy: new("x")}}, "Unknown tlsConfig.securityPolicy"},
		"update protocol":    {&iot.UpdateDomainConfigurationRequest{AuthenticationType: new("AWS_SIGV4"), ApplicationProtocol: new("SECURE_MQTT")}, "has no applicationProtocol"},
		"update authorizer":  {&iot.UpdateDomainConfigurationRequest{AuthorizerConfig: &iot.AuthorizerConfig{DefaultAuthorizerName: new("C")}}, "C was not found"},
		"update unsupported": {&iot.UpdateDomainConfigurationRequest{ServerCertificateConfig: &iot.ServerCertificateConfig{EnableOCSPCheck: new(true)}}, "not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.DomainConfigurationName = "taken"
			_, err := w.UpdateDomainConfiguration(t.Context(), c.in)
			wantError[*iot.InvalidRequestException](t, err, c.want)
		})
	}
}

// TestServerCertificates: https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-configurable-custom.html
func TestServerCertificates(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{})
	root := issue(t, nil, nil)
	names := []string{"mqtt.example.com"}
	_, young, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	deep := root
	for range 5 {
		deep = issue(t, deep, nil)
	}
	broken := issue(t, root, names)
	broken.certs[1] = issue(t, nil, nil).certs[0]
	other := issue(t, root, names)
	other.key = root.key
	good := issue(t, root, names)
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"good":                 {good.pem(t), ""},
		"wildcard":             {issue(t, root, []string{"*.example.com"}).pem(t), ""},
		"self-signed":          {issue(t, nil, names).pem(t), ""},
		"absent":               {"", "can't be read"},
		"no PEM":               {"hello", "not a chain with its key"},
		"key of another":       {other.pem(t), "not a chain with its key"},
		"large file":           {good.pem(t) + strings.Repeat("\n", 65<<10), "longer than 65536 bytes"},
		"of another domain":    {issue(t, root, []string{"example.com"}).pem(t), "not for mqtt.example.com"},
		"expired":              {issue(t, root, names, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).pem(t), "expired"},
		"not yet valid":        {issue(t, root, names, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }).pem(t), "not valid yet"},
		"of a client":          {issue(t, root, names, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }).pem(t), "not for servers"},
		"deep chain":           {issue(t, deep, names).pem(t), "its chain has more than 5"},
		"long chain":           {issue(t, root, append(names, slices.Repeat([]string{strings.Repeat("a", 60) + ".example.com"}, 300)...)).pem(t), "its chain has more than"},
		"chain of another":     {broken.pem(t), "its chain is not one"},
		"key of another kind":  {issueFor(t, root, young, names).pem(t), "neither RSA nor ECDSA"},
		"certificate only":     {strings.Split(good.pem(t), "-----BEGIN PRIVATE")[0], "not a chain with its key"},
		"nothing in this file": {"\n", "not a chain with its key"},
	} {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			id = strings.ReplaceAll(id, ".", "")
			if c.text != "" {
				w.put(t, id, c.text)
			}
			in := &iot.CreateDomainConfigurationRequest{
				DomainConfigurationName: id, DomainName: new("mqtt.example.com"), ServerCertificateArns: []string{certificateARN + id},
			}
			_, err := w.CreateDomainConfiguration(t.Context(), in)
			if c.want != "" {
				e := wantError[*iot.CertificateValidationException](t, err, c.want)
				if strings.Contains(e.Message, w.dir) || strings.Contains(e.Message, "BEGIN") {
					t.Error(e.Message)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			summary := func() *iot.ServerCertificateSummary {
				out, err := w.DescribeDomainConfiguration(t.Context(), &iot.DescribeDomainConfigurationRequest{DomainConfigurationName: id})
				if err != nil || len(out.ServerCertificates) != 1 {
					t.Fatal(out, err)
				}
				return out.ServerCertificates[0]
			}
			want := &iot.ServerCertificateSummary{ServerCertificateArn: new(certificateARN + id), ServerCertificateStatus: new("VALID")}
			if diff := cmp.Diff(want, summary()); diff != "" {
				t.Error(diff)
			}
			w.put(t, id, "gone")
			if s := summary(); *s.ServerCertificateStatus != "INVALID" || !strings.Contains(*s.ServerCertificateStatusDetail, "not a chain") {
				t.Errorf("%+v", s)
			}
			w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: id, DomainConfigurationStatus: new("DISABLED")})
			if _, err := w.DeleteDomainConfiguration(t.Context(), &iot.DeleteDomainConfigurationRequest{DomainConfigurationName: id}); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("validation certificate", func(t *testing.T) {
		w.put(t, "cert", good.pem(t))
		for id, c := range map[string]struct{ text, want string }{
			"v-none":    {"", "can't be read"},
			"v-no":      {"hello", "not a certificate"},
			"v-other":   {issue(t, root, []string{"example.com"}).pem(t), "not for mqtt.example.com"},
			"v-good":    {strings.Split(good.pem(t), "-----BEGIN PRIVATE")[0], ""},
			"bad/v/arn": {"", "not the ARN"},
		} {
			if c.text != "" {
				w.put(t, id, c.text)
			}
			_, err := w.CreateDomainConfiguration(t.Context(), &iot.CreateDomainConfigurationRequest{
				DomainConfigurationName: "v", DomainName: new("mqtt.example.com"), ServerCertificateArns: []string{certificateARN + "cert"},
				ValidationCertificateArn: new(certificateARN + id),
			})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

func TestLimit(t *testing.T) {
	w := newWorld(t, storetest.Open(t), domain.Config{Limits: "aws"})
	w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: domain.DefaultName}) // has a row, and does not count
	for i := range 10 {
		w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: fmt.Sprint("d", i)})
	}
	_, err := w.CreateDomainConfiguration(t.Context(), &iot.CreateDomainConfigurationRequest{DomainConfigurationName: "e"})
	wantError[*iot.LimitExceededException](t, err, "There are 10 domain configurations")
}

func TestListDomainConfigurations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, domain.Config{})
		w.update(t, &iot.UpdateDomainConfigurationRequest{DomainConfigurationName: domain.DefaultName})
		for _, n := range []string{"zebra", "a", "M", "m"} {
			w.create(t, &iot.CreateDomainConfigurationRequest{DomainConfigurationName: n})
		}
		for _, size := range []int32{1, 2, 5, 100} {
			var names []string
			in := &iot.ListDomainConfigurationsRequest{PageSize: new(size)}
			for {
				out, err := w.ListDomainConfigurations(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range out.DomainConfigurations {
					names = append(names, *c.DomainConfigurationName)
				}
				if in.Marker = out.NextMarker; in.Marker == nil {
					break
				}
			}
			if diff := cmp.Diff([]string{"iot:Data-ATS", "M", "a", "m", "zebra"}, names); diff != "" {
				t.Errorf("pages of %d: %s", size, diff)
			}
		}
		out, err := w.ListDomainConfigurations(t.Context(), &iot.ListDomainConfigurationsRequest{ServiceType: new("JOBS")})
		if err != nil || len(out.DomainConfigurations) != 0 {
			t.Error(out, err)
		}
		_, err = w.ListDomainConfigurations(t.Context(), &iot.ListDomainConfigurationsRequest{Marker: new("?")})
		wantError[*iot.InvalidRequestException](t, err, "Invalid marker")
	})
}
