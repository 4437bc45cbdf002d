package sql

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// Bounds of regular expressions, which are RE2: time is linear in text × program.
const (
	maxPattern  = 4 << 10
	maxProgram  = 20_000  // instructions
	maxPatterns = 500_000 // steps that the literal ones of a statement or a template take together

	// What making a pattern costs, in steps of an evaluation.
	stepsPerInstruction = 4
	stepsPerClass       = 200    // \p{Greek}
	stepsPerFoldedRange = 20_000 // (?i)[B-\x{1e942}], whose characters are looked at one by one
)

// pattern is a compiled regular expression and its cost for a byte of text.
type pattern struct {
	re   *regexp.Regexp
	cost int
}

// compilePattern is nil for what is no regular expression, or too large a one. spend is asked for the steps before
// they are made; false ends it with nil.
func compilePattern(s string, spend func(steps int) bool) *pattern {
	if len(s) > maxPattern || !spend(parseSteps(s)) {
		return nil
	}
	tree, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil
	}
	size := instructions(tree)
	if size > maxProgram || !spend(stepsPerInstruction*size) {
		return nil
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil
	}
	return &pattern{re, size}
}

// parseSteps is what parsing a pattern costs at most, by a look at its text.
func parseSteps(s string) int {
	n := 200 + len(s) + stepsPerClass*(strings.Count(s, `\p`)+strings.Count(s, `\P`))
	wide := strings.Contains(s, `\x{`) || strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0
	if wide && strings.Contains(s, "(?") {
		n += stepsPerFoldedRange * strings.Count(s, "-")
	}
	return n
}

// instructions is how many a regular expression compiles to, about; it is never more than maxProgram+1. Repetitions
// multiply: a{999}b{999} of 14 bytes has 2000.
func instructions(re *syntax.Regexp) int {
	n := 0
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune)
	case syntax.OpCapture:
		n += 2
	case syntax.OpConcat:
	case syntax.OpAlternate:
		n += len(re.Sub)
	case syntax.OpRepeat:
		n = n*max(1, re.Min, re.Max) + max(1, re.Max-re.Min)
	default:
		n++
	}
	return min(n, maxProgram+1)
}

// regexpArg compiles the argument that is a regular expression: at once when it is a
// literal, for each message otherwise.
func (c *compiler) regexpArg(x expr) func(f *frame) *pattern {
	if s, ok := c.text(x); ok {
		p := compilePattern(s, func(steps int) bool {
			c.prog.patterns += steps
			return c.prog.patterns <= maxPatterns
		})
		return func(*frame) *pattern { return p }
	}
	of := c.expr(x)
	return func(f *frame) *pattern {
		s, ok := f.toText(of(f))
		if !ok {
			return nil
		}
		return compilePattern(s, f.spend)
	}
}

// checkPatterns refuses literal patterns that are too large together: they would be compiled, and kept.
func (p *program) checkPatterns() *ParseError {
	if p.patterns <= maxPatterns {
		return nil
	}
	return &ParseError{Line: 1, Column: 1, Message: "the regular expressions of the statement are too large together"}
}

// subject prepares text for a pattern and takes the steps that matching may cost.
func (p *pattern) subject(f *frame, v value) (s string, ok bool) {
	s, ok = f.toText(v)
	if p == nil || !ok {
		return "", false
	}
	return s, f.spend(1 + len(s)*p.cost/64)
}

func regexpMatches(c *compiler, args []expr) eval {
	of, re := c.expr(args[0]), c.regexpArg(args[1])
	return func(f *frame) value {
		p := re(f)
		s, ok := p.subject(f, of(f))
		if !ok {
			return value{}
		}
		return boolValue(p.re.MatchString(s))
	}
}

// regexpSubstr is Undefined when nothing matches.
func regexpSubstr(c *compiler, args []expr) eval {
	of, re := c.expr(args[0]), c.regexpArg(args[1])
	return func(f *frame) value {
		p := re(f)
		s, ok := p.subject(f, of(f))
		if !ok {
			return value{}
		}
		at := p.re.FindStringIndex(s)
		if at == nil {
			return value{}
		}
		return stringValue(s[at[0]:at[1]])
	}
}

func regexpReplace(c *compiler, args []expr) eval {
	of, re, with := c.expr(args[0]), c.regexpArg(args[1]), c.expr(args[2])
	return func(f *frame) value {
		p := re(f)
		s, ok := p.subject(f, of(f))
		text, ok2 := f.toText(with(f))
		if !ok || !ok2 {
			return value{}
		}
		parts, ok := parseReplacement(text, p.re)
		if !ok {
			return value{}
		}
		// Each match may look at the rest of the text, so that the whole is not linear.
		each := 1 + len(s)*p.cost/256
		most := f.in.cache.steps/each + 1
		var out []byte
		last := 0
		for _, m := range p.re.FindAllStringSubmatchIndex(s, most) {
			out = append(out, s[last:m[0]]...)
			last = m[1]
			for _, part := range parts {
				if part.group < 0 {
					out = append(out, part.text...)
				} else if m[2*part.group] >= 0 {
					out = append(out, s[m[2*part.group]:m[2*part.group+1]]...)
				}
			}
			if !f.spend(each) || !f.fits(len(out)) {
				return value{}
			}
		}
		return stringValue(f.built(string(append(out, s[last:]...))))
	}
}

// replacement is a piece of a replacement string: a text, or a group when not negative.
type replacement struct {
	text  string
	group int
}

// parseReplacement reads a replacement string as Java does: $n, ${name}, and \ before
// a character that stands for itself. Groups that do not exist make it invalid.
func parseReplacement(s string, re *regexp.Regexp) ([]replacement, bool) {
	var parts []replacement
	var text []byte
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			if i++; i == len(s) {
				return nil, false
			}
			text = append(text, s[i])
			continue
		case s[i] != '$':
			text = append(text, s[i])
			continue
		}
		group := -1
		switch rest := s[i+1:]; {
		case rest != "" && rest[0]-'0' <= 9:
			group = int(rest[0] - '0')
			i++
			for i+1 < len(s) && s[i+1]-'0' <= 9 && group*10+int(s[i+1]-'0') <= re.NumSubexp() {
				group = group*10 + int(s[i+1]-'0')
				i++
			}
		case strings.HasPrefix(rest, "{"):
			name, _, closed := strings.Cut(rest[1:], "}")
			if !closed || name == "" {
				return nil, false
			}
			group = re.SubexpIndex(name)
			i += len(name) + 2
		}
		if group < 0 || group > re.NumSubexp() {
			return nil, false
		}
		parts = append(parts, replacement{string(text), -1}, replacement{group: group})
		text = nil
	}
	return append(parts, replacement{string(text), -1}), true
}
