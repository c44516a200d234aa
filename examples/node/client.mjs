// A Seedbed client in Node, from the contract alone. It streams a tensor or a region of it, checks every chunk, resumes
// broken streams, and reports invalid requests by their fields.
//
//   node client.mjs HOST:PORT SPEC.json [--region 0:4,8:16] [--out FILE.npy] [--timeout SECONDS]
//                   [--ca CA.pem] [--token-env NAME]
//
// SPEC.json is a TensorSpec: {"name": "w", "shape": [4, 3], "seed": "7", "normal": {"std": 0.02}}
import { createHash, randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual, parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import crc32c from "crc-32/crc32c.js";
import protobuf from "protobufjs";

const PROTO = fileURLToPath(new URL("../../proto/seedbed/v1/init.proto", import.meta.url));
const ATTEMPTS = 5; // without a new element
const FIRST_DELAY = 100; // milliseconds; doubled for each attempt
const [LEAST_WAIT, LONGEST_WAIT] = [50, 60_000]; // milliseconds; bounds what a full server says
const ITEM_BYTES = {
  DATA_TYPE_FLOAT32: 4, DATA_TYPE_FLOAT16: 2, DATA_TYPE_BFLOAT16: 2, DATA_TYPE_FLOAT64: 8, DATA_TYPE_COMPLEX64: 8,
};
// NumPy has no bfloat16, so its bits are stored as unsigned integers.
const NPY_TYPES = {
  DATA_TYPE_FLOAT32: "<f4", DATA_TYPE_FLOAT16: "<f2", DATA_TYPE_BFLOAT16: "<u2", DATA_TYPE_FLOAT64: "<f8",
  DATA_TYPE_COMPLEX64: "<c8",
};
// 16-bit types are given as their bits, complex numbers as pairs. Typed arrays use the byte order of the machine: on a
// big-endian one, swap the bytes first.
const TYPED_ARRAYS = {
  DATA_TYPE_FLOAT32: Float32Array, DATA_TYPE_FLOAT16: Uint16Array, DATA_TYPE_BFLOAT16: Uint16Array,
  DATA_TYPE_FLOAT64: Float64Array, DATA_TYPE_COMPLEX64: Float32Array,
};

// 64-bit integers are strings: a seed may exceed what a number holds exactly.
const FORM = { longs: String, enums: String, defaults: true };
const { seedbed } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO, { keepCase: true, ...FORM }));
const contract = protobuf.parse(readFileSync(PROTO, "utf8"), { keepCase: true }).root.resolveAll();
const TensorSpec = contract.lookupType("seedbed.v1.TensorSpec");
const Region = contract.lookupType("seedbed.v1.Region");
const INTEGERS = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n], uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n], uint64: [0n, 2n ** 64n - 1n],
};

// The messages of google.rpc that Seedbed's errors carry.
const rpc = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Violation { string field = 1; string description = 2; }
  message BadRequest { repeated Violation field_violations = 1; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true }).root;

/** The response does not match the request, or was damaged on the way. */
export class Corrupted extends Error {}

/** The request is invalid: `field` is the first wrong field, `violations` are all; the message has the remedies. */
export class InvalidRequest extends Error {
  constructor(...violations) {
    super(violations.map(({ field, description }) => `${field}: ${description}`).join("; "));
    this.field = violations[0].field;
    this.violations = violations;
  }
}

/**
 * Checks the JSON form of a message, and returns it with the contract's field names. protobufjs would drop unknown
 * fields, and round or wrap numbers that do not fit: you would get other weights, and no error.
 */
function checked(type, value, path) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw wrong(path, "pass an object");
  const names = new Map(type.fieldsArray.flatMap((field) => [[field.name, field], [camel(field.name), field]]));
  const fields = {};
  for (const [name, content] of Object.entries(value)) {
    const field = names.get(name);
    const place = `${path}.${field?.name ?? name}`;
    if (!field) throw wrong(place, `no such field; use one of ${Object.keys(type.fields).join(", ")}`);
    if (field.name in fields) throw wrong(place, "is set twice");
    if (field.repeated && !Array.isArray(content)) throw wrong(place, "pass a list");
    fields[field.name] = field.repeated
      ? content.map((item, index) => checkedValue(field, item, `${place}[${index}]`))
      : checkedValue(field, content, place);
  }
  for (const oneof of type.oneofsArray) {
    const set = oneof.fieldsArray.filter((field) => field.name in fields);
    if (set.length > 1) throw wrong(`${path}.${set[1].name}`, `${set[0].name} is set, too; set only one of them`);
  }
  return fields;
}

function checkedValue({ type, resolvedType }, value, place) {
  if (resolvedType instanceof protobuf.Type) return checked(resolvedType, value, place);
  if (resolvedType) {
    if (value in resolvedType.values || Number.isInteger(value)) return value;
    throw wrong(place, `${value} is unknown; use one of ${Object.keys(resolvedType.values).join(", ")}`);
  }
  if (type in INTEGERS) return checkedInteger(type, value, place);
  if (type === "double") {
    const number = typeof value === "string" && value.trim() ? Number(value) : value;
    if (typeof number !== "number" || (Number.isNaN(number) && value !== "NaN")) throw wrong(place, "pass a number");
    return number;
  }
  const isBytes = type === "bytes" && value instanceof Uint8Array;
  if (typeof value !== "string" && !isBytes) throw wrong(place, "pass a string");
  return value;
}

function checkedInteger(type, value, place) {
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw wrong(place, `${value} may have lost digits, as JavaScript numbers do above 2^53; pass a string`);
  }
  const [least, most] = INTEGERS[type];
  const isInteger = typeof value === "bigint" || Number.isInteger(value) || /^-?\d+$/.test(value);
  if (!isInteger || BigInt(value) < least || BigInt(value) > most) {
    throw wrong(place, `${value} is not an integer in ${least} .. ${most}`);
  }
  return type.endsWith("64") ? String(value) : Number(value);
}

function wrong(field, description) {
  return new InvalidRequest({ field, description });
}

function camel(name) {
  return name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
}

export class Client {
  /**
   * @param {string} target such as "localhost:50051"
   * @param {{ca?: Buffer, token?: string, connectTimeout?: number}} options the authority, which turns on TLS; a token,
   *   which needs TLS; and the seconds after which a server that accepts a connection but stays silent is unavailable
   */
  constructor(target, { ca, token, connectTimeout = 20 } = {}) {
    if (token && !ca) throw new TypeError("a token needs TLS; pass the server's authority as ca");
    let credentials = ca ? grpc.credentials.createSsl(ca) : grpc.credentials.createInsecure();
    if (token) {
      const metadata = new grpc.Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => done(null, metadata));
      credentials = grpc.credentials.combineChannelCredentials(credentials, bearer);
    }
    this.stub = new seedbed.v1.InitService(target, credentials, {
      "grpc.max_receive_message_length": -1, // a chunk may exceed gRPC's default of 4 MiB
      "grpc.keepalive_time_ms": 30_000, // a dead network is silent
      "grpc.keepalive_timeout_ms": 20_000,
    });
    this.connectTimeout = connectTimeout;
  }

  close() {
    this.stub.close();
  }

  /**
   * Receives a tensor, or a region of it. For tensors larger than memory, see `stream`.
   *
   * @param {object} spec a TensorSpec in its JSON form
   * @param {{start: number[], stop: number[]}} [region] by default the whole tensor
   * @param {{timeout?: number, onRetry?: function(Error, number): void}} [options] see `stream`
   * @returns {Promise<{description: object, data: Buffer, values: object}>} what the request resolved to, and the
   *   elements, row-major, as little-endian bytes and as a typed array of the same memory
   */
  async init(spec, region, options) {
    let description, data;
    let position = 0;
    for await (const part of this.stream(spec, region, options)) {
      description = part.description;
      data ??= Buffer.alloc(Number(description.byte_count));
      position += part.payload.copy(data, position);
    }
    const Values = TYPED_ARRAYS[description.spec.dtype];
    const values = new Values(data.buffer, data.byteOffset, data.length / Values.BYTES_PER_ELEMENT);
    return { description, data, values };
  }

  /**
   * Yields the elements in order, in one or more checked parts.
   *
   * @param {{timeout?: number, onRetry?: function(Error, number): void}} [options] seconds for the whole call, by
   *   default unlimited; and a callback that gets the reason why a stream broke, and the element where it resumes
   * @returns {AsyncGenerator<{description: object, payload: Buffer}>}
   */
  async *stream(spec, region, { timeout, onRetry } = {}) {
    const received = new Received(checked(TensorSpec, spec, "spec"), region && checked(Region, region, "region"));
    const deadline = timeout ? Date.now() + 1000 * timeout : Infinity;
    const ticket = randomBytes(16).toString("hex"); // a full server serves calls in the order of their tickets
    let attempt = 0;
    while (true) {
      const before = received.elements;
      const call = this.#call(received.request(), ticket, deadline);
      call.on("error", () => {}); // for errors after the loop; within the loop, they are thrown
      let failure;
      const messages = call[Symbol.asyncIterator]();
      const connecting = setTimeout(() => this.#giveUpConnecting(call), 1000 * this.connectTimeout);
      try {
        while (true) {
          let part;
          try { // not around the yield: the consumer's errors are not the stream's
            const { value, done } = await messages.next();
            if (done) {
              received.end();
              return;
            }
            part = received.add(value);
          } catch (error) {
            failure = error;
            break;
          }
          yield part;
        }
      } finally {
        clearTimeout(connecting);
        call.cancel();
      }
      if (received.elements > before || isFull(failure)) attempt = 0;
      attempt += 1;
      const delay = delayBefore(attempt, failure);
      if (delay === null || Date.now() + delay >= deadline) throw detailed(failure);
      onRetry?.(failure, received.elements);
      await sleep(delay);
    }
  }

  /** Keepalive starts only once there is a connection. */
  #giveUpConnecting(call) {
    if (this.stub.getChannel().getConnectivityState(false) === grpc.connectivityState.READY) return;
    const error = new Error(`no connection within ${this.connectTimeout} s`);
    call.destroy(Object.assign(error, { code: grpc.status.UNAVAILABLE }));
  }

  #call(request, ticket, deadline) {
    const metadata = new grpc.Metadata();
    metadata.set("seedbed-ticket", ticket);
    return this.stub.InitTensor(request, metadata, { deadline });
  }
}

/** The request, and how much of it has arrived; each chunk is checked before it counts. */
class Received {
  constructor(spec, region) {
    this.spec = spec;
    this.region = region;
    this.elements = 0;
    this.description = null;
  }

  /** The request for the missing elements. */
  request() {
    this.description = null; // each stream has one
    return { spec: this.spec, region: this.region, first_element: String(this.elements) };
  }

  add({ description, chunk }) {
    if (!description === !this.description) throw new Corrupted("a description is missing, or arrived twice");
    if (description) this.#describe(description);
    const payload = chunk?.payload ?? Buffer.alloc(0);
    const count = payload.length / ITEM_BYTES[this.description.spec.dtype];
    const missing = this.description.element_count - this.elements;
    const place = `element ${this.elements}`;
    if (chunk && Number(chunk.element_offset) !== this.elements) throw new Corrupted(`${place} did not arrive next`);
    if (!Number.isInteger(count) || count > missing || (count === 0 && missing > 0)) {
      throw new Corrupted(`${payload.length} bytes arrived at ${place}`);
    }
    if (chunk && crc32c.buf(payload) >>> 0 !== chunk.crc32c) throw new Corrupted(`wrong checksum at ${place}`);
    this.elements += count;
    return { description: this.description, payload };
  }

  end() {
    const isWhole = this.description && this.elements === Number(this.description.element_count);
    if (!isWhole) throw new Corrupted("the stream ended too early");
  }

  #describe(description) {
    // Whichever server resumes this stream, perhaps a newer one, must use the same version.
    const version = this.spec.algorithm_version || description.spec?.algorithm_version;
    const isDefault = [undefined, 0, "DATA_TYPE_UNSPECIFIED"].includes(this.spec.dtype);
    const dtype = isDefault ? "DATA_TYPE_FLOAT32" : this.spec.dtype;
    const spec = { ...this.spec, dtype, algorithm_version: version };
    const shape = spec.shape ?? [];
    const start = this.region?.start ?? shape.map(() => "0");
    const stop = this.region?.stop ?? shape;
    const count = stop.reduce((product, end, axis) => product * (BigInt(end) - BigInt(start[axis])), 1n);
    const expected = plain(spec);
    const isRight = version > 0 && isDeepStrictEqual(plain(description.spec), expected)
      && isDeepStrictEqual(description.region?.start, start) && isDeepStrictEqual(description.region.stop, stop)
      && description.element_count === String(count)
      && description.byte_count === String(count * BigInt(ITEM_BYTES[expected.dtype]));
    if (!isRight) throw new Corrupted("the description does not match the request");
    this.description = description;
    this.spec = spec;
  }
}

/** A spec in a normal form, whatever was omitted or written differently. */
function plain(spec) {
  return TensorSpec.toObject(TensorSpec.fromObject(spec), { ...FORM, bytes: String });
}

/** Milliseconds to wait before the next attempt; null if another attempt would not help. */
function delayBefore(attempt, error) {
  if (isFull(error)) {
    const { seconds, nanos } = detail(error, "RetryInfo").retry_delay;
    const wait = Math.min(Math.max(1000 * Number(seconds) + nanos / 1e6, LEAST_WAIT), LONGEST_WAIT);
    return wait * (1 + Math.random() / 4); // never sooner, when the server does not expect the call
  }
  const isTransient = error instanceof Corrupted || error.code === grpc.status.UNAVAILABLE;
  return isTransient && attempt < ATTEMPTS ? FIRST_DELAY * 2 ** (attempt - 1) * (0.5 + Math.random()) : null;
}

/** Whether the server is full and said when to retry: not a failure, however often. */
function isFull(error) {
  return error.code === grpc.status.RESOURCE_EXHAUSTED && Boolean(detail(error, "RetryInfo")?.retry_delay);
}

/** The error with the wrong fields, if the server named any. */
function detailed(error) {
  const violations = detail(error, "BadRequest")?.field_violations;
  return violations?.length ? new InvalidRequest(...violations) : error;
}

function detail(error, name) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return undefined;
  const { details } = rpc.lookupType("Status").decode(bytes);
  const any = details.find((one) => one.type_url.endsWith(`/google.rpc.${name}`));
  return any && rpc.lookupType(name).decode(any.value);
}

/** The header of a .npy file; the elements follow. */
export function npyHeader({ spec, region: { start, stop } }) {
  const extents = stop.map((end, axis) => end - start[axis]);
  const shape = extents.join(", ") + (extents.length === 1 ? "," : "");
  const header = `{'descr': '${NPY_TYPES[spec.dtype]}', 'fortran_order': False, 'shape': (${shape}), }`;
  const length = Math.ceil((header.length + 11) / 64) * 64 - 10;
  const prefix = Buffer.from("\x93NUMPY\x01\x00\x00\x00", "latin1");
  prefix.writeUInt16LE(length, 8);
  return Buffer.concat([prefix, Buffer.from(`${header.padEnd(length - 1)}\n`)]);
}

/** A file that appears under its name only when it is complete. */
class NpyFile {
  constructor(path) {
    this.path = path;
    this.part = `${path}.part`;
    this.file = null;
  }

  write({ description, payload }) {
    if (this.file === null) {
      this.file = openSync(this.part, "w");
      this.#writeAll(npyHeader(description));
    }
    this.#writeAll(payload);
  }

  complete() {
    closeSync(this.file);
    this.file = null;
    renameSync(this.part, this.path);
  }

  abandon() {
    if (this.file === null) return;
    closeSync(this.file);
    rmSync(this.part);
  }

  #writeAll(bytes) {
    for (let written = 0; written < bytes.length; ) written += writeSync(this.file, bytes, written);
  }
}

/** The bits of the elements as hexadecimal numbers, as in the golden vectors. */
export function bits({ spec }, data) {
  const size = ITEM_BYTES[spec.dtype];
  return Array.from({ length: data.length / size }, (_, index) =>
    Buffer.from(data.subarray(size * index, size * (index + 1))).reverse().toString("hex"), // little-endian
  );
}

function parsedRegion(text) {
  const sides = text.split(",").map((side) => /^(\d+):(\d+)$/.exec(side.trim()));
  if (sides.includes(null)) throw wrong("region", `${text} is invalid; pass START:STOP per dimension, as in 0:4,8:16`);
  return { start: sides.map(([, start]) => start), stop: sides.map(([, , stop]) => stop) };
}

function parsedTimeout(text) {
  if (!(Number(text) > 0)) throw wrong("timeout", `${text} is invalid; pass a positive number of seconds`);
  return Number(text);
}

async function main() {
  const strings = ["region", "out", "timeout", "ca", "token-env"];
  const { values: options, positionals } = parseArgs({
    allowPositionals: true, options: Object.fromEntries(strings.map((name) => [name, { type: "string" }])),
  });
  if (positionals.length !== 2) throw new TypeError("pass HOST:PORT and SPEC.json; see the top of client.mjs");
  const [target, path] = positionals;
  const region = options.region === undefined ? undefined : parsedRegion(options.region);
  const timeout = options.timeout === undefined ? undefined : parsedTimeout(options.timeout);
  const token = options["token-env"] && process.env[options["token-env"]];
  if (options["token-env"] && !token) throw new TypeError(`the variable ${options["token-env"]} is unset or empty`);
  const client = new Client(target, { ca: options.ca && readFileSync(options.ca), token });
  const file = options.out && new NpyFile(options.out);
  const hash = createHash("sha256");
  let first = Buffer.alloc(0);
  let described;
  const onRetry = (error, element) => console.error(`resuming at element ${element}: ${error.message}`);
  try {
    const spec = JSON.parse(readFileSync(path, "utf8"));
    for await (const part of client.stream(spec, region, { timeout, onRetry })) {
      described = part.description;
      const missing = 16 * ITEM_BYTES[described.spec.dtype] - first.length;
      if (missing > 0) first = Buffer.concat([first, part.payload.subarray(0, missing)]);
      hash.update(part.payload);
      file?.write(part);
    }
    file?.complete();
    console.log(bits(described, first).join(" "));
    console.log(hash.digest("hex"));
  } finally {
    file?.abandon();
    client.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    console.error(`${error.constructor.name}: ${error.message}`);
    process.exitCode = 1;
  });
}
