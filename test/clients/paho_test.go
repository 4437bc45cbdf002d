package clients_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
)

func pahoTLS(o *options) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.file("cert.pem"), o.file("key.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(o.file("ca.pem"))
	if err != nil {
		return nil, err
	}
	roots.AppendCertsFromPEM(pem)
	c := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: o.Host}
	if o.ALPN != "" {
		c.NextProtos = []string{o.ALPN}
	}
	return c, nil
}

// paho3 is Eclipse Paho's Go client of MQTT 3.1.1.
func paho3(*testing.T) kit {
	return kit{can: choosesALPN | tellsSession | publishes | acknowledges | takesNoID | withdrawsWill, dial: dialPaho3}
}

type pahoLink3 struct {
	mailbox
	client  mqtt3.Client
	connack accepted
	held    chan mqtt3.Message
}

func dialPaho3(_ *testing.T, o options) (link, error) {
	config, err := pahoTLS(&o)
	if err != nil {
		return nil, err
	}
	l := &pahoLink3{mailbox: newMailbox(), held: make(chan mqtt3.Message, 4096)}
	opts := mqtt3.NewClientOptions().
		AddBroker("ssl://" + o.address()).SetTLSConfig(config).SetProtocolVersion(4).
		SetClientID(o.ClientID).SetCleanSession(!o.Resume).SetKeepAlive(time.Duration(o.KeepAlive) * time.Second).
		SetAutoReconnect(false).SetConnectTimeout(grace).SetWriteTimeout(grace).SetResumeSubs(false).
		SetAutoAckDisabled(o.Hold).
		SetConnectionLostHandler(func(_ mqtt3.Client, err error) { l.end(ending{Text: err.Error()}) }).
		SetDefaultPublishHandler(func(_ mqtt3.Client, m mqtt3.Message) {
			if o.Hold {
				l.held <- m
			}
			l.got <- message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retain: m.Retained()}
		})
	if w := o.Will; w != nil {
		opts.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	l.client = mqtt3.NewClient(opts)
	token := l.client.Connect().(*mqtt3.ConnectToken)
	if !token.WaitTimeout(grace) {
		return nil, errors.New("no CONNACK")
	}
	if err := token.Error(); err != nil {
		return nil, err
	}
	l.connack.SessionPresent = token.SessionPresent()
	for _, filter := range o.Filters {
		if err := l.subscribe(filter, o.QoS); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *pahoLink3) accepted() accepted { return l.connack }

func (l *pahoLink3) subscribe(filter string, qos byte) error {
	token := l.client.Subscribe(filter, qos, nil).(*mqtt3.SubscribeToken)
	if !token.WaitTimeout(grace) {
		return errors.New("no SUBACK")
	}
	if code := token.Result()[filter]; code >= 0x80 {
		return &refused{code, "SUBSCRIBE " + filter}
	}
	return token.Error()
}

func (l *pahoLink3) publish(m message) error {
	token := l.client.Publish(m.Topic, m.QoS, m.Retain, m.Payload)
	if !token.WaitTimeout(grace) {
		return errors.New("no PUBACK")
	}
	return token.Error()
}

func (l *pahoLink3) acknowledge() error {
	(<-l.held).Ack()
	return nil
}

func (l *pahoLink3) close() { l.client.Disconnect(100) }

// paho5 is Eclipse Paho's Go client of MQTT 5.
func paho5(*testing.T) kit {
	return kit{
		v5: true, dial: dialPaho5,
		can: choosesALPN | tellsSession | tellsLimits | sendsAlias | acknowledges | tellsReason | publishes | takesNoID | withdrawsWill,
	}
}

type pahoLink5 struct {
	mailbox
	client  *paho.Client
	connack accepted
	held    chan *paho.Publish
	aliases map[uint16]bool
}

func dialPaho5(t *testing.T, o options) (link, error) {
	config, err := pahoTLS(&o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), grace)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", o.address())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	l := &pahoLink5{mailbox: newMailbox(), held: make(chan *paho.Publish, 4096), aliases: map[uint16]bool{}}
	l.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), PacketTimeout: grace, EnableManualAcknowledgment: o.Hold,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			if o.Hold {
				l.held <- p.Packet
			}
			l.got <- fromPaho(p.Packet)
			return true, nil
		}},
		OnServerDisconnect: func(p *paho.Disconnect) { l.end(ending{Code: p.ReasonCode}) },
		OnClientError:      func(err error) { l.end(ending{Text: err.Error()}) },
	})
	cp := &paho.Connect{
		ClientID: o.ClientID, CleanStart: !o.Resume, KeepAlive: o.KeepAlive,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &o.SessionExpiry},
	}
	if o.ReceiveMaximum > 0 {
		cp.Properties.ReceiveMaximum = &o.ReceiveMaximum
	}
	if w := o.Will; w != nil {
		cp.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain}
		cp.WillProperties = &paho.WillProperties{ContentType: w.ContentType}
	}
	ack, err := l.client.Connect(ctx, cp)
	if err != nil {
		return nil, err
	}
	p := ack.Properties
	l.connack = accepted{
		SessionPresent: ack.SessionPresent, MaximumQoS: 2, ReceiveMaximum: 65535, KeepAlive: o.KeepAlive,
		AssignedID: p.AssignedClientID, SessionExpiry: o.SessionExpiry,
	}
	for _, set := range []struct{ to, from *uint16 }{
		{&l.connack.ReceiveMaximum, p.ReceiveMaximum}, {&l.connack.AliasMaximum, p.TopicAliasMaximum}, {&l.connack.KeepAlive, p.ServerKeepAlive},
	} {
		if set.from != nil {
			*set.to = *set.from
		}
	}
	if p.MaximumQoS != nil {
		l.connack.MaximumQoS = *p.MaximumQoS
	}
	if p.SessionExpiryInterval != nil {
		l.connack.SessionExpiry = *p.SessionExpiryInterval
	}
	for _, filter := range o.Filters {
		if err := l.subscribe(ctx, filter, o.QoS); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func fromPaho(p *paho.Publish) message {
	m := message{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain}
	if in := p.Properties; in != nil {
		m.ContentType, m.ResponseTopic, m.Correlation = in.ContentType, in.ResponseTopic, in.CorrelationData
		if in.MessageExpiry != nil {
			m.Expiry = *in.MessageExpiry
		}
		for _, u := range in.User {
			m.User = append(m.User, [2]string{u.Key, u.Value})
		}
	}
	return m
}

func (l *pahoLink5) accepted() accepted { return l.connack }

func (l *pahoLink5) subscribe(ctx context.Context, filter string, qos byte) error {
	ack, err := l.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	if ack != nil && len(ack.Reasons) > 0 && ack.Reasons[0] >= 0x80 {
		return &refused{ack.Reasons[0], "SUBSCRIBE " + filter}
	}
	return err
}

func (l *pahoLink5) publish(m message) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	go func() { // it would wait longer than the connection is there
		select {
		case <-l.client.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	p := &paho.Publish{
		Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain,
		Properties: &paho.PublishProperties{ContentType: m.ContentType, ResponseTopic: m.ResponseTopic, CorrelationData: m.Correlation},
	}
	if m.Expiry > 0 {
		p.Properties.MessageExpiry = &m.Expiry
	}
	for _, u := range m.User {
		p.Properties.User.Add(u[0], u[1])
	}
	if m.Alias > 0 {
		p.Properties.TopicAlias = &m.Alias
		if l.aliases[m.Alias] {
			p.Topic = ""
		}
		l.aliases[m.Alias] = true
	}
	ack, err := l.client.Publish(ctx, p)
	if ack != nil && ack.ReasonCode >= 0x80 {
		return &refused{ack.ReasonCode, "PUBLISH " + m.Topic}
	}
	return err
}

func (l *pahoLink5) acknowledge() error { return l.client.Ack(<-l.held) }

func (l *pahoLink5) close() {
	_ = l.client.Disconnect(&paho.Disconnect{})
	<-l.client.Done()
}
