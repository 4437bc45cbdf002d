package lint

import (
	"strings"
	"unicode/utf8"
)

// resource is a Resource taken apart.
type resource struct {
	text string // as written
	all  bool   // "*", or an ARN whose kind is a wildcard
	kind string // "topic"
	name string // "a/${iot:ClientId}/*"
}

func parseResource(text string) resource {
	r := resource{text: text}
	parts := strings.SplitN(text, ":", 6)
	if len(parts) < 6 {
		r.all = true // "*", or an ARN that a wildcard cuts short
		return r
	}
	var ok bool
	r.kind, r.name, ok = strings.Cut(parts[5], "/")
	r.all = !ok && strings.HasPrefix(r.kind, "*")
	return r
}

// kindIs tells whether the resource may be of a kind.
func (r resource) kindIs(kind string) bool {
	return r.all || r.kind == kind || strings.ContainsAny(r.kind, "*?") && covers(r.kind, kind)
}

// open tells whether the name is any name: "*", "**", or a client's own choice.
func (r resource) open() bool {
	return r.all || strings.Trim(r.name, "*") == "" && r.name != ""
}

// token is a character of a pattern, or something that stands for many.
type token struct {
	kind tokenKind
	text string
}

type tokenKind uint8

const (
	character tokenKind = iota
	one                 // ?
	anyText             // *
	variable            // ${...}, a text without wildcards
)

func tokens(pattern string) (list []token) {
	for i := 0; i < len(pattern); {
		rest := pattern[i:]
		switch {
		case len(rest) >= 4 && (rest[:2] == "${" && rest[3] == '}' || rest[:2] == "$(" && rest[3] == ')') && strings.IndexByte("*?$", rest[2]) >= 0:
			list = append(list, token{text: rest[2:3]})
			i += 4
		case strings.HasPrefix(rest, "${") && strings.Contains(rest, "}"):
			end := strings.IndexByte(rest, '}') + 1
			list = append(list, token{variable, strings.ToLower(rest[:end])})
			i += end
		case rest[0] == '*':
			if n := len(list); n == 0 || list[n-1].kind != anyText {
				list = append(list, token{kind: anyText})
			}
			i++
		case rest[0] == '?':
			list = append(list, token{kind: one})
			i++
		default:
			_, n := utf8.DecodeRuneInString(rest)
			list = append(list, token{text: rest[:n]})
			i += n
		}
	}
	return list
}

// covers tells whether every text that narrow matches is one that wide matches. It may say no where the answer is yes.
func covers(wide, narrow string) bool { return coversTokens(tokens(wide), tokens(narrow)) }

// coversTokens takes the leftmost place for what stands between two stars of wide, as a match of a text does: a star
// of narrow is a token that only a star matches.
func coversTokens(w, n []token) bool {
	wi, ni, back, mark := 0, 0, -1, 0
	for ni < len(n) {
		switch {
		case wi < len(w) && w[wi].kind == anyText:
			back, mark = wi, ni
			wi++
		case wi < len(w) && fits(w[wi], n[ni]):
			wi++
			ni++
		case back >= 0:
			mark++
			wi, ni = back+1, mark
		default:
			return false
		}
	}
	for wi < len(w) && w[wi].kind == anyText {
		wi++
	}
	return wi == len(w)
}

func fits(w, n token) bool {
	switch {
	case n.kind == anyText:
		return false
	case w.kind == one:
		return n.kind == character || n.kind == one
	default:
		return w == n
	}
}

// filterPattern is the pattern of the topics that a topic filter pattern may select: + is one level, # the rest. A
// shared subscription selects what its filter does.
func filterPattern(filter string) string {
	levels := strings.Split(filter, "/")
	if levels[0] == "$share" && len(levels) > 2 {
		levels = levels[2:]
	}
	for i, l := range levels {
		if l == "+" || l == "#" {
			levels[i] = "*"
		}
	}
	return strings.Join(levels, "/")
}
