package wire

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Text is what a string shape allows. Nil allows everything.
type Text struct {
	Min, Max  int // length in characters; Max 0 = no bound
	Pattern   *Pattern
	Enum      []string
	Sensitive bool // values are not repeated in messages
}

func (c *Text) allows(s string) bool {
	return c == nil || c.longEnough(s) && c.shortEnough(s) && (c.Pattern == nil || c.Pattern.Match(s)) && (c.Enum == nil || slices.Contains(c.Enum, s))
}

func (c *Text) longEnough(s string) bool {
	return c.Min == 0 || len(s) >= c.Min && (len(s) >= 4*c.Min || utf8.RuneCountInString(s) >= c.Min)
}

func (c *Text) shortEnough(s string) bool {
	return c.Max == 0 || len(s) <= c.Max || len(s) <= 4*c.Max && utf8.RuneCountInString(s) <= c.Max
}

// describe lists the constraints, as AWS does for elements of lists and maps.
func (c *Text) describe() string {
	var list []string
	if c.Max > 0 {
		list = append(list, maxLength(c.Max))
	}
	if c.Min > 0 || c.Max > 0 {
		list = append(list, minLength(c.Min))
	}
	if c.Pattern != nil {
		list = append(list, matchPattern(c.Pattern))
	}
	if c.Enum != nil {
		list = append(list, matchEnum(c.Enum))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// Size is what a list, map or blob shape allows of its length. Nil allows
// everything.
type Size struct{ Min, Max int } // Max 0 = no bound

// Number is what a number shape allows. Nil allows everything.
type Number struct {
	Min, Max       float64
	HasMin, HasMax bool
}

func maxLength(n int) string { return "Member must have length less than or equal to " + itoa(n) }
func minLength(n int) string { return "Member must have length greater than or equal to " + itoa(n) }

func matchPattern(p *Pattern) string {
	return "Member must satisfy regular expression pattern: " + p.text
}

func matchEnum(values []string) string {
	return "Member must satisfy enum value set: [" + strings.Join(values, ", ") + "]"
}

func itoa(n int) string { return strconv.Itoa(n) }

// Pattern is a regular expression that the whole of a string must match. It is
// compiled when it is first needed.
type Pattern struct {
	text    string // as in the model
	once    sync.Once
	re      *regexp.Regexp
	class   *[utf8.RuneSelf]bool // set when the expression is one ASCII class, repeated
	between [2]int               // how often; -1 = no bound
}

// NewPattern makes a pattern of Java's syntax, as far as the models use it.
func NewPattern(text string) *Pattern { return &Pattern{text: text} }

// Match reports whether all of s matches.
func (p *Pattern) Match(s string) bool {
	p.once.Do(p.compile)
	if p.class == nil {
		return p.re.MatchString(s)
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf || !p.class[s[i]] {
			return false
		}
	}
	return len(s) >= p.between[0] && (p.between[1] < 0 || len(s) <= p.between[1])
}

var java = strings.NewReplacer(`\p{Graph}`, `[:graph:]`, `\p{Upper}`, `A-Z`, `\p{Digit}`, `0-9`, `\p{Cntrl}`, `[:cntrl:]`, `\p{Alnum}`, `[:alnum:]`)

func (p *Pattern) compile() {
	text := java.Replace(p.text)
	p.re = regexp.MustCompile(`\A(?:` + text + `)\z`)
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return
	}
	tree = body(tree)
	switch tree.Op {
	case syntax.OpPlus:
		p.between = [2]int{1, -1}
	case syntax.OpStar:
		p.between = [2]int{0, -1}
	case syntax.OpRepeat:
		p.between = [2]int{tree.Min, tree.Max}
	default:
		return
	}
	class := tree.Sub[0]
	if class.Op != syntax.OpCharClass || class.Rune[len(class.Rune)-1] >= utf8.RuneSelf {
		return
	}
	set := new([utf8.RuneSelf]bool)
	for i := 0; i < len(class.Rune); i += 2 {
		for r := class.Rune[i]; r <= class.Rune[i+1]; r++ {
			set[r] = true
		}
	}
	p.class = set
}

// body takes off anchors and groups around an expression: the whole string is
// matched anyway.
func body(tree *syntax.Regexp) *syntax.Regexp {
	for {
		switch {
		case tree.Op == syntax.OpCapture:
			tree = tree.Sub[0]
		case tree.Op == syntax.OpConcat && len(tree.Sub) > 1 && tree.Sub[0].Op == syntax.OpBeginText:
			tree.Sub = tree.Sub[1:]
		case tree.Op == syntax.OpConcat && len(tree.Sub) > 1 && tree.Sub[len(tree.Sub)-1].Op == syntax.OpEndText:
			tree.Sub = tree.Sub[:len(tree.Sub)-1]
		case tree.Op == syntax.OpConcat && len(tree.Sub) == 1:
			tree = tree.Sub[0]
		default:
			return tree
		}
	}
}
