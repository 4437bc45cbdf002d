package authorizer

import (
	"strings"
)

// Reason says why a request is refused.
type Reason string

// The reasons, in the order in which they are looked for.
const (
	ReasonMalformed        Reason = "its parameters are malformed"
	ReasonNoAuthorizer     Reason = "it names no authorizer, and there is no default"
	ReasonOverride         Reason = "its domain configuration does not allow it to name another authorizer"
	ReasonUnknown          Reason = "there is no such authorizer"
	ReasonInactive         Reason = "the authorizer is not ACTIVE"
	ReasonNoToken          Reason = "it has no token under the authorizer's tokenKeyName"
	ReasonNoSignature      Reason = "it has no signature of its token"
	ReasonBadSignature     Reason = "the signature of its token is not by a key of the authorizer"
	ReasonFunctionTimeout  Reason = "the authorizer's function did not answer in time"
	ReasonFunctionFailed   Reason = "the authorizer's function failed"
	ReasonInvalidAnswer    Reason = "the answer of the authorizer's function is not valid"
	ReasonNotAuthenticated Reason = "the authorizer's function says that it is not authenticated"
	ReasonOtherPrincipal   Reason = "the authorizer's function names another principal than at connect"
)

// RefusedError is the error of a request that no authorizer vouches for. It is for the operator; the stranger at the
// other end is told nothing. It holds no token, signature or password.
type RefusedError struct {
	Authorizer string // "" when it is not known, or is no name
	Reason     Reason
	Detail     string // at most 256 bytes, "" without
}

func (e *RefusedError) Error() string {
	text := "authorizer: "
	if e.Authorizer != "" {
		text += e.Authorizer + ": "
	}
	text += string(e.Reason)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// maxDetail bounds RefusedError.Detail, in bytes.
const maxDetail = 256

// detail makes a text of strangers fit to be shown: no control characters, none of the secrets, bounded. Secrets of
// fewer than four bytes are not looked for: they are parts of too many words.
func detail(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail-3], "") + "..."
	}
	return text
}
