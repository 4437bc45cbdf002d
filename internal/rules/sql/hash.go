package sql

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
)

// hash is a function of one String that returns a digest in hexadecimal digits.
func hash(sum func(string) []byte) *function {
	return one(v1, func(f *frame, v value) value {
		s, ok := f.toText(v)
		if !ok || !f.spend(len(s)/16) {
			return value{}
		}
		return stringValue(hex.EncodeToString(sum(s)))
	})
}

func md5Sum(s string) []byte    { d := md5.Sum([]byte(s)); return d[:] }
func sha1Sum(s string) []byte   { d := sha1.Sum([]byte(s)); return d[:] }
func sha224Sum(s string) []byte { d := sha256.Sum224([]byte(s)); return d[:] }
func sha256Sum(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }
func sha384Sum(s string) []byte { d := sha512.Sum384([]byte(s)); return d[:] }
func sha512Sum(s string) []byte { d := sha512.Sum512([]byte(s)); return d[:] }

// md2Table is the substitution of RFC 1319, made of the digits of pi.
var md2Table = [256]byte{
	41, 46, 67, 201, 162, 216, 124, 1, 61, 54, 84, 161, 236, 240, 6, 19, 98, 167, 5, 243, 192, 199, 115, 140, 152, 147, 43, 217, 188, 76, 130, 202,
	30, 155, 87, 60, 253, 212, 224, 22, 103, 66, 111, 24, 138, 23, 229, 18, 190, 78, 196, 214, 218, 158, 222, 73, 160, 251, 245, 142, 187, 47, 238, 122,
	169, 104, 121, 145, 21, 178, 7, 63, 148, 194, 16, 137, 11, 34, 95, 33, 128, 127, 93, 154, 90, 144, 50, 39, 53, 62, 204, 231, 191, 247, 151, 3,
	255, 25, 48, 179, 72, 165, 181, 209, 215, 94, 146, 42, 172, 86, 170, 198, 79, 184, 56, 210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4, 241,
	69, 157, 112, 89, 100, 113, 135, 32, 134, 91, 207, 101, 230, 45, 168, 2, 27, 96, 37, 173, 174, 176, 185, 246, 28, 70, 97, 105, 52, 64, 126, 15,
	85, 71, 163, 35, 221, 81, 175, 58, 195, 92, 249, 206, 186, 197, 234, 38, 44, 83, 13, 110, 133, 40, 132, 9, 211, 223, 205, 244, 65, 129, 77, 82,
	106, 220, 55, 200, 108, 193, 171, 250, 36, 225, 123, 8, 12, 189, 177, 74, 120, 136, 149, 139, 227, 99, 232, 109, 233, 203, 213, 254, 59, 0, 29, 57,
	242, 239, 183, 14, 102, 88, 208, 228, 166, 119, 114, 248, 235, 117, 75, 10, 49, 68, 80, 180, 143, 237, 31, 26, 219, 153, 141, 51, 159, 17, 131, 20,
}

// md2Sum is MD2.
// RFC: https://www.rfc-editor.org/rfc/rfc1319
func md2Sum(s string) []byte {
	pad := 16 - len(s)%16
	msg := []byte(s)
	for range pad {
		msg = append(msg, byte(pad))
	}
	var sum [16]byte
	var last byte
	for i := 0; i < len(msg); i += 16 {
		for j := range 16 {
			sum[j] ^= md2Table[msg[i+j]^last]
			last = sum[j]
		}
	}
	msg = append(msg, sum[:]...)
	var x [48]byte
	for i := 0; i < len(msg); i += 16 {
		for j := range 16 {
			x[16+j] = msg[i+j]
			x[32+j] = x[16+j] ^ x[j]
		}
		var t byte
		for round := range 18 {
			for k := range x {
				x[k] ^= md2Table[t]
				t = x[k]
			}
			t += byte(round)
		}
	}
	return x[:16]
}
