"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs/promises");
const { readFileSync } = require("node:fs");
const https = require("node:https");
const path = require("node:path");

// What is fetched is bounded, whatever the document says.
const maxImage = 64 << 20;

// Installer fetches images, verifies and installs them.
class Installer {
  // certificate: of the key that signs images; without it nothing can be verified, so nothing is installed.
  constructor({ ca, certificate, dir }) {
    this.ca = readFileSync(ca);
    this.key = certificate && new crypto.X509Certificate(readFileSync(certificate)).publicKey;
    this.dir = dir;
  }

  // install leaves the image under its name in the directory, where a boot loader would find it; there is never half of one.
  // The argument is afr_ota of the job document of an OTA update; FreeRTOS's OTA agent reads the same.
  async install({ files }) {
    if (files?.length !== 1 || !files[0].update_data_url) throw new Error("the update has not one file with a URL");
    const { filepath, filesize, update_data_url: url, "sig-sha256-ecdsa": signature } = files[0];
    const target = path.join(this.dir, path.basename(path.normalize(`/${filepath}`))); // the name comes from elsewhere: its last part alone counts
    const installed = await fs.readFile(target).catch(() => undefined);
    if (installed && this.genuine(installed, signature)) return; // before a restart
    if (!(filesize > 0 && filesize <= maxImage)) throw new Error(`an image of ${filesize} bytes`);
    const image = await this.fetch(url, filesize);
    if (!this.genuine(image, signature)) throw new Error("the image is not the one that was signed");
    await fs.writeFile(`${target}.new`, image);
    await fs.rename(`${target}.new`, target);
  }

  // fetch gets an image by its presigned URL, which needs no credentials and is good for a while.
  fetch(url, size) {
    return new Promise((resolve, reject) => {
      const request = https.get(url, { ca: this.ca, timeout: 60_000 }, (response) => {
        if (response.statusCode !== 200) {
          response.destroy();
          reject(new Error(`fetch the image: status ${response.statusCode}`));
          return;
        }
        const parts = [];
        let received = 0;
        response.on("data", (part) => {
          received += part.length;
          parts.push(part);
          if (received > size) response.destroy(new Error("the image is longer than the document says"));
        });
        response.on("error", reject);
        response.on("end", () => (received === size ? resolve(Buffer.concat(parts)) : reject(new Error(`the image has ${received} bytes, the document says ${size}`))));
      });
      request.on("timeout", () => request.destroy(new Error("fetch the image: no answer")));
      request.on("error", (error) => reject(new Error(`fetch the image: ${error.code ?? error.message}`))); // without the URL, which is a secret
    });
  }

  // genuine holds an image to the signature that came with the job; the key came with the device.
  genuine(image, signature) {
    if (!this.key) throw new Error("no certificate to verify images with");
    return crypto.verify("sha256", image, this.key, Buffer.from(signature ?? "", "base64"));
  }
}

module.exports = { Installer };
