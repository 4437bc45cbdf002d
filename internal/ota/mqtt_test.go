package ota_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/ota"
	"flotilla/internal/store/storetest"
)

// answer is any answer.
type answer struct {
	C string
	S int64
	D string
	R []struct{ F, Z int64 }
	F int64
	L int64
	I int64
	P string // base64
	O string
	M string
}

func decode(t *testing.T, m *mqtt.Message) (a answer) {
	t.Helper()
	if err := json.Unmarshal(m.Payload, &a); err != nil {
		t.Fatalf("%s: %v", m.Payload, err)
	}
	return a
}

// AWS: mqtt-based-file-delivery-in-devices, "DescribeStream request" and "response".
func TestDescribe(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	w.put("b", "one", image(131072))
	w.put("b", "two", image(51200))
	_, err := w.CreateStream(t.Context(), &iot.CreateStreamRequest{
		StreamId: "ABC", RoleArn: role, Description: new("This is the description of stream ABC."),
		Files: []*iot.StreamFile{inBucket(0, "b", "one"), inBucket(1, "b", "two")},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := w.ask("$aws/things/T/streams/ABC/describe/json", []byte(`{"c":"ec944cfb-1e3c-49ac-97de-9dc4aaad0039"}`))
	want := `{"c":"ec944cfb-1e3c-49ac-97de-9dc4aaad0039","s":1,"d":"This is the description of stream ABC.","r":[{"f":0,"z":131072},{"f":1,"z":51200}]}`
	if len(got) != 1 || got[0].Topic != "$aws/things/T/streams/ABC/description/json" || string(got[0].Payload) != want {
		t.Errorf("%+v", got)
	}
	if got = w.ask("$aws/things/T/streams/ABC/describe/cbor", nil); len(got) != 1 || got[0].Topic != "$aws/things/T/streams/ABC/description/cbor" {
		t.Fatalf("%+v", got)
	}
	var m map[string]any
	if err := cbor.Unmarshal(got[0].Payload, &m); err != nil || m["s"] != uint64(1) || len(m["r"].([]any)) != 2 {
		t.Errorf("%v %v", m, err)
	}
}

// A device puts an image together, in both formats, with sizes that end within a block.
func TestGet(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	for _, size := range []int{1, 255, 256, 257, 100_000, 300_000} {
		for _, block := range []int{256, 4096, 60_000, 131_072} {
			want := image(size)
			id := fmt.Sprintf("s-%d-%d", size, block)
			w.put("b", id, want)
			w.stream(id, "b", id)
			for _, format := range []string{"json", "cbor"} {
				var got []byte
				for n := 0; n*block < size; {
					request := map[string]any{"f": 0, "l": block, "o": n, "n": 98304, "s": 1, "c": "me"}
					payload, _ := json.Marshal(request)
					if format == "cbor" {
						payload, _ = cbor.Marshal(request)
					}
					total := 0
					for _, m := range w.ask("$aws/things/T/streams/"+id+"/get/"+format, payload) {
						if m.Topic != "$aws/things/T/streams/"+id+"/data/"+format || m.QoS != 0 {
							t.Fatalf("%s %s QoS %d", m.Topic, m.Payload[:min(100, len(m.Payload))], m.QoS)
						}
						var a answer
						var data []byte
						if format == "json" {
							a = decode(t, m)
							data, _ = base64.StdEncoding.DecodeString(a.P)
						} else {
							var c struct {
								C       string
								F, L, I int64
								P       []byte
							}
							if err := cbor.Unmarshal(m.Payload, &c); err != nil {
								t.Fatal(err)
							}
							a, data = answer{C: c.C, F: c.F, L: c.L, I: c.I}, c.P
						}
						if a.C != "me" || a.F != 0 || a.I != int64(n) || a.L != int64(len(data)) {
							t.Fatalf("%d bytes of %+v, not block %d", len(data), a, n)
						}
						got = append(got, data...)
						total += len(data)
						n++
					}
					if total == 0 || total > 131_072 {
						t.Fatalf("an answer of %d bytes", total)
					}
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s %s: another image", id, format)
				}
			}
		}
	}
}

// AWS: "Build a bitmap for a GetStream request".
func TestBitmap(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	w.put("b", "k", image(256*50))
	_, err := w.CreateStream(t.Context(), &iot.CreateStreamRequest{StreamId: "S", RoleArn: role, Files: []*iot.StreamFile{inBucket(1, "b", "k")}})
	if err != nil {
		t.Fatal(err)
	}
	blocks := func(format string, payload []byte) (ids []int64) {
		for _, m := range w.ask("$aws/things/T/streams/S/get/"+format, payload) {
			a := answer{}
			if format == "cbor" {
				var c struct{ I int64 }
				if err := cbor.Unmarshal(m.Payload, &c); err != nil {
					t.Fatal(err)
				}
				a.I = c.I
			} else {
				a = decode(t, m)
			}
			if !strings.Contains(m.Topic, "/data/") {
				t.Fatalf("%s", m.Payload)
			}
			ids = append(ids, a.I)
		}
		return ids
	}
	if diff := cmp.Diff([]int64{20, 21, 24, 43}, blocks("json", []byte(`{"c":"1","s":1,"l":256,"f":1,"o":20,"n":32,"b":"0x130080"}`))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{20, 21}, blocks("json", []byte(`{"l":256,"f":1,"o":20,"n":2,"b":"130080"}`))); diff != "" {
		t.Error(diff)
	}
	// As FreeRTOS's agent asks, who sends all blocks that it lacks.
	payload, err := cbor.Marshal(map[string]any{"c": "rdy", "f": 1, "l": 256, "o": 0, "b": []byte{0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "n": 10})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4, 5, 6, 7, 16, 17}, blocks("cbor", payload)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{48, 49}, blocks("json", []byte(`{"l":256,"f":1,"o":48,"b":"ffff"}`))); diff != "" {
		t.Error("beyond the end:", diff)
	}
	// Numbers as strings, as devices of the field send them.
	if diff := cmp.Diff([]int64{3}, blocks("json", []byte(`{"l":"256","f":"1","o":"3","n":"1"}`))); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	w.put("b", "k", image(1000))
	w.stream("S", "b", "k")
	w.put("b", "gone", image(10))
	w.stream("gone", "b", "gone")
	w.mu.Lock()
	delete(w.objects, "b/gone")
	w.mu.Unlock()
	w.put("b", "changed", image(10))
	w.stream("changed", "b", "changed")
	w.put("b", "changed", image(10))
	for _, c := range []struct{ stream, payload, code, token string }{
		{"S", `{"f":0,"l":255,"c":"t"}`, "BlockSizeOutOfBounds", "t"},
		{"S", `{"f":0,"l":131073}`, "BlockSizeOutOfBounds", ""},
		{"S", `{"f":0,"l":256,"o":98305}`, "OffsetOutOfBounds", ""},
		{"S", `{"f":0,"l":256,"o":-1}`, "OffsetOutOfBounds", ""},
		{"S", `{"f":0,"l":256,"n":98305}`, "BlockCountLimitExceeded", ""},
		{"S", `{"f":0,"l":256,"b":"` + strings.Repeat("00", 12_288) + `"}`, "BlockBitmapLimitExceeded", ""},
		{"S", `{"f":0,"l":256,"b":"xyz"}`, "InvalidRequest", ""},
		{"S", `{"f":0,"l":256,"b":""}`, "InvalidRequest", ""},
		{"S", `{"f":0,"l":256,"b":"00"}`, "ResourceNotFound", ""},
		{"S", `{"f":0,"l":256,"o":4}`, "ResourceNotFound", ""},
		{"S", `{"f":1,"l":256}`, "ResourceNotFound", ""},
		{"S", `{"f":0,"l":256,"s":2}`, "VersionMismatch", ""},
		{"none", `{"f":0,"l":256,"c":"t"}`, "ResourceNotFound", "t"},
		{"gone", `{"f":0,"l":256}`, "ResourceNotFound", ""},
		{"changed", `{"f":0,"l":256}`, "ETagMismatch", ""},
		{"S", `{"l":256}`, "InvalidRequest", ""},
		{"S", `{"f":0}`, "InvalidRequest", ""},
		{"S", `{"f":0.5,"l":256}`, "InvalidRequest", ""},
		{"S", `{"f":true,"l":256}`, "InvalidRequest", ""},
		{"S", `{"f":0,"l":256,"c":"` + strings.Repeat("x", 65) + `"}`, "InvalidRequest", ""},
		{"S", `{"f":0,"l":256,"c":1}`, "InvalidRequest", ""},
		{"S", `{"f":0,"f":0,"l":256}`, "InvalidJson", ""},
		{"S", `{`, "InvalidJson", ""},
		{"S", `[]`, "InvalidJson", ""},
		{"S", `{"f":0,"l":256,"x":"` + strings.Repeat("x", 70_000) + `"}`, "InvalidRequest", ""},
	} {
		got := w.ask("$aws/things/T/streams/"+c.stream+"/get/json", []byte(c.payload))
		if len(got) != 1 || got[0].Topic != "$aws/things/T/streams/"+c.stream+"/rejected/json" {
			t.Fatalf("%s: %+v", c.payload, got)
		}
		if a := decode(t, got[0]); a.O != c.code || a.M == "" || a.C != c.token {
			t.Errorf("%.80s: %+v, not %s", c.payload, a, c.code)
		}
	}
	for _, payload := range []string{"\xa1", "\xff", "\x80", "\xa2\x61f\x00\x61f\x00", "\xc1\xa0", "\xa1\x61f\x9f\x9f\x9f\x9f\x9f\x9f\xff"} {
		got := w.ask("$aws/things/T/streams/S/get/cbor", []byte(payload))
		var a struct{ O string }
		if len(got) != 1 || cbor.Unmarshal(got[0].Payload, &a) != nil || a.O != "InvalidCbor" {
			t.Errorf("%x: %+v", payload, got)
		}
	}
	if got := w.ask("$aws/things/T/streams/S/other/json", nil); len(got) != 1 || decode(t, got[0]).O != "InvalidTopic" {
		t.Errorf("%+v", got)
	}
	for _, topic := range []string{"$aws/things/T/streams/S/get", "$aws/things/T/streams/S/get/xml", "$aws/things/T/streams/S", "$aws/things/T/streams//get/json", "$aws/things/T/streams/S/get/json/more"} {
		if err := w.ServeMQTT(t.Context(), &mqtt.Message{Topic: topic}); err == nil {
			t.Errorf("%s was served", topic)
		}
	}
}

// A thing has only so many requests served at once, and all things together.
func TestBoundedRequests(t *testing.T) {
	w := newWorld(t, storetest.Open(t), func(c *ota.Config) { c.MaxRequests = 5 })
	w.put("b", "k", image(1000))
	w.stream("S", "b", "k")
	reading := make(chan struct{})
	w.mu.Lock()
	w.reading = reading
	w.mu.Unlock()
	ended := make(chan error, 16)
	get := func(ctx context.Context, thing string) {
		ended <- w.ServeMQTT(ctx, &mqtt.Message{Topic: "$aws/things/" + thing + "/streams/S/get/json", Payload: []byte(`{"f":0,"l":1000}`)})
	}
	for range 5 { // four of them wait for the object; which one is refused is not known
		go get(t.Context(), "T")
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	if a := decode(t, w.messages[0]); len(w.messages) != 1 || a.O != "InvalidRequest" {
		t.Errorf("%+v", w.messages)
	}
	w.mu.Unlock()
	go get(t.Context(), "U")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go get(ctx, "V") // it waits for a place, or, if it came before U, for the object; it gets neither
	if err := <-ended; err == nil {
		t.Error("a request without time was served")
	}
	close(reading)
	for range 5 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	data := 0
	for _, m := range w.messages {
		if strings.Contains(m.Topic, "/data/") {
			data++
		}
	}
	if data != 5 {
		t.Errorf("%d blocks", data)
	}
	if got := w.ask("$aws/things/T/streams/S/get/json", []byte(`{"f":0,"l":1000}`)); len(got) != 1 || decode(t, got[0]).L != 1000 {
		t.Errorf("%+v", got)
	}
}

func FuzzRequest(f *testing.F) {
	db := storetest.Open(f)
	w := newWorld(f, db)
	w.put("b", "k", image(100_000))
	w.stream("S", "b", "k")
	for _, s := range []string{`{"c":"1","s":1,"l":256,"f":0,"o":20,"n":32,"b":"0x130080"}`, `{"f":"0","l":"4096"}`, `{}`, `{"f":1e3,"l":null}`, `{"b":"` + strings.Repeat("f", 100) + `","f":0,"l":131072}`} {
		f.Add([]byte(s), false)
		var m map[string]any
		if err := json.Unmarshal([]byte(s), &m); err != nil {
			f.Fatal(err)
		}
		b, err := cbor.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	b, err := cbor.Marshal(map[string]any{"f": 0, "l": 256, "b": []byte{1, 2, 255}, "n": 7, "o": 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, true)
	want := image(100_000)
	f.Fuzz(func(t *testing.T, payload []byte, inCBOR bool) {
		format := "json"
		if inCBOR {
			format = "cbor"
		}
		w.mu.Lock()
		w.messages = nil
		w.mu.Unlock()
		if err := w.ServeMQTT(t.Context(), &mqtt.Message{Topic: "$aws/things/T/streams/S/get/" + format, Payload: payload}); err != nil {
			t.Fatalf("%q: %v", payload, err)
		}
		sum, size := 0, 0
		for _, m := range w.messages {
			var a struct {
				L, I int64
				P    []byte
				O    string
			}
			var err error
			if inCBOR {
				err = cbor.Unmarshal(m.Payload, &a)
			} else {
				err = json.Unmarshal(m.Payload, &a)
			}
			if err != nil {
				t.Fatalf("%q: %v", m.Payload, err)
			}
			if a.O != "" {
				if len(w.messages) != 1 {
					t.Fatalf("%q: refused and answered", payload)
				}
				continue
			}
			if size == 0 {
				size = len(a.P)
			}
			if int(a.L) != len(a.P) || sum+len(a.P) > 131_072 || len(a.P) == 0 {
				t.Fatalf("%q: %d bytes", payload, len(a.P))
			}
			// All blocks but the last of the file are of the size that was asked for, which the first has unless it is that.
			if at := int(a.I) * size; len(a.P) == size && at+size <= len(want) && len(w.messages) > 1 && !bytes.Equal(a.P, want[at:at+size]) {
				t.Fatalf("%q: block %d is another", payload, a.I)
			}
			sum += len(a.P)
		}
		if len(w.messages) == 0 {
			t.Fatalf("%q is not answered", payload)
		}
	})
}

// BenchmarkGet is what an answer of 10 blocks of 4 KiB costs the room, the store's part included.
func BenchmarkGet(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	w.put("b", "k", image(1<<20))
	w.stream("S", "b", "k")
	request := map[string]any{"f": 0, "l": 4096, "o": 20, "n": 10}
	for format, encode := range map[string]func(any) ([]byte, error){"json": json.Marshal, "cbor": cbor.Marshal} {
		payload, err := encode(request)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(format, func(b *testing.B) {
			b.SetBytes(10 * 4096)
			b.ReportAllocs()
			for b.Loop() {
				w.messages = nil
				if err := w.ServeMQTT(b.Context(), &mqtt.Message{Topic: "$aws/things/T/streams/S/get/" + format, Payload: payload}); err != nil || len(w.messages) != 10 {
					b.Fatal(len(w.messages), err)
				}
			}
		})
	}
}

// The requests of AWS's MQTT file streams library for devices (aws-iot-core-mqtt-file-streams-embedded-c, snapshot of 2026), for
// one block of 4 KiB: in CBOR with a bitmap that is always the same four bytes. The last block is as long as the file has it.
func TestRequestsOfAWSLibrary(t *testing.T) {
	w := newWorld(t, storetest.Open(t))
	data := image(10_000)
	w.put("b", "k", data)
	w.stream("S", "b", "k")
	for n := range 3 {
		part := data[n*4096 : min((n+1)*4096, len(data))]
		got := w.ask("$aws/things/T/streams/S/get/json", fmt.Appendf(nil, `{"s": 1,"f": 0,"l": 4096,"o": %d,"n": 1}`, n))
		if len(got) != 1 {
			t.Fatalf("%+v", got)
		}
		if a := decode(t, got[0]); a.I != int64(n) || a.L != int64(len(part)) || a.P != base64.StdEncoding.EncodeToString(part) {
			t.Errorf("JSON, block %d: %+v", n, a)
		}
		got = w.ask("$aws/things/T/streams/S/get/cbor", []byte("\xa6\x61c\x63rdy\x61f\x00\x61l\x19\x10\x00\x61o"+string(rune(n))+"\x61b\x44MQ==\x61n\x01"))
		var a struct {
			C       string
			F, L, I int
			P       []byte
		}
		if len(got) != 1 || cbor.Unmarshal(got[0].Payload, &a) != nil || a.C != "rdy" || a.I != n || a.L != len(part) || !bytes.Equal(a.P, part) {
			t.Errorf("CBOR, block %d: %+v", n, got)
		}
	}
}
