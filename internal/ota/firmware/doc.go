// Package firmware signs firmware images and verifies what signed ones say of themselves.
//
// An image has a Manifest: its name, version, size and SHA-256, and a signature of the image, ECDSA on P-256 over SHA-256,
// which is what an OTA job document carries as sig-sha256-ecdsa and what FreeRTOS's OTA agent verifies. The manifest is signed
// by the same key as a whole (Signed), so that none of it can be put beside another image.
//
// AWS: https://docs.aws.amazon.com/freertos/latest/userguide/ota-code-sign.html
package firmware
