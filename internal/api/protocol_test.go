package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"flotilla/internal/api"
)

func TestGetCallerIdentity(t *testing.T) {
	w := newWorld(t, api.Config{})
	// No policy can deny it.
	w.permissions.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`)
	ask := func(key sdk.Credentials, method, target, body string) answer {
		t.Helper()
		r := w.request(t, method, target, body)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		return send(t, http.DefaultClient, signAs(t, key, r, "sts", body, time.Now()))
	}
	const body = "Action=GetCallerIdentity&Version=2011-06-15"
	for _, a := range []answer{ask(signingKey, "POST", "/", body), ask(signingKey, "GET", "/?"+body, "")} {
		want := `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/admin</Arn>` +
			`<UserId>` + keyID + `</UserId><Account>123456789012</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>`
		if a.status != 200 || !strings.HasPrefix(a.body, want) || a.header.Get("Content-Type") != "text/xml" {
			t.Errorf("%+v", a)
		}
	}
	wrong := signingKey
	wrong.SecretAccessKey = "wrong"
	for name, c := range map[string]struct {
		got    answer
		status int
		code   string
	}{
		"another operation": {ask(signingKey, "POST", "/", "Action=AssumeRole&Version=2011-06-15"), 400, "InvalidAction"},
		"none":              {ask(signingKey, "POST", "/", ""), 400, "InvalidAction"},
		"two":               {ask(signingKey, "POST", "/", body+"&Action=AssumeRole"), 400, "InvalidAction"},
		"another path":      {ask(signingKey, "POST", "/things", body), 400, "InvalidAction"},
		"no form":           {ask(signingKey, "POST", "/", "%zz"), 400, "MalformedQueryString"},
		"markup":            {ask(signingKey, "POST", "/", "Action=<x>"), 400, "InvalidAction"},
		"signature":         {ask(wrong, "POST", "/", body), 403, "SignatureDoesNotMatch"},
	} {
		if c.got.status != c.status || !strings.Contains(c.got.body, "<Code>"+c.code+"</Code>") || strings.Contains(c.got.body, "<x>") {
			t.Errorf("%s: %+v", name, c.got)
		}
	}
}
