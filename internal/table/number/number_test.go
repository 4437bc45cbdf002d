package number_test

import (
	"bytes"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flotilla/internal/table/number"
)

func TestSpelling(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "0.00": "0", "007": "7", "1.0": "1", "1e3": "1000", "-1.50E-2": "-0.015", "+5": "5", ".5": "0.5", "5.": "5",
		"1E-130": "0." + strings.Repeat("0", 129) + "1", "9.9E125": "99" + strings.Repeat("0", 124),
	} {
		n, err := number.Parse(in)
		if err != nil || n.String() != want {
			t.Errorf("%s: %s, %v; want %s", in, n, err, want)
		}
	}
	for in, want := range map[string]error{
		"": number.ErrSyntax, "x": number.ErrSyntax, "1e": number.ErrSyntax, "--1": number.ErrSyntax, "1.2.3": number.ErrSyntax, "NaN": number.ErrSyntax, "0x1": number.ErrSyntax,
		strings.Repeat("1", 39): number.ErrDigits, "1E126": number.ErrOverflow, "1E-131": number.ErrUnderflow,
	} {
		if _, err := number.Parse(in); err != want {
			t.Errorf("%q: %v; want %v", in, err, want)
		}
	}
}

func drawn(t *rapid.T, label string) (number.Number, *big.Rat) {
	text := rapid.StringMatching(`-?[0-9]{1,12}(\.[0-9]{0,12})?(e-?[0-9]{1,2})?`).Draw(t, label)
	n, err := number.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%s is no number", text)
	}
	return n, r
}

// The bytes of keys compare as the numbers do, and sums are exact.
func TestOrderAndSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, x := drawn(t, "a")
		b, y := drawn(t, "b")
		if got, want := bytes.Compare(a.Key(nil), b.Key(nil)), x.Cmp(y); got != want {
			t.Fatalf("%s, %s: %d, want %d", a, b, got, want)
		}
		again, err := number.Parse(a.String())
		if err != nil || again != a {
			t.Fatalf("%s read again: %v, %v", a, again, err)
		}
		sum, err := a.Add(b)
		if err != nil { // more digits than there may be
			return
		}
		if r, _ := new(big.Rat).SetString(sum.String()); r.Cmp(new(big.Rat).Add(x, y)) != 0 {
			t.Fatalf("%s + %s = %s", a, b, sum)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("-12.50e3")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := number.Parse(text)
		if err != nil {
			return
		}
		if again, err := number.Parse(n.String()); err != nil || again != n {
			t.Fatalf("%q: %s, %v", text, n, err)
		}
	})
}
