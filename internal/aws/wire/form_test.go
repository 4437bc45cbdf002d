package wire_test

import (
	"net/url"
	"testing"

	"flotilla/internal/aws/wire"
)

// AWS: https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html, examples of parameters.
func TestFormJSON(t *testing.T) {
	for form, want := range map[string]string{
		"Action=Publish&Version=2010-03-31&Message=a%22b":                                                         `{"Message":"a\"b"}`,
		"A.member.10=c&A.member.2=b&A.member.1=a":                                                                 `{"A":["a","b","c"]}`,
		"E.member.1.Id=x&E.member.1.N.Deep=y":                                                                     `{"E":[{"Id":"x","N":{"Deep":"y"}}]}`,
		"Attributes.entry.1.key=k&Attributes.entry.1.value=v&Attributes.entry.2.key=l&Attributes.entry.2.value=w": `{"Attributes":{"k":"v","l":"w"}}`,
		"M.entry.1.Name=store&M.entry.1.Value.DataType=String&M.entry.1.Value.StringValue=x":                      `{"M":{"store":{"DataType":"String","StringValue":"x"}}}`,
		"": `{}`, "X-Amz-Date=1&List=": `{"List":""}`,
	} {
		q, err := url.ParseQuery(form)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.FormJSON(q)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", form, got, err, want)
		}
	}
	for _, form := range []string{
		"A=1&A=2", "A=1&A.B=2", "A..B=1", "A.member.x=1", "A.member.0=1", "A.entry.1.key=k", "A.entry.1.value=k",
		"A.entry.1.key=k&A.entry.1.value=v&A.entry.2.key=k&A.entry.2.value=w", "A.entry.1.key=k&A.entry.1.value=v&A.entry.1.more=w",
	} {
		q, _ := url.ParseQuery(form)
		if got, err := wire.FormJSON(q); err == nil {
			t.Errorf("%s: %s", form, got)
		}
	}
}

func FuzzFormJSON(f *testing.F) {
	f.Add("A.member.1.B=1&C.entry.1.key=2&C.entry.1.value=3")
	f.Fuzz(func(t *testing.T, form string) {
		q, err := url.ParseQuery(form)
		if err != nil {
			return
		}
		text, err := wire.FormJSON(q)
		if err != nil {
			return
		}
		d := wire.NewFormDecoder(text)
		d.In("x")
		d.Skip()
		d.End()
		if err := d.Err(); err != nil {
			t.Errorf("%q gives %s: %v", form, text, err)
		}
	})
}
