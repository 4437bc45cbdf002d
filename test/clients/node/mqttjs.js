"use strict";
// The kit of mqtt.js, MQTT 3.1.1 and 5.
const fs = require("node:fs");
const path = require("node:path");
const mqtt = require("mqtt");
const { serve, reporter, Refusal, bytes, base64 } = require("./lines.js");

function connect(links, { link, options: o }) {
  const report = reporter(link);
  const read = (name) => fs.readFileSync(path.join(o.files, name));
  const settings = {
    protocol: "mqtts", host: o.host, port: o.port, servername: o.host,
    ca: read("ca.pem"), cert: read("cert.pem"), key: read("key.pem"),
    protocolVersion: o.v5 ? 5 : 4, clientId: o.clientId, clean: !o.resume, keepalive: o.keepAlive,
    reconnectPeriod: 0, connectTimeout: 10_000, resubscribe: false, queueQoSZero: false,
  };
  if (o.alpn) settings.ALPNProtocols = [o.alpn];
  if (o.v5) {
    settings.properties = { sessionExpiryInterval: o.sessionExpiry };
    if (o.receiveMaximum) settings.properties.receiveMaximum = o.receiveMaximum;
    if (o.aliasMaximum) settings.properties.topicAliasMaximum = o.aliasMaximum;
  }
  if (o.will) settings.will = { topic: o.will.topic, payload: bytes(o.will.payload), qos: o.will.qos, retain: o.will.retain };

  return new Promise((resolve, reject) => {
    const client = mqtt.connect(settings);
    client.setMaxListeners(0);
    links.set(link, { client, report, aliases: new Set() });
    client.on("message", (topic, payload, packet) => report.message(message(topic, payload, packet)));
    client.on("disconnect", (packet) => report.end(packet.reasonCode, "DISCONNECT"));
    client.on("close", () => {
      report.end(0, "the connection is closed");
      reject(new Error("the connection is closed"));
    });
    client.on("error", (error) => reject(typeof error.code === "number" ? new Refusal("CONNECT", error.code) : error));
    client.on("connect", async (connack) => {
      const p = connack.properties || {};
      const value = {
        sessionPresent: Boolean(connack.sessionPresent), maximumQoS: p.maximumQoS ?? 2, receiveMaximum: p.receiveMaximum ?? 65535,
        aliasMaximum: p.topicAliasMaximum ?? 0, keepAlive: p.serverKeepAlive ?? o.keepAlive,
        assignedId: p.assignedClientIdentifier ?? "", sessionExpiry: p.sessionExpiryInterval ?? o.sessionExpiry,
      };
      try {
        for (const filter of o.filters || []) await subscribe(client, filter, o.qos);
        resolve(value);
      } catch (error) {
        reject(error);
      }
    });
  });
}

function subscribe(client, filter, qos) {
  return new Promise((resolve, reject) => {
    client.subscribe(filter, { qos }, (error, granted, packet) => {
      const code = packet?.granted?.[0] ?? error?.packet?.granted?.[0] ?? error?.code;
      if (code >= 0x80) reject(new Refusal(`SUBSCRIBE ${filter}`, code));
      else if (error) reject(error);
      else resolve();
    });
  });
}

function message(topic, payload, packet) {
  const p = packet.properties || {};
  const user = [];
  for (const [key, values] of Object.entries(p.userProperties || {})) {
    for (const value of [].concat(values)) user.push([key, value]);
  }
  return {
    topic, payload: base64(payload), qos: packet.qos, retain: packet.retain, user,
    expiry: p.messageExpiryInterval, contentType: p.contentType, responseTopic: p.responseTopic, correlation: base64(p.correlationData),
  };
}

function publish(links, { link, message: m }) {
  const { client, aliases } = links.get(link);
  const options = { qos: m.qos, retain: m.retain };
  let topic = m.topic;
  if (client.options.protocolVersion === 5) {
    options.properties = {};
    if (m.expiry) options.properties.messageExpiryInterval = m.expiry;
    if (m.contentType) options.properties.contentType = m.contentType;
    if (m.responseTopic) options.properties.responseTopic = m.responseTopic;
    if (m.correlation) options.properties.correlationData = bytes(m.correlation);
    if (m.user) options.properties.userProperties = Object.fromEntries(m.user);
    if (m.alias) {
      options.properties.topicAlias = m.alias;
      if (aliases.has(m.alias)) topic = "";
      aliases.add(m.alias);
    }
  }
  return new Promise((resolve, reject) => {
    client.once("close", () => reject(new Error("the connection is closed")));
    client.publish(topic, bytes(m.payload), options, (error, packet) => {
      const code = packet?.reasonCode ?? error?.code;
      if (code >= 0x80) reject(new Refusal("PUBLISH", code));
      else if (error) reject(error);
      else resolve();
    });
  });
}

async function close(links, { link }) {
  const { client, report } = links.get(link);
  if (report.closing()) await client.endAsync();
}

serve({ connect, publish, close });
