package query

import (
	"math"
	"strconv"
	"strings"
)

// Pattern is a word, folded, with wildcards: * for any characters, ? for one.
type Pattern struct {
	// Pieces are the literal parts; between two of them is a *. The first begins the word, the last ends it. The byte
	// 0xFF in a piece, which no UTF-8 text has, stands for ?.
	Pieces   []string
	number   float64
	isNumber bool
}

// any1 stands for ? in pieces.
const any1 = "\xff"

// Exact tells that there is no wildcard.
func (p Pattern) Exact() bool { return len(p.Pieces) == 1 && !strings.Contains(p.Pieces[0], any1) }

// Prefix is the literal text that the word begins with; all of it when Exact.
func (p Pattern) Prefix() string {
	s, _, _ := strings.Cut(p.Pieces[0], any1)
	return s
}

// Number is the number that an exact pattern is.
func (p Pattern) Number() (float64, bool) { return p.number, p.isNumber }

// Match tells whether a folded word fits.
func (p Pattern) Match(word string) bool {
	rest, ok := cutPiece(word, p.Pieces[0])
	if !ok {
		return false
	}
	if len(p.Pieces) == 1 {
		return rest == ""
	}
	last := len(p.Pieces) - 1
	for _, piece := range p.Pieces[1:last] {
		for {
			if r, ok := cutPiece(rest, piece); ok {
				rest = r
				break
			}
			if rest == "" {
				return false
			}
			rest = rest[runeLen(rest):]
		}
	}
	for { // the last piece ends the word
		if r, ok := cutPiece(rest, p.Pieces[last]); ok && r == "" {
			return true
		}
		if rest == "" {
			return false
		}
		rest = rest[runeLen(rest):]
	}
}

// cutPiece takes piece, where any1 fits one character, from the front of s.
func cutPiece(s, piece string) (rest string, ok bool) {
	for piece != "" {
		if piece[0] == any1[0] {
			if s == "" {
				return "", false
			}
			s, piece = s[runeLen(s):], piece[1:]
			continue
		}
		if s == "" || s[0] != piece[0] {
			return "", false
		}
		s, piece = s[1:], piece[1:]
	}
	return s, true
}

// runeLen is how many bytes the first character of s has; s is not empty.
func runeLen(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i]&0xC0 != 0x80 {
			return i
		}
	}
	return len(s)
}

// number reads a finite number.
func number(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || strings.ContainsAny(s, "xX_pPnN") {
		return 0, false
	}
	return f, true
}
