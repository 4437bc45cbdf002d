"use strict";
// The kit of the AWS IoT Device SDK v2: its MQTT 3.1.1 client and its MQTT 5 client,
// configured by its own builders.
const path = require("node:path");
const { io, iot, mqtt, mqtt5 } = require("aws-iot-device-sdk-v2");
const { serve, reporter, Refusal, bytes, base64 } = require("./lines.js");

// set leaves out what is not set: the native part refuses undefined.
const set = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined && value !== null));

const file = (o, name) => path.join(o.files, name);

// builder311 gives the SDK's builder. On ports other than 443 it names no ALPN
// protocol, so that is set here.
function builder311(o) {
  const builder = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(file(o, "cert.pem"), file(o, "key.pem"))
    .with_certificate_authority_from_path(undefined, file(o, "ca.pem"))
    .with_client_id(o.clientId).with_endpoint(o.host).with_port(o.port).with_clean_session(!o.resume)
    .with_keep_alive_seconds(o.keepAlive).with_ping_timeout_ms(3000).with_protocol_operation_timeout_ms(10_000);
  if (o.alpn) builder.tls_ctx_options.alpn_list = [o.alpn];
  return builder;
}

async function connect311(links, { link, options: o }) {
  const report = reporter(link);
  const builder = builder311(o);
  if (o.will) builder.with_will({ topic: o.will.topic, payload: bytes(o.will.payload), qos: o.will.qos, retain: o.will.retain });
  const connection = new mqtt.MqttClient(new io.ClientBootstrap()).new_connection(builder.build());
  connection.setMaxListeners(0);
  connection.on("message", (topic, payload, _dup, qos, retain) => report.message({ topic, payload: base64(payload), qos, retain }));
  connection.on("error", (error) => report.end(0, error));
  connection.on("interrupt", (error) => {
    report.end(0, error);
    connection.disconnect().catch(() => {}); // it would connect again
  });
  links.set(link, {
    publish: async (m) => {
      const ended = new Promise((_, reject) => connection.once("interrupt", reject));
      await Promise.race([connection.publish(m.topic, bytes(m.payload), m.qos, m.retain), ended]);
    },
    close: async () => {
      if (report.closing()) await connection.disconnect();
    },
  });
  const sessionPresent = await connection.connect();
  for (const filter of o.filters || []) {
    const answer = await connection.subscribe(filter, o.qos);
    if (answer.error_code || answer.qos >= 0x80) throw new Refusal(`SUBSCRIBE ${filter}`, 0x80);
  }
  return { sessionPresent };
}

function builder5(o) {
  const builder = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(o.host, file(o, "cert.pem"), file(o, "key.pem"))
    .withCertificateAuthorityFromPath(undefined, file(o, "ca.pem"))
    .withPort(o.port)
    .withSessionBehavior(o.resume ? mqtt5.ClientSessionBehavior.RejoinAlways : mqtt5.ClientSessionBehavior.Clean)
    .withTopicAliasingOptions(set({
      outboundBehavior: mqtt5.OutboundTopicAliasBehaviorType.Manual,
      inboundBehavior: o.aliasMaximum ? mqtt5.InboundTopicAliasBehaviorType.Enabled : mqtt5.InboundTopicAliasBehaviorType.Disabled,
      inboundCacheMaxSize: o.aliasMaximum,
    }))
    .withPingTimeoutMs(3000).withConnackTimeoutMs(10_000).withAckTimeoutSeconds(10);
  return builder.withConnectProperties(set({
    clientId: o.clientId, keepAliveIntervalSeconds: o.keepAlive, sessionExpiryIntervalSeconds: o.sessionExpiry,
    receiveMaximum: o.receiveMaximum || undefined,
    will: o.will && { topicName: o.will.topic, payload: bytes(o.will.payload), qos: o.will.qos, retain: o.will.retain },
  }));
}

async function connect5(links, { link, options: o }) {
  const report = reporter(link);
  const client = new mqtt5.Mqtt5Client(builder5(o).build());
  const held = [];
  client.on("messageReceived", ({ message: m, acknowledgementControl }) => {
    if (o.hold && m.qos > 0) held.push(acknowledgementControl.acquireHandle());
    report.message({
      topic: m.topicName, payload: base64(m.payload), qos: m.qos, retain: m.retain,
      expiry: m.messageExpiryIntervalSeconds, contentType: m.contentType, responseTopic: m.responseTopic,
      correlation: base64(m.correlationData), user: (m.userProperties || []).map((u) => [u.name, u.value]),
    });
  });
  const ended = new Promise((_, reject) => {
    client.on("disconnection", ({ error, disconnect }) => {
      report.end(disconnect?.reasonCode, error);
      client.stop(); // it would connect again
      reject(new Error(String(error)));
    });
  });
  ended.catch(() => {});
  const answered = new Promise((resolve, reject) => {
    client.on("connectionSuccess", resolve);
    client.on("connectionFailure", ({ error, connack }) => {
      client.stop();
      reject(connack ? new Refusal("CONNECT", connack.reasonCode) : error);
    });
  });
  links.set(link, {
    publish: async (m) => {
      const done = client.publish(set({
        topicName: m.topic, payload: bytes(m.payload), qos: m.qos, retain: m.retain, topicAlias: m.alias || undefined,
        messageExpiryIntervalSeconds: m.expiry || undefined, contentType: m.contentType, responseTopic: m.responseTopic,
        correlationData: m.correlation ? bytes(m.correlation) : undefined,
        userProperties: m.user && m.user.map(([name, value]) => ({ name, value })),
      }));
      const puback = await Promise.race([done, ended]);
      if (puback?.reasonCode >= 0x80) throw new Refusal(`PUBLISH ${m.topic}`, puback.reasonCode);
    },
    acknowledge: () => held.shift().invokeAcknowledgement(),
    close: async () => {
      if (!report.closing()) return;
      const stopped = new Promise((resolve) => client.on("stopped", resolve));
      client.stop({ reasonCode: mqtt5.DisconnectReasonCode.NormalDisconnection });
      await stopped;
      client.close();
    },
  });
  client.start();
  const { connack, settings } = await answered;
  for (const filter of o.filters || []) {
    const suback = await Promise.race([client.subscribe({ subscriptions: [{ topicFilter: filter, qos: o.qos }] }), ended]);
    if (suback.reasonCodes[0] >= 0x80) throw new Refusal(`SUBSCRIBE ${filter}`, suback.reasonCodes[0]);
  }
  return {
    sessionPresent: connack.sessionPresent, maximumQoS: connack.maximumQos ?? 2, receiveMaximum: connack.receiveMaximum ?? 65535,
    aliasMaximum: connack.topicAliasMaximum ?? 0, keepAlive: settings.serverKeepAlive, assignedId: connack.assignedClientIdentifier ?? "",
    sessionExpiry: settings.sessionExpiryInterval,
  };
}

// session gives a connected client, for the SDK's clients of services.
async function session(o) {
  if (!o.v5) {
    const client = new mqtt.MqttClient(new io.ClientBootstrap()).new_connection(builder311(o).build());
    await client.connect();
    return {
      client,
      publish: (topic, payload) => client.publish(topic, payload, mqtt.QoS.AtLeastOnce),
      close: () => client.disconnect(),
    };
  }
  const client = new mqtt5.Mqtt5Client(builder5(o).build());
  const connected = new Promise((resolve, reject) => {
    client.on("connectionSuccess", resolve);
    client.on("connectionFailure", ({ error }) => reject(error));
  });
  client.start();
  await connected;
  return {
    client,
    publish: async (topic, payload) => {
      const puback = await client.publish({ topicName: topic, payload, qos: mqtt5.QoS.AtLeastOnce });
      if (puback.reasonCode >= 0x80) throw new Refusal(`PUBLISH ${topic}`, puback.reasonCode);
    },
    close: async () => {
      const stopped = new Promise((resolve) => client.on("stopped", resolve));
      client.stop();
      await stopped;
      client.close();
    },
  };
}

if (require.main === module) {
  serve({
    connect: (links, request) => (request.options.v5 ? connect5 : connect311)(links, request),
    publish: (links, { link, message }) => links.get(link).publish(message),
    acknowledge: (links, { link }) => links.get(link).acknowledge(),
    close: (links, { link }) => links.get(link).close(),
  });
}

module.exports = { session };
