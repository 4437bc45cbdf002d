package authorizer_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/identity/authorizer"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// TestAuthenticate takes credentials from where AWS documents them.
// https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth.html
func TestAuthenticate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, authorizer.Config{})
		w.signed(t, "A")
		const token = "a+b c/d=="
		sig := sign(t, w.key, token)
		all := query(nameKey, "A", sigKey, sig, tokenKey, token)
		mqtt := map[string]any{"clientId": "lamp", "password": "cHc="}
		for name, c := range map[string]struct {
			in        authorizer.Request
			protocols []any
			data      map[string]any
		}{
			"MQTT user name": {
				authorizer.Request{Username: "user?" + all + "&SDK=Cpp", Password: []byte("pw"), ClientID: "lamp", ServerName: "iot.example.com"},
				[]any{"tls", "mqtt"},
				map[string]any{"tls": map[string]any{"serverName": "iot.example.com"}, "mqtt": with(mqtt, "username", "user?"+all+"&SDK=Cpp")},
			},
			"MQTT user name without a name": {
				authorizer.Request{Username: "?" + all},
				[]any{"tls", "mqtt"},
				map[string]any{"mqtt": map[string]any{"username": "?" + all}},
			},
			"plus signs of the signature not escaped": {
				authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, token) + "&" + sigKey + "=" + sig},
				[]any{"tls", "mqtt"},
				map[string]any{"mqtt": map[string]any{"username": "?" + query(nameKey, "A", tokenKey, token) + "&" + sigKey + "=" + sig}},
			},
			"WebSocket headers": {
				authorizer.Request{
					Protocol: authorizer.WebSocket, Password: []byte("pw"), ClientID: "lamp",
					Header: header(nameKey, "A", sigKey, sig, strings.ToUpper(tokenKey), token, "Upgrade", "websocket"),
				},
				[]any{"tls", "http", "mqtt"},
				map[string]any{
					"http": map[string]any{"headers": map[string]any{nameKey: "A", sigKey: sig, "My-Token": token, "Upgrade": "websocket"}},
					"mqtt": mqtt,
				},
			},
			"WebSocket query string": {
				authorizer.Request{Protocol: authorizer.WebSocket, RawQuery: all, Password: []byte("pw"), ClientID: "lamp"},
				[]any{"tls", "http", "mqtt"},
				map[string]any{"http": map[string]any{"queryString": "?" + all}, "mqtt": mqtt},
			},
			"WebSocket user name": {
				authorizer.Request{Protocol: authorizer.WebSocket, Username: "?" + all},
				[]any{"tls", "http", "mqtt"},
				map[string]any{"http": map[string]any{}, "mqtt": map[string]any{"username": "?" + all}},
			},
			"HTTPS query string": {
				authorizer.Request{Protocol: authorizer.HTTP, RawQuery: "qos=1&" + all, Username: "not of HTTP"},
				[]any{"tls", "http"},
				map[string]any{"http": map[string]any{"queryString": "?qos=1&" + all}},
			},
			"HTTPS headers": {
				authorizer.Request{Protocol: authorizer.HTTP, Header: header(nameKey, "A", sigKey, sig, tokenKey, token)},
				[]any{"tls", "http"},
				map[string]any{"http": map[string]any{"headers": map[string]any{nameKey: "A", sigKey: sig, "My-Token": token}}},
			},
		} {
			t.Run(name, func(t *testing.T) {
				c.in.ConnectionID = "5b6d4ea4-0b6f-4f4f-9d3c-000000000001"
				res, err := w.Authenticate(t.Context(), &c.in)
				if err != nil {
					t.Fatal(err)
				}
				if res.Authorizer != "A" || res.Principal != (aws.Principal{Type: "authorizer", ID: "lamp1"}) ||
					res.DisconnectAfter != 24*time.Hour || res.RefreshAfter != 5*time.Minute {
					t.Errorf("%+v", res)
				}
				conn := res.Policies.For(&lang.Connection{Protocol: "mqtt", ClientID: "lamp"})
				for client, want := range map[string]bool{"lamp": true, "other": false} {
					d := conn.Authorize("iot:Connect", "arn:aws:iot:us-east-1:123456789012:client/"+client)
					if d.Allowed() != want || want && d.Policy != "A policyDocuments[0]" {
						t.Errorf("client %s: %+v", client, d)
					}
				}
				want := map[string]any{
					"token": token, "signatureVerified": true, "protocols": c.protocols, "protocolData": c.data,
					"connectionMetadata": map[string]any{"id": c.in.ConnectionID},
				}
				if diff := cmp.Diff(want, w.lambda.event(t)); diff != "" {
					t.Error(diff)
				}
			})
		}
	})
}

func with(m map[string]any, name string, v any) map[string]any {
	m = maps.Clone(m)
	m[name] = v
	return m
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestSigningDisabled(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{})
	w.unsigned(t, "A", func(in *iot.CreateAuthorizerRequest) { in.TokenKeyName = new(tokenKey) })
	w.unsigned(t, "B")
	for name, token := range map[string]any{"A": "tok", "B": nil} {
		_, err := w.Authenticate(t.Context(), &authorizer.Request{Username: "u?" + query(nameKey, name, tokenKey, "tok"), Password: []byte{0xff}})
		if err != nil {
			t.Fatal(err)
		}
		ev := w.lambda.event(t)
		if ev["token"] != token || ev["signatureVerified"] != false || ev["connectionMetadata"].(map[string]any)["id"] == "" {
			t.Errorf("%s: %v", name, ev)
		}
	}
}

// TestCertificateAsWell: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-509cert.html
func TestCertificateAsWell(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{})
	w.unsigned(t, "A")
	_, err := w.Authenticate(t.Context(), &authorizer.Request{AuthorizerName: "A", Certificate: &x509.Certificate{Raw: []byte{1}}, CertificateID: "abc"})
	want := map[string]any{"x509CertificatePem": "-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n", "principalId": "abc"}
	if diff := cmp.Diff(want, w.lambda.event(t)["protocolData"].(map[string]any)["tls"]); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestSeveralKeys(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{})
	other := mustKey(t, 2048)
	in := w.request("A")
	in.TokenSigningPublicKeys["second"] = publicPEM(&other.PublicKey)
	if _, err := w.CreateAuthorizer(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		_, err := w.Authenticate(t.Context(), &authorizer.Request{AuthorizerName: "A", Token: "t", Signature: sign(t, other, "t")})
		return err
	}
	if err := ask(); err != nil {
		t.Error(err)
	}
	// Taking the key away is followed at once.
	_, err := w.UpdateAuthorizer(t.Context(), &iot.UpdateAuthorizerRequest{AuthorizerName: "A", TokenSigningPublicKeys: w.request("A").TokenSigningPublicKeys})
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, ask(), authorizer.ReasonBadSignature)
}

// TestRefusedBeforeTheFunction: nothing is called for what no authorizer could vouch for.
func TestRefusedBeforeTheFunction(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{})
	w.signed(t, "A")
	in := w.request("Inactive")
	in.Status = new("INACTIVE")
	if _, err := w.CreateAuthorizer(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	sig := sign(t, w.key, "tok")
	for name, c := range map[string]struct {
		in   authorizer.Request
		want authorizer.Reason
	}{
		"no authorizer":        {authorizer.Request{Username: "user"}, authorizer.ReasonNoAuthorizer},
		"unknown":              {authorizer.Request{Username: "?" + query(nameKey, "B")}, authorizer.ReasonUnknown},
		"name is none":         {authorizer.Request{Username: "?" + query(nameKey, "\x1b[31m")}, authorizer.ReasonUnknown},
		"unknown default":      {authorizer.Request{DefaultAuthorizer: "B"}, authorizer.ReasonUnknown},
		"inactive":             {authorizer.Request{Username: "?" + query(nameKey, "Inactive", tokenKey, "tok", sigKey, sig)}, authorizer.ReasonInactive},
		"override":             {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok", sigKey, sig), DefaultAuthorizer: "B"}, authorizer.ReasonOverride},
		"no token":             {authorizer.Request{Username: "?" + query(nameKey, "A", sigKey, sig)}, authorizer.ReasonNoToken},
		"wrong token key":      {authorizer.Request{Username: "?" + query(nameKey, "A", "My-Token", "tok", sigKey, sig)}, authorizer.ReasonNoToken},
		"no signature":         {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok")}, authorizer.ReasonNoSignature},
		"signature of another": {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok2", sigKey, sig)}, authorizer.ReasonBadSignature},
		"signature by another": {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok", sigKey, sign(t, mustKey(t, 2048), "tok"))}, authorizer.ReasonBadSignature},
		"no base64":            {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok", sigKey, "%%%")}, authorizer.ReasonBadSignature},
		"long signature":       {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok", sigKey, strings.Repeat("A", 4000))}, authorizer.ReasonBadSignature},
		"second question mark": {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok", sigKey, sig) + "?SDK=JavaV2"}, authorizer.ReasonBadSignature},
		"escape":               {authorizer.Request{Username: "?a=%zz"}, authorizer.ReasonMalformed},
		"two tokens":           {authorizer.Request{Username: "?" + query(nameKey, "A", tokenKey, "tok", tokenKey, "tok", sigKey, sig)}, authorizer.ReasonMalformed},
		"two names":            {authorizer.Request{Username: "?" + query(nameKey, "A", nameKey, "B")}, authorizer.ReasonMalformed},
		"two headers":          {authorizer.Request{Protocol: authorizer.HTTP, Header: header(nameKey, "A", nameKey, "B")}, authorizer.ReasonMalformed},
		"many parameters":      {authorizer.Request{Username: "?" + strings.Repeat("a=b&", 65)}, authorizer.ReasonMalformed},
		"long user name":       {authorizer.Request{Username: "?" + strings.Repeat("a", 17<<10)}, authorizer.ReasonMalformed},
		"long query string":    {authorizer.Request{Protocol: authorizer.HTTP, RawQuery: strings.Repeat("a", 17<<10)}, authorizer.ReasonMalformed},
		"MQTT has no headers":  {authorizer.Request{Protocol: authorizer.MQTT, Header: header(nameKey, "A"), RawQuery: query(nameKey, "A")}, authorizer.ReasonNoAuthorizer},
		"HTTP has no username": {authorizer.Request{Protocol: authorizer.HTTP, Username: "?" + query(nameKey, "A")}, authorizer.ReasonNoAuthorizer},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := w.Authenticate(t.Context(), &c.in)
			e := wantRefused(t, err, c.want)
			if res != nil || len(e.Error()) > 512 || strings.ContainsAny(e.Error(), "\x1b\n") || strings.Contains(e.Error(), sig) {
				t.Errorf("%v %q", res, e.Error())
			}
		})
	}
	if n := w.lambda.calls(); n != 0 {
		t.Errorf("the function was called %d times", n)
	}
}

// TestDomainConfiguration: https://docs.aws.amazon.com/iot/latest/apireference/API_AuthorizerConfig.html
func TestDomainConfiguration(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{})
	for _, n := range []string{"account", "domain", "other"} {
		w.unsigned(t, n)
	}
	if _, err := w.SetDefaultAuthorizer(t.Context(), &iot.SetDefaultAuthorizerRequest{AuthorizerName: "account"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		in   authorizer.Request
		want string
	}{
		"default of the domain":  {authorizer.Request{DefaultAuthorizer: "domain"}, "domain"},
		"default of the account": {authorizer.Request{}, "account"},
		"named":                  {authorizer.Request{Username: "?" + query(nameKey, "other")}, "other"},
		"override allowed":       {authorizer.Request{Username: "?" + query(nameKey, "other"), DefaultAuthorizer: "domain", AllowOverride: true}, "other"},
		"names the default":      {authorizer.Request{Username: "?" + query(nameKey, "domain"), DefaultAuthorizer: "domain"}, "domain"},
	} {
		res, err := w.Authenticate(t.Context(), &c.in)
		if err != nil || res.Authorizer != c.want {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
}

// TestAnswers are answers of functions, valid and not.
// https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-lambda.html
func TestAnswers(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{})
	w.unsigned(t, "A")
	quoted := func(s string) string { return fmt.Sprintf("%q", s) }
	answer := func(documents ...string) string {
		return `{"isAuthenticated":true,"principalId":"p","policyDocuments":[` + strings.Join(documents, ",") + `]}`
	}
	long := strings.Replace(policyDocument, `"Version"`, `"Id":"`+strings.Repeat("x", 2048)+`","Version"`, 1)
	for name, c := range map[string]struct {
		answer string
		want   string // "" is valid
	}{
		"document as object":        {answer(policyDocument), ""},
		"document as string":        {answer(quoted(policyDocument)), ""},
		"encoded twice":             {quoted(goodAnswer), ""},
		"unknown members":           {`{"isAuthenticated":true,"principalId":"p","context":{"a":1}}`, ""},
		"ten documents":             {answer(slices.Repeat([]string{policyDocument}, 10)...), ""},
		"eleven documents":          {answer(slices.Repeat([]string{policyDocument}, 11)...), "it has 11 policyDocuments"},
		"long document":             {answer(long), "policyDocuments[0]"},
		"malformed document":        {answer(policyDocument, `{"Version":"2012-10-17","Statement":[{"Effect":"Maybe"}]}`), "policyDocuments[1]"},
		"document is a number":      {answer("1"), "policyDocuments[0] is neither an object nor a string"},
		"documents are no list":     {`{"isAuthenticated":true,"principalId":"p","policyDocuments":{}}`, "/policyDocuments is a {"},
		"empty":                     {``, "not a JSON object"},
		"null":                      {`null`, "not a JSON object"},
		"nonsense":                  {`<html>`, "not a JSON object"},
		"cut off":                   {goodAnswer[:40], "not JSON"},
		"trailing":                  {goodAnswer + "x", "not JSON"},
		"encoded three times":       {quoted(quoted(goodAnswer)), "not a JSON object"},
		"isAuthenticated missing":   {`{"principalId":"p"}`, "isAuthenticated is missing"},
		"isAuthenticated text":      {`{"isAuthenticated":"true","principalId":"p"}`, "/isAuthenticated is a"},
		"isAuthenticated twice":     {`{"isAuthenticated":false,"isAuthenticated":true,"principalId":"p"}`, "there twice"},
		"other case":                {`{"IsAuthenticated":true,"principalId":"p"}`, "isAuthenticated is missing"},
		"principalId missing":       {`{"isAuthenticated":true}`, "principalId is not"},
		"principalId empty":         {`{"isAuthenticated":true,"principalId":""}`, "principalId is not"},
		"principalId characters":    {`{"isAuthenticated":true,"principalId":"a-b"}`, "principalId is not"},
		"principalId newline":       {`{"isAuthenticated":true,"principalId":"a\n"}`, "principalId is not"},
		"principalId long":          {`{"isAuthenticated":true,"principalId":"` + strings.Repeat("a", 129) + `"}`, "principalId is not"},
		"disconnectAfter small":     {`{"isAuthenticated":true,"principalId":"p","disconnectAfterInSeconds":299}`, "disconnectAfterInSeconds is not within"},
		"disconnectAfter large":     {`{"isAuthenticated":true,"principalId":"p","disconnectAfterInSeconds":86401}`, "disconnectAfterInSeconds is not within"},
		"disconnectAfter huge":      {`{"isAuthenticated":true,"principalId":"p","disconnectAfterInSeconds":1e99}`, "/disconnectAfterInSeconds"},
		"refreshAfter small":        {`{"isAuthenticated":true,"principalId":"p","refreshAfterInSeconds":0}`, "refreshAfterInSeconds is not within"},
		"refreshAfter is text":      {`{"isAuthenticated":true,"principalId":"p","refreshAfterInSeconds":"300"}`, "/refreshAfterInSeconds is a"},
		"huge":                      {strings.Repeat(" ", 128<<10) + goodAnswer, "at most 131072 are allowed"},
		"huge beyond any functions": {strings.Repeat(" ", 7<<20), "longer than 6291456 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			w.lambda.says(c.answer)
			res, err := w.Authenticate(t.Context(), &authorizer.Request{AuthorizerName: "A"})
			if c.want == "" {
				if err != nil || res.Policies == nil {
					t.Error(res, err)
				}
				return
			}
			e := wantError[*authorizer.RefusedError](t, err, c.want)
			if e.Reason != authorizer.ReasonInvalidAnswer && e.Reason != authorizer.ReasonFunctionFailed || len(e.Detail) > 256 {
				t.Errorf("%+v", e)
			}
		})
	}
	t.Run("not authenticated", func(t *testing.T) {
		for _, text := range []string{`{"isAuthenticated":false}`, `{"isAuthenticated":false,"principalId":null,"policyDocuments":[1]}`} {
			w.lambda.says(text)
			_, err := w.Authenticate(t.Context(), &authorizer.Request{AuthorizerName: "A"})
			wantRefused(t, err, authorizer.ReasonNotAuthenticated)
		}
	})
	t.Run("durations left out", func(t *testing.T) {
		w.lambda.says(`{"isAuthenticated":true,"principalId":"p","disconnectAfterInSeconds":600}`)
		res, err := w.Authenticate(t.Context(), &authorizer.Request{AuthorizerName: "A"})
		if err != nil || res.DisconnectAfter != 10*time.Minute || res.RefreshAfter != 10*time.Minute {
			t.Errorf("%+v %v", res, err)
		}
	})
}

func TestFunctionFails(t *testing.T) {
	w := newWorld(t, storetest.Open(t), authorizer.Config{Timeout: time.Minute})
	w.unsigned(t, "A", func(in *iot.CreateAuthorizerRequest) { in.TokenKeyName = new(tokenKey) })
	w.unsigned(t, "Unknown", func(in *iot.CreateAuthorizerRequest) { in.AuthorizerFunctionArn += "2" })
	r := &authorizer.Request{Username: "carol?" + query(nameKey, "A", tokenKey, "tok-secret", "pin", "9876"), Password: []byte("password-secret")}
	t.Run("error tells no secrets", func(t *testing.T) {
		w.lambda.does(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("X-Amz-Function-Error", "Handled")
			_, _ = io.WriteString(rw, `{"errorType":"E","errorMessage":"no tok-secret with password-secret or 9876 in `+"`"+`carol?x`+"`"+`"}`)
		})
		_, err := w.Authenticate(t.Context(), r)
		e := wantRefused(t, err, authorizer.ReasonFunctionFailed)
		if strings.Contains(e.Error(), "secret") || strings.Contains(e.Error(), "9876") || !strings.Contains(e.Error(), "E: no *** with *** or *** in") {
			t.Errorf("%v", e)
		}
	})
	t.Run("status", func(t *testing.T) {
		w.lambda.does(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(502) })
		_, err := w.Authenticate(t.Context(), r)
		wantRefused(t, err, authorizer.ReasonFunctionFailed)
	})
	t.Run("unknown function", func(t *testing.T) {
		_, err := w.Authenticate(t.Context(), &authorizer.Request{AuthorizerName: "Unknown"})
		wantRefused(t, err, authorizer.ReasonFunctionFailed)
		wantError[*authorizer.RefusedError](t, err, functionARN+"2 is not configured")
	})
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	t.Run("hangs", func(t *testing.T) {
		w := newWorld(t, storetest.Open(t), authorizer.Config{Timeout: 50 * time.Millisecond})
		w.unsigned(t, "A", func(in *iot.CreateAuthorizerRequest) { in.TokenKeyName = new(tokenKey) })
		w.lambda.does(hang)
		_, err := w.Authenticate(t.Context(), r)
		wantRefused(t, err, authorizer.ReasonFunctionTimeout)
	})
	t.Run("connection goes away", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w.lambda.does(func(rw http.ResponseWriter, r *http.Request) { cancel(); hang(rw, r) })
		_, err := w.Authenticate(ctx, r)
		if err != context.Canceled {
			t.Errorf("got %v", err)
		}
	})
}

// TestRefresh: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-lambda.html
func TestRefresh(t *testing.T) {
	w, ctx := newWorld(t, storetest.Open(t), authorizer.Config{}), t.Context()
	w.signed(t, "A")
	password := []byte("pw")
	before, err := w.Authenticate(ctx, &authorizer.Request{
		Username: "u?" + query(nameKey, "A", tokenKey, "tok", sigKey, sign(t, w.key, "tok")), Password: password, ClientID: "lamp",
	})
	if err != nil {
		t.Fatal(err)
	}
	first := w.lambda.event(t)
	password[0] = 'X' // the packet's buffer is used again

	w.lambda.says(`{"isAuthenticated":true,"principalId":"lamp1","disconnectAfterInSeconds":300,"refreshAfterInSeconds":900,"policyDocuments":[]}`)
	after, err := w.Refresh(ctx, before)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, w.lambda.event(t)); diff != "" {
		t.Error(diff)
	}
	if after.DisconnectAfter != 24*time.Hour || after.RefreshAfter != 15*time.Minute || after.Principal != before.Principal {
		t.Errorf("%+v", after)
	}
	if after.Policies.For(&lang.Connection{ClientID: "lamp"}).Authorize("iot:Connect", "arn:aws:iot:us-east-1:123456789012:client/lamp").Allowed() {
		t.Error("the old policies rule")
	}

	t.Run("another principal", func(t *testing.T) {
		w.lambda.says(strings.Replace(goodAnswer, "lamp1", "lamp2", 1))
		_, err := w.Refresh(ctx, after)
		wantRefused(t, err, authorizer.ReasonOtherPrincipal)
	})
	t.Run("not authenticated any more", func(t *testing.T) {
		w.lambda.says(`{"isAuthenticated":false}`)
		_, err := w.Refresh(ctx, after)
		wantRefused(t, err, authorizer.ReasonNotAuthenticated)
	})
	t.Run("inactive by now", func(t *testing.T) {
		w.lambda.says(goodAnswer)
		if _, err := w.UpdateAuthorizer(ctx, &iot.UpdateAuthorizerRequest{AuthorizerName: "A", Status: new("INACTIVE")}); err != nil {
			t.Fatal(err)
		}
		_, err := w.Refresh(ctx, after)
		wantRefused(t, err, authorizer.ReasonInactive)
	})
}

func TestRefreshKeepsItsAuthorizer(t *testing.T) {
	w, ctx := newWorld(t, storetest.Open(t), authorizer.Config{}), t.Context()
	w.unsigned(t, "A")
	w.unsigned(t, "B")
	setDefault := func(name string) {
		if _, err := w.SetDefaultAuthorizer(ctx, &iot.SetDefaultAuthorizerRequest{AuthorizerName: name}); err != nil {
			t.Fatal(err)
		}
	}
	setDefault("A")
	before, err := w.Authenticate(ctx, &authorizer.Request{Username: "u"})
	if err != nil {
		t.Fatal(err)
	}
	setDefault("B")
	after, err := w.Refresh(ctx, before)
	if err != nil || after.Authorizer != "A" {
		t.Errorf("%+v %v", after, err)
	}
}

// TestCachingForHTTP: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateAuthorizer.html
func TestCachingForHTTP(t *testing.T) {
	w, ctx := newWorld(t, storetest.Open(t), authorizer.Config{MaxCached: 50}), t.Context()
	w.unsigned(t, "A", func(in *iot.CreateAuthorizerRequest) { in.EnableCachingForHttp = new(true) })
	w.unsigned(t, "B")
	ask := func(in authorizer.Request) (asked bool) {
		t.Helper()
		n := w.lambda.calls()
		if _, err := w.Authenticate(ctx, &in); err != nil {
			t.Fatal(err)
		}
		return w.lambda.calls() > n
	}
	r := authorizer.Request{
		Protocol: authorizer.HTTP, ConnectionID: "1", RawQuery: query(nameKey, "A", "qos", "1"),
		Header: header("Authorization", "Bearer 1", "Content-Length", "5"),
	}
	change := func(f func(*authorizer.Request)) authorizer.Request {
		c := r
		c.Header = r.Header.Clone()
		f(&c)
		return c
	}
	if !ask(r) || ask(r) {
		t.Error("the second request was not answered from memory")
	}
	if ask(change(func(c *authorizer.Request) {
		c.Header.Set("Content-Length", "6")
		c.RawQuery = query(nameKey, "A", "qos", "0")
	})) {
		t.Error("what differs in each request was looked at")
	}
	for name, other := range map[string]authorizer.Request{
		"another connection":    change(func(c *authorizer.Request) { c.ConnectionID = "2" }),
		"no connection":         change(func(c *authorizer.Request) { c.ConnectionID = "" }),
		"other credentials":     change(func(c *authorizer.Request) { c.Header.Set("Authorization", "Bearer 2") }),
		"another parameter":     change(func(c *authorizer.Request) { c.RawQuery += "&user=2" }),
		"another certificate":   change(func(c *authorizer.Request) { c.CertificateID = "2" }),
		"another authorizer":    change(func(c *authorizer.Request) { c.RawQuery = query(nameKey, "B") }),
		"MQTT is never cached":  change(func(c *authorizer.Request) { c.Protocol = authorizer.WebSocket }),
		"and again for the one": change(func(c *authorizer.Request) { c.Protocol = authorizer.WebSocket }),
	} {
		if !ask(other) {
			t.Errorf("%s was answered from memory", name)
		}
	}
	if ask(r) {
		t.Error("forgotten")
	}
	w.advance(299 * time.Second)
	if ask(r) {
		t.Error("forgotten too early")
	}
	w.advance(time.Second)
	if !ask(r) {
		t.Error("kept beyond refreshAfterInSeconds")
	}
	if _, err := w.UpdateAuthorizer(ctx, &iot.UpdateAuthorizerRequest{AuthorizerName: "A"}); err != nil {
		t.Fatal(err)
	}
	if !ask(r) {
		t.Error("kept though the authorizer changed")
	}
	for i := range 200 {
		ask(change(func(c *authorizer.Request) { c.ConnectionID = fmt.Sprint("n", i) }))
	}
}

// TestOtherNode follows a change that another node made.
func TestOtherNode(t *testing.T) {
	db := storetest.Open(t)
	here, there := newWorld(t, db, authorizer.Config{}), newWorld(t, db, authorizer.Config{})
	here.unsigned(t, "A")
	there.bus.Changed("authorizer", "A")
	ask := func() error {
		_, err := there.Authenticate(t.Context(), &authorizer.Request{AuthorizerName: "A"})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if _, err := here.UpdateAuthorizer(t.Context(), &iot.UpdateAuthorizerRequest{AuthorizerName: "A", Status: new("INACTIVE")}); err != nil {
		t.Fatal(err)
	}
	there.bus.Changed("authorizer", "A")
	wantRefused(t, ask(), authorizer.ReasonInactive)
}

func TestIsCustom(t *testing.T) {
	for name, c := range map[string]struct {
		header http.Header
		query  string
		want   bool
	}{
		"SigV4":     {header("Host", "h"), "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab", false},
		"header":    {header(nameKey, "A"), "", true},
		"signature": {header(sigKey, "A"), "", true},
		"query":     {nil, query(nameKey, "A"), true},
		"malformed": {nil, nameKey + "=%zz", false},
		"nothing":   {nil, "", false},
	} {
		if got := authorizer.IsCustom(c.header, c.query); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
