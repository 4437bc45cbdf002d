package authorizer_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flotilla/internal/aws/iot"
	"flotilla/internal/identity/authorizer"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// TestLifeOfAnAuthorizer: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-manage.html
func TestLifeOfAnAuthorizer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, ctx := newWorld(t, db, authorizer.Config{}), t.Context()
		created, err := w.CreateAuthorizer(ctx, w.request("A"))
		if err != nil {
			t.Fatal(err)
		}
		const arn = "arn:aws:iot:us-east-1:123456789012:authorizer/A"
		if *created.AuthorizerName != "A" || *created.AuthorizerArn != arn {
			t.Errorf("%+v", created)
		}
		_, err = w.CreateAuthorizer(ctx, w.request("A"))
		wantError[*iot.ResourceAlreadyExistsException](t, err, "exists already")

		described, err := w.DescribeAuthorizer(ctx, &iot.DescribeAuthorizerRequest{AuthorizerName: "A"})
		if err != nil {
			t.Fatal(err)
		}
		want := &iot.AuthorizerDescription{
			AuthorizerName: new("A"), AuthorizerArn: new(arn), AuthorizerFunctionArn: new(functionARN), TokenKeyName: new(tokenKey),
			TokenSigningPublicKeys: w.request("A").TokenSigningPublicKeys, Status: new("ACTIVE"),
			SigningDisabled: new(false), EnableCachingForHttp: new(false),
		}
		ignoreDates := cmpopts.IgnoreFields(iot.AuthorizerDescription{}, "CreationDate", "LastModifiedDate")
		if diff := cmp.Diff(want, described.AuthorizerDescription, ignoreDates); diff != "" {
			t.Error(diff)
		}

		other := publicPEM(&mustKey(t, 2048).PublicKey)
		_, err = w.UpdateAuthorizer(ctx, &iot.UpdateAuthorizerRequest{
			AuthorizerName: "A", TokenKeyName: new("other"), Status: new("INACTIVE"), EnableCachingForHttp: new(true),
			AuthorizerFunctionArn: new(functionARN + ":1"), TokenSigningPublicKeys: map[string]string{"second": other},
		})
		if err != nil {
			t.Fatal(err)
		}
		want.TokenKeyName, want.Status, want.EnableCachingForHttp = new("other"), new("INACTIVE"), new(true)
		want.AuthorizerFunctionArn, want.TokenSigningPublicKeys = new(functionARN+":1"), map[string]string{"second": other}
		described, err = w.DescribeAuthorizer(ctx, &iot.DescribeAuthorizerRequest{AuthorizerName: "A"})
		if diff := cmp.Diff(want, described.AuthorizerDescription, ignoreDates); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if !described.AuthorizerDescription.LastModifiedDate.After(described.AuthorizerDescription.CreationDate.Time) {
			t.Error("not modified")
		}

		if _, err = w.DeleteAuthorizer(ctx, &iot.DeleteAuthorizerRequest{AuthorizerName: "A"}); err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func() error{
			"describe": func() error {
				_, err := w.DescribeAuthorizer(ctx, &iot.DescribeAuthorizerRequest{AuthorizerName: "A"})
				return err
			},
			"update": func() error {
				_, err := w.UpdateAuthorizer(ctx, &iot.UpdateAuthorizerRequest{AuthorizerName: "A"})
				return err
			},
			"delete": func() error {
				_, err := w.DeleteAuthorizer(ctx, &iot.DeleteAuthorizerRequest{AuthorizerName: "A"})
				return err
			},
			"set default": func() error {
				_, err := w.SetDefaultAuthorizer(ctx, &iot.SetDefaultAuthorizerRequest{AuthorizerName: "A"})
				return err
			},
			"test": func() error {
				_, err := w.TestInvokeAuthorizer(ctx, &iot.TestInvokeAuthorizerRequest{AuthorizerName: "A"})
				return err
			},
		} {
			t.Run(name, func(t *testing.T) {
				wantError[*iot.ResourceNotFoundException](t, call(), "Authorizer A was not found.")
			})
		}
	})
}

func mustKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestInvalidAuthorizer: https://docs.aws.amazon.com/iot/latest/developerguide/config-custom-auth.html
func TestInvalidAuthorizer(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{})
	t.Setenv("GODEBUG", "rsa1024min=0") // to make a key that is too small
	small := publicPEM(&mustKey(t, 1024).PublicKey)
	keys := func(text string) func(*iot.CreateAuthorizerRequest) {
		return func(in *iot.CreateAuthorizerRequest) { in.TokenSigningPublicKeys["first"] = text }
	}
	for name, c := range map[string]struct {
		change func(*iot.CreateAuthorizerRequest)
		want   string
	}{
		"name":           {func(in *iot.CreateAuthorizerRequest) { in.AuthorizerName = "a b" }, "Invalid authorizerName"},
		"function":       {func(in *iot.CreateAuthorizerRequest) { in.AuthorizerFunctionArn = "authorise" }, "not the ARN of a Lambda function"},
		"other service":  {func(in *iot.CreateAuthorizerRequest) { in.AuthorizerFunctionArn = "arn:aws:s3:::function:a" }, "not the ARN of a Lambda function"},
		"status":         {func(in *iot.CreateAuthorizerRequest) { in.Status = new("ON") }, "Invalid status"},
		"no token key":   {func(in *iot.CreateAuthorizerRequest) { in.TokenKeyName = nil }, "tokenKeyName is required"},
		"bad token key":  {func(in *iot.CreateAuthorizerRequest) { in.TokenKeyName = new("a b") }, "Invalid tokenKeyName"},
		"no keys":        {func(in *iot.CreateAuthorizerRequest) { in.TokenSigningPublicKeys = nil }, "tokenSigningPublicKeys is required"},
		"key name":       {func(in *iot.CreateAuthorizerRequest) { in.TokenSigningPublicKeys = map[string]string{"a b": ""} }, "Invalid key name"},
		"no PEM":         {keys("MIIB"), "not one PEM block"},
		"two blocks":     {keys(publicPEM(&w.key.PublicKey) + publicPEM(&w.key.PublicKey)), "not one PEM block"},
		"private key":    {keys(string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(w.key)}))), "not a PUBLIC KEY"},
		"nonsense":       {keys(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("no")}))), "does not parse"},
		"elliptic curve": {keys(ellipticPEM(t)), "not an RSA key"},
		"1024 bits":      {keys(small), "2048 to 8192 bits"},
		"long key":       {keys(fmt.Sprintf("%6000d", 1)), "longer than 5120"},
		"many keys": {func(in *iot.CreateAuthorizerRequest) {
			for i := range 11 {
				in.TokenSigningPublicKeys[fmt.Sprint(i)] = publicPEM(&w.key.PublicKey)
			}
		}, "more than 10"},
		"tags": {func(in *iot.CreateAuthorizerRequest) { in.Tags = []*iot.Tag{{Key: "k"}} }, "tags of authorizers are not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			in := w.request("A")
			c.change(in)
			_, err := w.CreateAuthorizer(t.Context(), in)
			wantError[*iot.InvalidRequestException](t, err, c.want)
		})
	}
	t.Run("update", func(t *testing.T) {
		w.signed(t, "A")
		_, err := w.UpdateAuthorizer(t.Context(), &iot.UpdateAuthorizerRequest{AuthorizerName: "A", TokenSigningPublicKeys: map[string]string{}})
		wantError[*iot.InvalidRequestException](t, err, "tokenSigningPublicKeys is required")
	})
	t.Run("PKCS #1 key", func(t *testing.T) {
		in := w.request("B")
		in.TokenSigningPublicKeys["first"] = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&w.key.PublicKey)}))
		if _, err := w.CreateAuthorizer(t.Context(), in); err != nil {
			t.Error(err)
		}
	})
}

// TestLimit: https://docs.aws.amazon.com/general/latest/gr/iot-core.html#security-limits
func TestLimit(t *testing.T) {
	for profile, most := range map[string]int{"aws": 10, "default": 1000} {
		t.Run(profile, func(t *testing.T) {
			w := newWorld(t, storetest.Open(t), authorizer.Config{Limits: profile})
			for i := range min(most, 20) {
				w.unsigned(t, fmt.Sprint("A", i))
			}
			_, err := w.CreateAuthorizer(t.Context(), w.request("B"))
			if profile == "aws" {
				wantError[*iot.LimitExceededException](t, err, "There are 10 authorizers")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestListAuthorizers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, authorizer.Config{})
		for i := range 7 {
			w.unsigned(t, fmt.Sprint("A", i), func(in *iot.CreateAuthorizerRequest) {
				if i%3 == 0 {
					in.Status = new("INACTIVE")
				}
			})
			w.advance(time.Duration(i%2) * time.Second) // some at the same time
		}
		list := func(in iot.ListAuthorizersRequest) (names []string) {
			in.PageSize = new(int32(2))
			for {
				out, err := w.ListAuthorizers(t.Context(), &in)
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range out.Authorizers {
					names = append(names, *a.AuthorizerName)
				}
				if out.NextMarker == nil {
					return names
				}
				in.Marker = out.NextMarker
			}
		}
		for name, c := range map[string]struct {
			in   iot.ListAuthorizersRequest
			want []string
		}{
			"newest first": {iot.ListAuthorizersRequest{}, []string{"A6", "A5", "A4", "A3", "A2", "A1", "A0"}},
			"ascending":    {iot.ListAuthorizersRequest{AscendingOrder: new(true)}, []string{"A0", "A1", "A2", "A3", "A4", "A5", "A6"}},
			"inactive":     {iot.ListAuthorizersRequest{Status: new("INACTIVE"), AscendingOrder: new(true)}, []string{"A0", "A3", "A6"}},
		} {
			if diff := cmp.Diff(c.want, list(c.in)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		_, err := w.ListAuthorizers(t.Context(), &iot.ListAuthorizersRequest{Marker: new("?")})
		wantError[*iot.InvalidRequestException](t, err, "Invalid marker")
	})
}

func TestDefaultAuthorizer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, ctx := newWorld(t, db, authorizer.Config{}), t.Context()
		w.unsigned(t, "A")
		w.unsigned(t, "B")
		_, err := w.DescribeDefaultAuthorizer(ctx, &iot.DescribeDefaultAuthorizerRequest{})
		wantError[*iot.ResourceNotFoundException](t, err, "no default")
		_, err = w.ClearDefaultAuthorizer(ctx, &iot.ClearDefaultAuthorizerRequest{})
		wantError[*iot.ResourceNotFoundException](t, err, "no default")
		for _, name := range []string{"A", "B", "B"} {
			if _, err := w.SetDefaultAuthorizer(ctx, &iot.SetDefaultAuthorizerRequest{AuthorizerName: name}); err != nil {
				t.Fatal(err)
			}
			out, err := w.DescribeDefaultAuthorizer(ctx, &iot.DescribeDefaultAuthorizerRequest{})
			if err != nil || *out.AuthorizerDescription.AuthorizerName != name {
				t.Errorf("%v %+v", err, out)
			}
			res, err := w.Authenticate(ctx, &authorizer.Request{Username: "u"})
			if err != nil || res.Authorizer != name {
				t.Errorf("%v %+v", err, res)
			}
		}
		_, err = w.DeleteAuthorizer(ctx, &iot.DeleteAuthorizerRequest{AuthorizerName: "B"})
		wantError[*iot.DeleteConflictException](t, err, "B is the default authorizer")
		if _, err := w.ClearDefaultAuthorizer(ctx, &iot.ClearDefaultAuthorizerRequest{}); err != nil {
			t.Error(err)
		}
		_, err = w.Authenticate(ctx, &authorizer.Request{Username: "u"})
		wantRefused(t, err, authorizer.ReasonNoAuthorizer)

		_, err = w.DeleteAuthorizer(ctx, &iot.DeleteAuthorizerRequest{AuthorizerName: "B"})
		wantError[*iot.DeleteConflictException](t, err, "B is not INACTIVE")
		w.domains["A"] = "iot.example.com"
		_, err = w.DeleteAuthorizer(ctx, &iot.DeleteAuthorizerRequest{AuthorizerName: "A"})
		wantError[*iot.DeleteConflictException](t, err, "the default of the domain configuration iot.example.com")
	})
}

// TestInvoke: https://docs.aws.amazon.com/iot/latest/apireference/API_TestInvokeAuthorizer.html
func TestInvoke(t *testing.T) {
	w, ctx := newWorld(t, storetest.Open(t), authorizer.Config{}), t.Context()
	in := w.request("A")
	in.Status = new("INACTIVE") // may be tried before it is used
	if _, err := w.CreateAuthorizer(ctx, in); err != nil {
		t.Fatal(err)
	}
	signature := sign(t, w.key, "tok")
	test := func(in *iot.TestInvokeAuthorizerRequest) (*iot.TestInvokeAuthorizerResponse, error) {
		in.AuthorizerName = "A"
		return w.TestInvokeAuthorizer(ctx, in)
	}
	t.Run("token", func(t *testing.T) {
		out, err := test(&iot.TestInvokeAuthorizerRequest{Token: new("tok"), TokenSignature: &signature})
		want := &iot.TestInvokeAuthorizerResponse{
			IsAuthenticated: new(true), PrincipalId: new("lamp1"), PolicyDocuments: []string{policyDocument},
			DisconnectAfterInSeconds: new(int32(86400)), RefreshAfterInSeconds: new(int32(300)),
		}
		if diff := cmp.Diff(want, out); err != nil || diff != "" {
			t.Error(err, diff)
		}
		ev := w.lambda.event(t)
		if ev["token"] != "tok" || ev["signatureVerified"] != true || len(ev["protocolData"].(map[string]any)) != 0 {
			t.Errorf("%v", ev)
		}
	})
	t.Run("contexts", func(t *testing.T) {
		_, err := test(&iot.TestInvokeAuthorizerRequest{
			Token: new("tok"), TokenSignature: &signature,
			HttpContext: &iot.HttpContext{Headers: map[string]string{"X-Api-Key": "k"}, QueryString: new("?a=b")},
			MqttContext: &iot.MqttContext{Username: new("u"), Password: []byte("p"), ClientId: new("c")},
			TlsContext:  &iot.TlsContext{ServerName: new("iot.example.com")},
		})
		ev := w.lambda.event(t)
		want := map[string]any{
			"tls":  map[string]any{"serverName": "iot.example.com"},
			"http": map[string]any{"headers": map[string]any{"x-api-key": "k"}, "queryString": "?a=b"},
			"mqtt": map[string]any{"username": "u", "password": "cA==", "clientId": "c"},
		}
		if diff := cmp.Diff(want, ev["protocolData"]); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("not authenticated", func(t *testing.T) {
		w.lambda.says(`{"isAuthenticated":false}`)
		out, err := test(&iot.TestInvokeAuthorizerRequest{Token: new("tok"), TokenSignature: &signature})
		if diff := cmp.Diff(&iot.TestInvokeAuthorizerResponse{IsAuthenticated: new(false)}, out); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("bad signature", func(t *testing.T) {
		_, err := test(&iot.TestInvokeAuthorizerRequest{Token: new("tok"), TokenSignature: new(sign(t, w.key, "other"))})
		wantError[*iot.InvalidRequestException](t, err, string(authorizer.ReasonBadSignature))
	})
	t.Run("no signature", func(t *testing.T) {
		_, err := test(&iot.TestInvokeAuthorizerRequest{Token: new("tok")})
		wantError[*iot.InvalidRequestException](t, err, string(authorizer.ReasonNoSignature))
	})
	t.Run("nonsense", func(t *testing.T) {
		w.lambda.says("nonsense")
		_, err := test(&iot.TestInvokeAuthorizerRequest{Token: new("tok"), TokenSignature: &signature})
		wantError[*iot.InvalidResponseException](t, err, "is not valid")
	})
}
