// Runs a Node.js handler behind the Lambda Runtime API. It needs node alone.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const env = process.env;
const [address, ...prefix] = env.AWS_LAMBDA_RUNTIME_API.split('/');
const [host, port] = address.split(':');
const base = ['', ...prefix, '2018-06-01', 'runtime'].join('/');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function call(method, url, body, headers) {
  return new Promise((resolve, reject) => {
    const req = http.request({ agent, host, port, method, path: base + url, headers }, (res) => {
      const parts = [];
      res.on('data', (part) => parts.push(part));
      res.on('end', () => resolve({ status: res.statusCode, headers: res.headers, body: Buffer.concat(parts).toString() }));
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end(body);
  });
}

function post(url, body, headers = {}) {
  return call('POST', url, body, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), ...headers });
}

function failure(url, error, kind) {
  const e = error instanceof Error ? error : { name: typeof error, message: String(error), stack: '' };
  kind ??= e.name;
  console.error(kind + ': ' + e.message + '\n' + (e.stack ?? ''));
  return post(url, JSON.stringify({ errorType: kind, errorMessage: e.message, trace: (e.stack ?? '').split('\n') }), { 'Lambda-Runtime-Function-Error-Type': kind });
}

function named(kind, message) {
  const e = new Error(message);
  e.name = kind;
  return e;
}

async function load(handler) {
  const root = env.LAMBDA_TASK_ROOT;
  const file = path.basename(handler);
  const dot = file.indexOf('.');
  if (dot < 1) throw named('Runtime.MalformedHandlerName', 'Bad handler');
  const stem = path.join(root, path.dirname(handler), file.slice(0, dot));
  const found = ['.js', '.mjs', '.cjs', ''].map((end) => stem + end).find((f) => fs.existsSync(f) && fs.statSync(f).isFile());
  if (!found) throw named('Runtime.ImportModuleError', `Error: Cannot find module '${path.basename(stem)}'`);
  let module;
  try {
    module = found.endsWith('.cjs') ? createRequire(import.meta.url)(found) : await import(pathToFileURL(found));
  } catch (e) {
    throw named(e instanceof SyntaxError ? 'Runtime.UserCodeSyntaxError' : 'Runtime.ImportModuleError', String(e?.stack ?? e));
  }
  const find = (from) => file.slice(dot + 1).split('.').reduce((value, key) => value?.[key], from);
  const run = find(module) ?? find(module.default);
  if (typeof run !== 'function') throw named('Runtime.HandlerNotFound', `${handler} is undefined or not exported`);
  return run;
}

function context(headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const client = headers['lambda-runtime-client-context'];
  return {
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: client ? JSON.parse(client) : undefined,
    identity: undefined,
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
  };
}

// A handler answers by its promise, or by the callback that it takes.
function answer(run, event, ctx) {
  return new Promise((resolve, reject) => {
    const result = run(event, ctx, (error, value) => (error ? reject(error) : resolve(value)));
    if (result && typeof result.then === 'function') result.then(resolve, reject);
    else if (run.length < 3) resolve(result);
  });
}

let running; // the path of the invocation under way
async function fatal(error) {
  try {
    if (running) await failure(running + '/error', error, 'Runtime.UnhandledPromiseRejection');
  } finally {
    process.exit(1);
  }
}
process.on('uncaughtException', fatal);
process.on('unhandledRejection', fatal);

let run;
try {
  run = await load(env._HANDLER);
} catch (e) {
  await failure('/init/error', e);
  process.exit(1);
}
for (;;) {
  const next = await call('GET', '/invocation/next');
  if (next.status !== 200) process.exit(1);
  running = '/invocation/' + next.headers['lambda-runtime-aws-request-id'];
  let result;
  try {
    result = JSON.stringify(await answer(run, next.body === '' ? undefined : JSON.parse(next.body), context(next.headers))) ?? 'null';
  } catch (e) {
    await failure(running + '/error', e);
    running = undefined;
    continue;
  }
  await post(running + '/response', result);
  running = undefined;
}
