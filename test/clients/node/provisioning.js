"use strict";
// A device provisions itself by claim through the clients of the AWS IoT Device SDK
// v2, with keys made by the service and with a certificate signing request, then
// connects as itself. Arguments: the options of a connection with the claim
// certificate; a certificate signing request; the private key of that; a directory
// for what is received.
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { iotidentity } = require("aws-iot-device-sdk-v2");
const { session } = require("./devicesdk.js");

const limits = { maxRequestResponseSubscriptions: 4, maxStreamingSubscriptions: 2, operationTimeoutInSeconds: 10 };
const templateName = "pumps";

async function provision(options, v5, serial, certificateSigningRequest) {
  const { client, close } = await session({ ...options, v5, clientId: `claim-${serial}` });
  const identity = v5 ? iotidentity.IotIdentityClientv2.newFromMqtt5(client, limits) : iotidentity.IotIdentityClientv2.newFromMqtt311(client, limits);
  const made = certificateSigningRequest
    ? await identity.createCertificateFromCsr({ certificateSigningRequest })
    : await identity.createKeysAndCertificate({});
  assert.match(made.certificateId, /^[0-9a-f]{64}$/);
  assert.strictEqual(made.privateKey === undefined, certificateSigningRequest !== undefined);
  const { certificateOwnershipToken } = made;
  await assert.rejects(identity.registerThing({ templateName: "nothing", certificateOwnershipToken, parameters: {} }), (error) => {
    assert.ok(error.modeledError?.statusCode >= 400, String(error));
    return true;
  });
  const done = await identity.registerThing({ templateName, certificateOwnershipToken, parameters: { SerialNumber: serial } });
  assert.strictEqual(done.thingName, `pump-${serial}`);
  assert.deepStrictEqual(done.deviceConfiguration, { interval: "30" });
  identity.close();
  await close();
  return made;
}

async function main(options, csr, csrKey, directory) {
  for (const v5 of [false, true]) {
    for (const request of [undefined, csr]) {
      const serial = `${v5 ? 5 : 3}${request ? "csr" : "keys"}`;
      const made = await provision(options, v5, serial, request);
      const files = path.join(directory, serial);
      fs.mkdirSync(files);
      fs.copyFileSync(path.join(options.files, "ca.pem"), path.join(files, "ca.pem"));
      fs.writeFileSync(path.join(files, "cert.pem"), made.certificatePem);
      fs.writeFileSync(path.join(files, "key.pem"), made.privateKey ?? csrKey, { mode: 0o600 });
      const { publish, close } = await session({ ...options, files, v5, clientId: `pump-${serial}` });
      await publish(`m/pump-${serial}`, "hello");
      await close();
    }
  }
}

main(JSON.parse(process.argv[2]), ...process.argv.slice(3)).then(
  () => { console.log("ok"); process.exit(0); },
  (error) => { console.log(error); process.exit(1); },
);
