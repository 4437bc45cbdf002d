package authorizer

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

// Parameters that are parsed are those of net/url, and bounded.
func FuzzParseUsername(f *testing.F) {
	for _, s := range []string{
		"", "user", "?", "user?x-amz-customauthorizer-name=A&x-amz-customauthorizer-signature=a%2Bb%3D&token=t", "?a=b?c=d", "?a&b=&=c&&d==e", "?%zz", "?a+b=c+d", "?a;b=c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, username string) {
		p, err := parseUsername(username)
		if err != nil {
			return
		}
		_, query, _ := strings.Cut(username, "?")
		if len(query) > maxParameterBytes || len(p) > maxParameterCount {
			t.Fatalf("%d bytes, %d parameters", len(query), len(p))
		}
		want, err := url.ParseQuery(query)
		if err != nil {
			return // semicolons
		}
		for _, x := range p {
			if p.get(x.name) != want.Get(x.name) {
				t.Fatalf("%q: got %q, net/url %q", x.name, p.get(x.name), want.Get(x.name))
			}
			v, err := p.unique(x.name)
			if (err == nil) != (len(want[x.name]) == 1) || err == nil && v != want.Get(x.name) {
				t.Fatalf("%q: got %q, %v, net/url %q", x.name, v, err, want[x.name])
			}
		}
	})
}

// An answer that is taken is within the limits, and its policies can be asked; nothing panics.
func FuzzDecodeAnswer(f *testing.F) {
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	for _, s := range []string{
		"", "null", `""`, `{"isAuthenticated":false}`,
		`{"isAuthenticated":true,"principalId":"p","policyDocuments":[` + policy + `],"disconnectAfterInSeconds":300,"refreshAfterInSeconds":86400}`,
		`"{\"isAuthenticated\":true,\"principalId\":\"p\",\"policyDocuments\":[\"{}\"]}"`,
		`{"isAuthenticated":true,"principalId":"p","policyDocuments":[` + policy + `,"` + strings.ReplaceAll(policy, `"`, `\"`) + `"]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := decodeAnswer("A", text)
		if err != nil {
			if d := detail(err.Error(), string(text)); len(d) > maxDetail {
				t.Fatalf("%d bytes of detail", len(d))
			}
			return
		}
		if !a.authenticated {
			return
		}
		for _, d := range []time.Duration{a.disconnectAfter, a.refreshAfter} {
			if d < minSeconds*time.Second || d > maxSeconds*time.Second {
				t.Fatal(d)
			}
		}
		if !validPrincipal.MatchString(a.principal) || len(a.documents) > maxDocuments || a.policies == nil {
			t.Fatalf("%+v", a)
		}
	})
}
