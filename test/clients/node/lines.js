"use strict";
// The protocol between the tests and a kit: JSON, one object a line.
//
//   in:  {id, op: "connect"|"publish"|"acknowledge"|"close", link, ...}
//   out: {id, value} or {id, error, code} answers;  {link, message} and {link, end} come by themselves
//
// serve calls ops[op](links, request) for each line; links maps names to whatever
// the kit keeps. The process ends with its standard input.
const readline = require("node:readline");

function say(object) {
  process.stdout.write(JSON.stringify(object) + "\n");
}

// Refusal is an error with the reason code that the server gave.
class Refusal extends Error {
  constructor(what, code) {
    super(`${what}: reason code ${code}`);
    this.code = code;
  }
}

function serve(ops) {
  const links = new Map();
  const input = readline.createInterface({ input: process.stdin, crlfDelay: Infinity });
  input.on("line", async (line) => {
    const request = JSON.parse(line);
    try {
      say({ id: request.id, value: (await ops[request.op](links, request)) ?? {} });
    } catch (error) {
      say({ id: request.id, error: String(error && error.message || error), code: error && error.code > 0 ? error.code : 0 });
    }
  });
  input.on("close", () => process.exit(0));
}

// reporter tells what happens to one link.
function reporter(link) {
  let ended = false;
  return {
    message: (message) => say({ link, message }),
    end: (code, text) => {
      if (!ended) say({ link, end: { code: code || 0, text: String(text || "") } });
      ended = true;
    },
    // closing tells whether there is something to close.
    closing: () => {
      const open = !ended;
      ended = true;
      return open;
    },
  };
}

const bytes = (base64) => Buffer.from(base64 || "", "base64");
// The device SDK gives an empty payload as a detached buffer: nothing can be made of it.
const base64 = (data) => (data && data.byteLength !== 0 ? Buffer.from(data).toString("base64") : "");

module.exports = { serve, reporter, Refusal, bytes, base64 };
