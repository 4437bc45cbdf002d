package action

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Streams bounds the streams that actions make; a stream that exists is used as it is.
type Streams struct {
	// Max is how many streams there may be in all before no more are made.
	Max int
	// MaxBytes and MaxAge bound a stream: the oldest messages go, but from queues (sqs),
	// which take nothing more when they are full.
	MaxBytes int64
	MaxAge   time.Duration
	// Duplicates is how long a stream remembers the ids of its messages.
	Duplicates time.Duration
	Replicas   int
}

// Headers of the messages in streams, beside NATS's own.
const (
	headerRule         = "Flotilla-Rule"
	headerTopic        = "Flotilla-Topic"
	headerClientID     = "Flotilla-Client-Id"
	headerReceived     = "Flotilla-Received" // ms since 1970
	headerPartitionKey = "Flotilla-Partition-Key"
)

// streamed is a record on its way into a stream.
type streamed struct {
	// stream is the name that the rule's author knows; token is what stands for it in NATS.
	stream string
	// key, when not nil, is the last token of the subject before its escape.
	key    *string
	data   []byte
	header nats.Header
}

// streamSink publishes records to JetStream. The records of a batch are in flight
// together; a repeated one has the message id it had, and is dropped by the stream.
type streamSink struct {
	env   Env
	js    jetstream.JetStream
	known map[string]bool

	// service is the first token of subjects and the engine that the action names.
	service string
	queue   bool
	// name gives the stream of a record, data the message but for its common headers;
	// their errors are permanent.
	name func(r *Record) (string, error)
	data func(r *Record, to *streamed) error
}

// ackTimeout is how long JetStream may take to acknowledge.
const ackTimeout = 20 * time.Second

func (s *streamSink) start() (Sink, error) {
	if s.env.Conn == nil {
		return nil, errors.New(s.service + ": there is no NATS")
	}
	js, err := jetstream.New(s.env.Conn, jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		return nil, err
	}
	s.js, s.known = js, map[string]bool{}
	return s, nil
}

func (s *streamSink) Close() error {
	s.js.CleanupPublisher()
	return nil
}

func (s *streamSink) Resource(r *Record) string {
	name, _ := s.name(r)
	return name
}

func (s *streamSink) Do(ctx context.Context, records []Record) (int, error) {
	flights := make([]jetstream.PubAckFuture, 0, len(records))
	names := make([]string, 0, len(records))
	var failed error
	for i := range records {
		msg, name, err := s.message(ctx, &records[i])
		var flight jetstream.PubAckFuture
		if err == nil {
			flight, err = s.js.PublishMsgAsync(msg)
		}
		if errors.Is(err, nats.ErrMaxPayload) {
			err = Permanent(err)
		}
		if err != nil {
			failed = err
			break
		}
		flights, names = append(flights, flight), append(names, name)
	}
	for i, f := range flights {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			delete(s.known, names[i]) // it may have been deleted, or made otherwise
			return i, fmt.Errorf("stream %s: %w", names[i], err)
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
	return len(flights), failed
}

func (s *streamSink) message(ctx context.Context, r *Record) (*nats.Msg, string, error) {
	name, err := s.name(r)
	if err != nil {
		return nil, "", Permanent(err)
	}
	m := streamed{stream: escapeToken(name), data: r.Payload, header: make(nats.Header, 8)}
	if err := s.data(r, &m); err != nil {
		return nil, "", Permanent(err)
	}
	if err := s.ensure(ctx, m.stream); err != nil {
		return nil, "", err
	}
	subject := s.service + "." + m.stream
	if m.key != nil {
		subject += "." + escapeToken(*m.key)
		m.header[headerPartitionKey] = []string{headerText(*m.key)}
	}
	m.header[jetstream.MsgIDHeader] = []string{strconv.FormatInt(r.ID, 10)}
	m.header[jetstream.ExpectedStreamHeader] = []string{m.stream}
	m.header[headerRule] = []string{r.Rule}
	m.header[headerTopic] = []string{headerText(r.Topic)}
	m.header[headerReceived] = []string{strconv.FormatInt(r.Received.UnixMilli(), 10)}
	if r.ClientID != "" {
		m.header[headerClientID] = []string{headerText(r.ClientID)}
	}
	return &nats.Msg{Subject: subject, Data: m.data, Header: m.header}, m.stream, nil
}

// ensure makes the stream unless it is there.
func (s *streamSink) ensure(ctx context.Context, name string) error {
	if s.known[name] {
		return nil
	}
	stream, err := s.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = s.create(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", name, err)
	}
	if subjects := stream.CachedInfo().Config.Subjects; !slices.ContainsFunc(subjects, s.taken(name)) {
		return fmt.Errorf("stream %s exists and is for %s, not for %s.%s", name, strings.Join(subjects, ", "), s.service, name)
	}
	s.known[name] = true
	return nil
}

// taken tells whether a subject filter of a stream may take messages of this action.
func (s *streamSink) taken(name string) func(filter string) bool {
	return func(filter string) bool {
		first, rest, _ := strings.Cut(filter, ".")
		second, _, _ := strings.Cut(rest, ".")
		return filter == ">" || (first == s.service || first == "*") && (rest == ">" || second == name || second == "*")
	}
}

func (s *streamSink) create(ctx context.Context, name string) (jetstream.Stream, error) {
	info, err := s.js.AccountInfo(ctx)
	if err != nil {
		return nil, err
	}
	if limit := s.env.Streams.Max; limit > 0 && info.Streams >= limit {
		return nil, fmt.Errorf("there are %d streams, the most that rules may make", info.Streams)
	}
	cfg := jetstream.StreamConfig{
		Name:        name,
		Description: "Flotilla rules: " + s.service,
		Subjects:    []string{s.service + "." + name, s.service + "." + name + ".>"},
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxBytes:    s.env.Streams.MaxBytes,
		MaxAge:      s.env.Streams.MaxAge,
		Duplicates:  s.env.Streams.Duplicates,
		Replicas:    max(1, s.env.Streams.Replicas),
	}
	if s.queue {
		cfg.Retention, cfg.Discard = jetstream.WorkQueuePolicy, jetstream.DiscardNew
	}
	stream, err := s.js.CreateStream(ctx, cfg)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was first
		return s.js.Stream(ctx, name)
	}
	return stream, err
}

// escapeToken makes any text one token of a subject: bytes other than letters,
// digits, _ and - become %XX; the empty text becomes %.
func escapeToken(s string) string {
	if s == "" {
		return "%"
	}
	plain := true
	for i := range len(s) {
		plain = plain && plainByte(s[i])
	}
	if plain {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; plainByte(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

func plainByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// headerText is text as the value of a header: one line.
func headerText(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(s)
}
