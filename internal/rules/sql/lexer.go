package sql

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind is a kind of token.
type tokenKind uint8

const (
	endToken    tokenKind = iota
	nameToken             // a keyword or an identifier
	varToken              // @name; text is without the @
	numberToken           // without a sign
	textToken             // a string literal; text is without quotes
	symbolToken           // an operator or a bracket
	badToken              // text says what is wrong
)

// token is a token with the place where it begins and ends.
type token struct {
	kind     tokenKind
	quote    byte // of a textToken
	text     string
	pos, end int
}

// is tells whether the token is a symbol.
func (t token) is(symbol string) bool { return t.kind == symbolToken && t.text == symbol }

// keyword tells whether the token is a word of the language, in any case.
func (t token) keyword(word string) bool {
	return t.kind == nameToken && len(t.text) == len(word) && strings.EqualFold(t.text, word)
}

// String names the token in a message.
func (t token) String() string {
	switch t.kind {
	case endToken:
		return "the end"
	case textToken:
		return "a string"
	case varToken:
		return clip("@" + t.text)
	}
	return clip(t.text)
}

func clip(s string) string {
	const most = 32
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// symbols, the longer ones first.
var symbols = [...]string{"<>", "!=", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", ".", ":"}

// lex returns the token that begins at or after pos. It never fails: what is no token
// is a badToken.
func lex(s string, pos int) token {
	for pos < len(s) && strings.IndexByte(" \t\r\n\f", s[pos]) >= 0 {
		pos++
	}
	if pos >= len(s) {
		return token{kind: endToken, pos: len(s), end: len(s)}
	}
	c := s[pos]
	switch {
	case c == '\'' || c == '"':
		return lexText(s, pos)
	case c-'0' <= 9:
		return lexNumber(s, pos)
	case c == '@':
		end := pos + 1
		for end < len(s) && (s[end] == '_' || s[end]-'0' <= 9 || (s[end]|0x20)-'a' <= 25) {
			end++
		}
		return token{kind: varToken, text: s[pos+1 : end], pos: pos, end: end}
	case isNameStart(s[pos:]):
		end := pos
		for end < len(s) {
			r, size := utf8.DecodeRuneInString(s[end:])
			if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
				break
			}
			end += size
		}
		return token{kind: nameToken, text: s[pos:end], pos: pos, end: end}
	case strings.HasPrefix(s[pos:], "--") || strings.HasPrefix(s[pos:], "/*"):
		return token{kind: badToken, text: "comments are not part of the language", pos: pos, end: len(s)}
	}
	for _, sym := range symbols {
		if strings.HasPrefix(s[pos:], sym) {
			return token{kind: symbolToken, text: sym, pos: pos, end: pos + len(sym)}
		}
	}
	r, size := utf8.DecodeRuneInString(s[pos:])
	if r == utf8.RuneError && size <= 1 {
		return token{kind: badToken, text: "a statement is UTF-8", pos: pos, end: len(s)}
	}
	return token{kind: badToken, text: "unexpected character " + string(r), pos: pos, end: len(s)}
}

func isNameStart(s string) bool {
	r, size := utf8.DecodeRuneInString(s)
	return r == '_' || unicode.IsLetter(r) && !(r == utf8.RuneError && size <= 1)
}

// lexText reads a literal in single or double quotes; a doubled quote stands for itself.
func lexText(s string, pos int) token {
	quote := s[pos]
	for i := pos + 1; i < len(s); i++ {
		if s[i] != quote {
			continue
		}
		if i+1 < len(s) && s[i+1] == quote {
			i++
			continue
		}
		text := s[pos+1 : i]
		q := string(quote)
		if strings.Contains(text, q) {
			text = strings.ReplaceAll(text, q+q, q)
		}
		if !utf8.ValidString(text) {
			return token{kind: badToken, text: "a statement is UTF-8", pos: pos, end: len(s)}
		}
		return token{kind: textToken, quote: quote, text: text, pos: pos, end: i + 1}
	}
	return token{kind: badToken, text: "the string has no closing " + string(quote), pos: pos, end: len(s)}
}

func lexNumber(s string, pos int) token {
	end := pos
	digits := func() {
		for end < len(s) && s[end]-'0' <= 9 {
			end++
		}
	}
	digits()
	if end+1 < len(s) && s[end] == '.' && s[end+1]-'0' <= 9 {
		end++
		digits()
	}
	if end < len(s) && s[end]|0x20 == 'e' {
		at := end + 1
		if at < len(s) && (s[at] == '+' || s[at] == '-') {
			at++
		}
		if at < len(s) && s[at]-'0' <= 9 {
			end = at
			digits()
		}
	}
	if end < len(s) && isNameStart(s[end:]) {
		return token{kind: badToken, text: "a name does not begin with a digit", pos: pos, end: len(s)}
	}
	return token{kind: numberToken, text: s[pos:end], pos: pos, end: end}
}
