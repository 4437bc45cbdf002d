// Package ota delivers files to things: Streams, which things read in blocks over MQTT, and OTAUpdates, which tell them by a
// job what to fetch, from a stream or by a presigned URL, and how it is signed.
//
//	CreateOTAUpdate ──► stream AFR_OTA-… ──► job AFR_OTA-<id>, its document what FreeRTOS's OTA agent reads
//
//	$aws/things/T/streams/S/describe/F   ──►  …/description/F                F is json or cbor
//	$aws/things/T/streams/S/get/F        ──►  …/data/F, a message a block    at most 128 KiB of them for a request
//	                                          …/rejected/F
//
// A file is an object of the object store. A stream remembers its size and version as they were when the stream was made or
// updated, and gives no block of another version: a thing never puts an image together from two.
//
// Blocks are published at QoS 0: nothing of them is kept for things that are away, which ask again when they are back.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt-based-file-delivery.html
package ota
