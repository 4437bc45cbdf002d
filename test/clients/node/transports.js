"use strict";
// Connections without a client certificate, by the AWS IoT Device SDK v2 and
// mqtt.js: WebSocket signed with SigV4, WebSocket with a custom authorizer, and
// MQTT with a custom authorizer by ALPN. The argument is JSON: host, port, ca (a
// file), region, accessKey, secretKey, authorizer, token, signature.
const assert = require("node:assert");
const crypto = require("node:crypto");
const fs = require("node:fs");
const { auth, io, iot, mqtt, mqtt5 } = require("aws-iot-device-sdk-v2");
const mqttjs = require("mqtt");

const custom = (s) => ({
  authorizerName: s.authorizer, username: "pump", password: Buffer.from("secret"),
  tokenKeyName: "token", tokenValue: s.token, tokenSignature: s.signature,
});

// Each gives {subscribe(topic, got), publish(topic, payload), close()}.
const sdk3 = {
  sigv4: (s) => sdk311(s, iot.AwsIotMqttConnectionConfigBuilder.new_with_websockets({
    region: s.region, credentials_provider: auth.AwsCredentialsProvider.newStatic(s.accessKey, s.secretKey),
  })),
  "custom authorizer, WebSocket": (s) => sdk311(s, iot.AwsIotMqttConnectionConfigBuilder.new_builder_for_websocket()
    .with_custom_authorizer("pump", s.authorizer, s.signature, "secret", "token", s.token)),
  "custom authorizer": (s) => sdk311(s, iot.AwsIotMqttConnectionConfigBuilder.new_default_builder()
    .with_custom_authorizer("pump", s.authorizer, s.signature, "secret", "token", s.token), "mqtt"),
};

async function sdk311(s, builder, alpn) {
  builder.with_certificate_authority_from_path(undefined, s.ca).with_endpoint(s.host).with_port(s.port).with_client_id("m-sdk3").with_clean_session(true);
  if (alpn) builder.tls_ctx_options.alpn_list = [alpn];
  const connection = new mqtt.MqttClient(new io.ClientBootstrap()).new_connection(builder.build());
  connection.on("error", () => {});
  await connection.connect();
  return {
    subscribe: (topic, got) => connection.subscribe(topic, 1, (_, payload) => got(Buffer.from(payload).toString())),
    publish: (topic, payload) => connection.publish(topic, payload, 1),
    close: () => connection.disconnect(),
  };
}

const sdk5 = {
  sigv4: (s) => sdk500(s, iot.AwsIotMqtt5ClientConfigBuilder.newWebsocketMqttBuilderWithSigv4Auth(s.host, {
    region: s.region, credentialsProvider: auth.AwsCredentialsProvider.newStatic(s.accessKey, s.secretKey),
  })),
  "custom authorizer, WebSocket": (s) => sdk500(s, iot.AwsIotMqtt5ClientConfigBuilder.newWebsocketMqttBuilderWithCustomAuth(s.host, custom(s))),
  "custom authorizer": (s) => sdk500(s, iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithCustomAuth(s.host, custom(s))),
};

async function sdk500(s, builder) {
  builder.withCertificateAuthorityFromPath(undefined, s.ca).withPort(s.port).withConnectProperties({ clientId: "m-sdk5", keepAliveIntervalSeconds: 60 });
  const client = new mqtt5.Mqtt5Client(builder.build());
  const connected = new Promise((resolve, reject) => {
    client.on("connectionSuccess", resolve);
    client.on("connectionFailure", ({ error }) => reject(error));
  });
  client.start();
  await connected;
  return {
    subscribe: (topicFilter, got) => {
      client.on("messageReceived", ({ message }) => got(Buffer.from(message.payload).toString()));
      return client.subscribe({ subscriptions: [{ topicFilter, qos: 1 }] });
    },
    publish: (topicName, payload) => client.publish({ topicName, payload, qos: 1 }),
    close: async () => {
      const stopped = new Promise((resolve) => client.on("stopped", resolve));
      client.stop();
      await stopped;
      client.close();
    },
  };
}

// signedURL is the address of a WebSocket that SigV4 signs in its query.
function signedURL(s) {
  const time = new Date().toISOString().replace(/[:-]|\.\d{3}/g, "");
  const scope = `${time.slice(0, 8)}/${s.region}/iotdevicegateway/aws4_request`;
  const query = new URLSearchParams([
    ["X-Amz-Algorithm", "AWS4-HMAC-SHA256"], ["X-Amz-Credential", `${s.accessKey}/${scope}`], ["X-Amz-Date", time],
    ["X-Amz-Expires", "300"], ["X-Amz-SignedHeaders", "host"],
  ]).toString();
  const sha256 = (text) => crypto.createHash("sha256").update(text).digest("hex");
  const hmac = (key, text) => crypto.createHmac("sha256", key).update(text).digest();
  const request = ["GET", "/mqtt", query, `host:${s.host}:${s.port}`, "", "host", sha256("")].join("\n");
  const key = scope.split("/").reduce(hmac, `AWS4${s.secretKey}`);
  const signature = hmac(key, ["AWS4-HMAC-SHA256", time, scope, sha256(request)].join("\n")).toString("hex");
  return `wss://${s.host}:${s.port}/mqtt?${query}&X-Amz-Signature=${signature}`;
}

const customUser = (s) => "pump?" + new URLSearchParams({
  "x-amz-customauthorizer-name": s.authorizer, token: s.token, "x-amz-customauthorizer-signature": s.signature,
});

const js = (protocolVersion) => ({
  sigv4: (s) => jsClient(s, signedURL(s), { protocolVersion }),
  "custom authorizer, WebSocket": (s) => jsClient(s, `wss://${s.host}:${s.port}/mqtt`, { protocolVersion, username: customUser(s), password: "secret" }),
  "custom authorizer": (s) => jsClient(s, `mqtts://${s.host}:${s.port}`, { protocolVersion, username: customUser(s), password: "secret", ALPNProtocols: ["mqtt"] }),
});

async function jsClient(s, url, options) {
  const client = await mqttjs.connectAsync(url, { ...options, ca: fs.readFileSync(s.ca), clientId: `m-js${options.protocolVersion}`, reconnectPeriod: 0 }, false);
  return {
    subscribe: (topic, got) => {
      client.on("message", (_, payload) => got(payload.toString()));
      return client.subscribeAsync(topic, { qos: 1 });
    },
    publish: (topic, payload) => client.publishAsync(topic, payload, { qos: 1 }),
    close: () => client.endAsync(),
  };
}

async function main(settings) {
  const failed = [];
  for (const [name, transports] of Object.entries({ "device SDK v3": sdk3, "device SDK v5": sdk5, "mqtt.js v3": js(4), "mqtt.js v5": js(5) })) {
    for (const [transport, connect] of Object.entries(transports)) {
      try {
        const link = await connect(settings);
        const message = new Promise((resolve, reject) => {
          setTimeout(() => reject(new Error("no message came")), 10_000).unref();
          link.subscribe("m/transports", resolve).then(() => link.publish("m/transports", transport)).catch(reject);
        });
        assert.strictEqual(await message, transport);
        await link.close();
        if (transport !== "sigv4") {
          await assert.rejects(connect({ ...settings, signature: Buffer.from("another").toString("base64") }), undefined, "a wrong signature was taken");
        } else {
          await assert.rejects(connect({ ...settings, secretKey: "another" }), undefined, "a wrong secret was taken");
        }
      } catch (error) {
        failed.push(`${name}, ${transport}: ${error}`);
      }
    }
  }
  if (failed.length > 0) throw new Error(failed.join("\n"));
}

main(JSON.parse(process.argv[2])).then(
  () => { console.log("ok"); process.exit(0); },
  (error) => { console.log(error.message); process.exit(1); },
);
