package sql

import (
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on every machine
)

// shortZones are the abbreviations that Java knows as zones.
var shortZones = map[string]string{
	"PST": "America/Los_Angeles", "PDT": "America/Los_Angeles",
	"MST": "America/Denver", "MDT": "America/Denver",
	"CST": "America/Chicago", "CDT": "America/Chicago",
	"EST": "America/New_York", "EDT": "America/New_York",
	"AKST": "America/Anchorage", "AKDT": "America/Anchorage", "HST": "Pacific/Honolulu",
	"BST": "Europe/London", "WET": "WET", "WEST": "WET",
	"CET": "Europe/Paris", "CEST": "Europe/Paris", "EET": "Europe/Bucharest", "EEST": "Europe/Bucharest",
	"MSK": "Europe/Moscow", "IST": "Asia/Kolkata", "JST": "Asia/Tokyo", "KST": "Asia/Seoul",
	"AEST": "Australia/Sydney", "AEDT": "Australia/Sydney", "NZST": "Pacific/Auckland", "NZDT": "Pacific/Auckland",
}

// zoneNames are the long names of abbreviations.
var zoneNames = map[string]string{
	"UTC": "Coordinated Universal Time", "GMT": "Greenwich Mean Time",
	"PST": "Pacific Standard Time", "PDT": "Pacific Daylight Time",
	"MST": "Mountain Standard Time", "MDT": "Mountain Daylight Time",
	"CST": "Central Standard Time", "CDT": "Central Daylight Time",
	"EST": "Eastern Standard Time", "EDT": "Eastern Daylight Time",
	"CET": "Central European Time", "CEST": "Central European Summer Time",
	"EET": "Eastern European Time", "EEST": "Eastern European Summer Time",
	"WET": "Western European Time", "WEST": "Western European Summer Time",
	"BST": "British Summer Time", "JST": "Japan Standard Time", "IST": "India Standard Time",
}

// numericZones are the abbreviations of zones that the time zone database gives none.
var numericZones = map[string]string{
	"America/Argentina/Buenos_Aires": "ART", "America/Bogota": "COT", "America/Caracas": "VET", "America/La_Paz": "BOT",
	"America/Lima": "PET", "America/Montevideo": "UYT", "America/Sao_Paulo": "BRT", "Asia/Almaty": "ALMT", "Asia/Baku": "AZT",
	"Asia/Bangkok": "ICT", "Asia/Colombo": "IST", "Asia/Dhaka": "BDT", "Asia/Dubai": "GST", "Asia/Ho_Chi_Minh": "ICT",
	"Asia/Kabul": "AFT", "Asia/Kathmandu": "NPT", "Asia/Kuala_Lumpur": "MYT", "Asia/Riyadh": "AST", "Asia/Singapore": "SGT",
	"Asia/Tashkent": "UZT", "Asia/Vladivostok": "VLAT", "Asia/Yekaterinburg": "YEKT", "Europe/Istanbul": "TRT",
}

// loadZone finds a zone by what Joda-Time and Java accept: an id of the time zone
// database, UTC, or an offset, also behind UTC, GMT or UT.
func loadZone(name string) (*time.Location, bool) {
	switch name {
	case "UTC", "Z", "UT", "GMT":
		if name == "GMT" {
			return time.FixedZone("GMT", 0), true
		}
		return time.UTC, true
	case "", "Local":
		return nil, false
	}
	offset := name
	for _, prefix := range []string{"UTC", "GMT", "UT"} {
		if s, ok := strings.CutPrefix(name, prefix); ok && s != "" && (s[0] == '+' || s[0] == '-') {
			offset = s
			break
		}
	}
	if offset[0] == '+' || offset[0] == '-' {
		seconds, rest, ok := parseOffset(offset)
		if !ok || rest != "" {
			return nil, false
		}
		return time.FixedZone(name, seconds), true
	}
	if len(name) > 64 || strings.ContainsAny(name, "\\\x00") || strings.Contains(name, "..") {
		return nil, false
	}
	loc, err := time.LoadLocation(name)
	return loc, err == nil
}

// parseOffset reads +h, +hh, +hhmm, +hh:mm, +hhmmss or +hh:mm:ss from the beginning of s.
func parseOffset(s string) (seconds int, rest string, ok bool) {
	if s == "" || s[0] != '+' && s[0] != '-' {
		return 0, s, false
	}
	minus := s[0] == '-'
	s = s[1:]
	two := func(most int) (int, bool) {
		if len(s) < 2 || s[0]-'0' > 9 || s[1]-'0' > 9 {
			return 0, false
		}
		n := int(s[0]-'0')*10 + int(s[1]-'0')
		if n > most {
			return 0, false
		}
		s = s[2:]
		return n, true
	}
	hours, ok := two(18)
	if !ok {
		if s == "" || s[0]-'0' > 9 {
			return 0, s, false
		}
		hours, s = int(s[0]-'0'), s[1:]
	}
	seconds = hours * 3600
	for _, unit := range []int{60, 1} {
		before := s
		s = strings.TrimPrefix(s, ":")
		n, ok := two(59)
		if !ok {
			s = before
			break
		}
		seconds += n * unit
	}
	if minus {
		seconds = -seconds
	}
	return seconds, s, true
}

// appendOffset writes an offset of colons many parts: +hhmm, with colon +hh:mm.
func appendOffset(dst []byte, seconds int, colon bool) []byte {
	sign := byte('+')
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	dst = appendPadded(append(dst, sign), seconds/3600, 2)
	if colon {
		dst = append(dst, ':')
	}
	return appendPadded(dst, seconds/60%60, 2)
}

// zoneAbbreviation is CST, or +02:00 for a zone without letters.
func zoneAbbreviation(t time.Time) string {
	name, offset := t.Zone()
	if t.Location() == time.UTC {
		return "UTC"
	}
	if name == "" || name[0] == '+' || name[0] == '-' {
		if short, known := numericZones[t.Location().String()]; known {
			return short
		}
		return string(appendOffset(nil, offset, true))
	}
	return name
}
