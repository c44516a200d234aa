// A client of Seedbed in Node, from the contract alone: streams a tensor or a region of it, checks every chunk, goes on
// with a stream that broke, and tells what a request got wrong by its field.
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
const [LEAST_WAIT, LONGEST_WAIT] = [50, 60_000]; // milliseconds for a place, whatever a server says
const ITEM_BYTES = {
  DATA_TYPE_FLOAT32: 4, DATA_TYPE_FLOAT16: 2, DATA_TYPE_BFLOAT16: 2, DATA_TYPE_FLOAT64: 8, DATA_TYPE_COMPLEX64: 8,
};
// bfloat16 has no NumPy type of its own: the bits, as unsigned integers.
const NPY_TYPES = {
  DATA_TYPE_FLOAT32: "<f4", DATA_TYPE_FLOAT16: "<f2", DATA_TYPE_BFLOAT16: "<u2", DATA_TYPE_FLOAT64: "<f8",
  DATA_TYPE_COMPLEX64: "<c8",
};
// The 16-bit types as their bits, complex numbers as pairs. Typed arrays have the byte order of the machine: on a
// big-endian one, swap the bytes first.
const TYPED_ARRAYS = {
  DATA_TYPE_FLOAT32: Float32Array, DATA_TYPE_FLOAT16: Uint16Array, DATA_TYPE_BFLOAT16: Uint16Array,
  DATA_TYPE_FLOAT64: Float64Array, DATA_TYPE_COMPLEX64: Float32Array,
};

// 64-bit integers as text: a seed may exceed what a number holds exactly.
const FORM = { longs: String, enums: String, defaults: true };
const { seedbed } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO, { keepCase: true, ...FORM }));
const contract = protobuf.parse(readFileSync(PROTO, "utf8"), { keepCase: true }).root.resolveAll();
const TensorSpec = contract.lookupType("seedbed.v1.TensorSpec");
const Region = contract.lookupType("seedbed.v1.Region");
const INTEGERS = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n], uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n], uint64: [0n, 2n ** 64n - 1n],
};

// Of google.rpc, what Seedbed's errors carry.
const rpc = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Violation { string field = 1; string description = 2; }
  message BadRequest { repeated Violation field_violations = 1; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true }).root;

/** What a server sent is not what was asked for, or was damaged on its way. */
export class Corrupted extends Error {}

/** The request is wrong; `field` names where, the message has the remedy, `violations` has all that is wrong. */
export class InvalidRequest extends Error {
  constructor(...violations) {
    super(violations.map(({ field, description }) => `${field}: ${description}`).join("; "));
    this.field = violations[0].field;
    this.violations = violations;
  }
}

/**
 * The JSON form of a message, checked, with names as in the contract. protobufjs would leave out what it does not know
 * and round or wrap what does not fit: other weights, and no error.
 */
function checked(type, value, path) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw wrong(path, "give an object");
  const names = new Map(type.fieldsArray.flatMap((field) => [[field.name, field], [camel(field.name), field]]));
  const given = {};
  for (const [name, content] of Object.entries(value)) {
    const field = names.get(name);
    const place = `${path}.${field?.name ?? name}`;
    if (!field) throw wrong(place, `there is no such field; use one of ${Object.keys(type.fields).join(", ")}`);
    if (field.name in given) throw wrong(place, "is given twice");
    if (field.repeated && !Array.isArray(content)) throw wrong(place, "give a list");
    given[field.name] = field.repeated
      ? content.map((item, index) => checkedValue(field, item, `${place}[${index}]`))
      : checkedValue(field, content, place);
  }
  for (const oneof of type.oneofsArray) {
    const set = oneof.fieldsArray.filter((field) => field.name in given);
    if (set.length > 1) throw wrong(`${path}.${set[1].name}`, `${set[0].name} is set, too; give one of them`);
  }
  return given;
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
    if (typeof number !== "number" || (Number.isNaN(number) && value !== "NaN")) throw wrong(place, "give a number");
    return number;
  }
  if (typeof value !== "string" && !(type === "bytes" && value instanceof Uint8Array)) throw wrong(place, "give text");
  return value;
}

function checkedInteger(type, value, place) {
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw wrong(place, `${value} may have lost digits, as numbers of JavaScript do above 2^53; write it as text`);
  }
  const [least, most] = INTEGERS[type];
  const isInteger = typeof value === "bigint" || Number.isInteger(value) || /^-?\d+$/.test(value);
  if (!isInteger || BigInt(value) < least || BigInt(value) > most) {
    throw wrong(place, `${value} is no integer of ${least} .. ${most}`);
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
   * @param {{ca?: Buffer, token?: string, connectTimeout?: number}} options ca makes it TLS, and a token is never sent
   *   without; seconds until a server that accepts a connection and says nothing counts as unavailable
   */
  constructor(target, { ca, token, connectTimeout = 20 } = {}) {
    if (token && !ca) throw new TypeError("a token is not sent without TLS; give the server's authority, ca");
    let credentials = ca ? grpc.credentials.createSsl(ca) : grpc.credentials.createInsecure();
    if (token) {
      const metadata = new grpc.Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => done(null, metadata));
      credentials = grpc.credentials.combineChannelCredentials(credentials, bearer);
    }
    this.stub = new seedbed.v1.InitService(target, credentials, {
      "grpc.max_receive_message_length": -1, // a chunk may exceed the 4 MiB that gRPC takes by default
      "grpc.keepalive_time_ms": 30_000, // a network that went away says nothing
      "grpc.keepalive_timeout_ms": 20_000,
    });
    this.connectTimeout = connectTimeout;
  }

  close() {
    this.stub.close();
  }

  /**
   * Receives a tensor, or a region of it; of those that memory cannot hold, see `stream`.
   *
   * @param {object} spec a TensorSpec in its JSON form
   * @param {{start: number[], stop: number[]}} [region] default all of it
   * @param {{timeout?: number, onRetry?: function(Error, number): void}} [options] see `stream`
   * @returns {Promise<{description: object, data: Buffer, values: object}>} what it resolved to, and its elements,
   *   row-major: as little-endian bytes, and as a typed array of the same memory
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
   * Gives the elements in parts, in order, each checked; the parts are one at least.
   *
   * @param {{timeout?: number, onRetry?: function(Error, number): void}} [options] seconds for all of it, default no
   *   end; and who is told why a stream broke, and at which element it goes on
   * @returns {AsyncGenerator<{description: object, payload: Buffer}>}
   */
  async *stream(spec, region, { timeout, onRetry } = {}) {
    const received = new Received(checked(TensorSpec, spec, "spec"), region && checked(Region, region, "region"));
    const deadline = timeout ? Date.now() + 1000 * timeout : Infinity;
    const ticket = randomBytes(16).toString("hex"); // a server that is full serves those first who came first
    let attempt = 0;
    while (true) {
      const before = received.elements;
      const call = this.#call(received.request(), ticket, deadline);
      call.on("error", () => {}); // what comes after the loop was left; in it, errors are thrown
      let failure;
      const messages = call[Symbol.asyncIterator]();
      const connecting = setTimeout(() => this.#giveUpConnecting(call), 1000 * this.connectTimeout);
      try {
        while (true) {
          let part;
          try { // not around the yield: what its consumer throws is no failure of the stream
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
      if (delay === null || Date.now() + delay >= deadline) throw told(failure);
      onRetry?.(failure, received.elements);
      await sleep(delay);
    }
  }

  /** Keepalive begins only where a connection is. */
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

/** What was asked for, and how much of it came, each chunk checked before it counts. */
class Received {
  constructor(spec, region) {
    this.spec = spec;
    this.region = region;
    this.elements = 0;
    this.description = null;
  }

  /** For what is missing. */
  request() {
    this.description = null; // each stream has one
    return { spec: this.spec, region: this.region, first_element: String(this.elements) };
  }

  add({ description, chunk }) {
    if (!description === !this.description) throw new Corrupted("a description is missing, or came twice");
    if (description) this.#describe(description);
    const payload = chunk?.payload ?? Buffer.alloc(0);
    const count = payload.length / ITEM_BYTES[this.description.spec.dtype];
    const missing = this.description.element_count - this.elements;
    const place = `element ${this.elements}`;
    if (chunk && Number(chunk.element_offset) !== this.elements) throw new Corrupted(`${place} did not come next`);
    if (!Number.isInteger(count) || count > missing || (count === 0 && missing > 0)) {
      throw new Corrupted(`${payload.length} bytes came at ${place}`);
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
    // Whoever goes on with this stream, perhaps a newer server, shall do so with the same version.
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
    if (!isRight) throw new Corrupted("the description is not of what was asked for");
    this.description = description;
    this.spec = spec;
  }
}

/** A spec in one form, whatever was left out or written otherwise. */
function plain(spec) {
  return TensorSpec.toObject(TensorSpec.fromObject(spec), { ...FORM, bytes: String });
}

/** Milliseconds to wait before the stream is asked for again; null if that would not help. */
function delayBefore(attempt, error) {
  if (isFull(error)) {
    const { seconds, nanos } = detail(error, "RetryInfo").retry_delay;
    const wait = Math.min(Math.max(1000 * Number(seconds) + nanos / 1e6, LEAST_WAIT), LONGEST_WAIT);
    return wait * (1 + Math.random() / 4); // no sooner: one is not expected then
  }
  const isTransient = error instanceof Corrupted || error.code === grpc.status.UNAVAILABLE;
  return isTransient && attempt < ATTEMPTS ? FIRST_DELAY * 2 ** (attempt - 1) * (0.5 + Math.random()) : null;
}

/** Whether the server has no place now, and told when to come again: no failure, however often. */
function isFull(error) {
  return error.code === grpc.status.RESOURCE_EXHAUSTED && Boolean(detail(error, "RetryInfo")?.retry_delay);
}

/** The error with the fields, if the server named some. */
function told(error) {
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

/** The beginning of a file of NumPy's; the elements follow. */
export function npyHeader({ spec, region: { start, stop } }) {
  const extents = stop.map((end, axis) => end - start[axis]);
  const shape = extents.join(", ") + (extents.length === 1 ? "," : "");
  const header = `{'descr': '${NPY_TYPES[spec.dtype]}', 'fortran_order': False, 'shape': (${shape}), }`;
  const length = Math.ceil((header.length + 11) / 64) * 64 - 10;
  const beginning = Buffer.from("\x93NUMPY\x01\x00\x00\x00", "latin1");
  beginning.writeUInt16LE(length, 8);
  return Buffer.concat([beginning, Buffer.from(`${header.padEnd(length - 1)}\n`)]);
}

/** A file that is there only when it is whole. */
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

/** The bits of the elements as hexadecimal numbers, as the golden vectors have them. */
export function bits({ spec }, data) {
  const size = ITEM_BYTES[spec.dtype];
  return Array.from({ length: data.length / size }, (_, index) =>
    Buffer.from(data.subarray(size * index, size * (index + 1))).reverse().toString("hex"), // little-endian
  );
}

function parsedRegion(text) {
  const sides = text.split(",").map((side) => /^(\d+):(\d+)$/.exec(side.trim()));
  if (sides.includes(null)) throw wrong("region", `${text} is none; give START:STOP for each dimension, as 0:4,8:16`);
  return { start: sides.map(([, start]) => start), stop: sides.map(([, , stop]) => stop) };
}

function parsedTimeout(text) {
  if (!(Number(text) > 0)) throw wrong("timeout", `${text} is none; give seconds, above 0`);
  return Number(text);
}

async function main() {
  const strings = ["region", "out", "timeout", "ca", "token-env"];
  const { values: options, positionals } = parseArgs({
    allowPositionals: true, options: Object.fromEntries(strings.map((name) => [name, { type: "string" }])),
  });
  if (positionals.length !== 2) throw new TypeError("give HOST:PORT and SPEC.json, as the head of client.mjs tells");
  const [target, path] = positionals;
  const region = options.region === undefined ? undefined : parsedRegion(options.region);
  const timeout = options.timeout === undefined ? undefined : parsedTimeout(options.timeout);
  const token = options["token-env"] && process.env[options["token-env"]];
  if (options["token-env"] && !token) throw new TypeError(`the variable ${options["token-env"]} has no token`);
  const client = new Client(target, { ca: options.ca && readFileSync(options.ca), token });
  const file = options.out && new NpyFile(options.out);
  const hash = createHash("sha256");
  let first = Buffer.alloc(0);
  let described;
  const onRetry = (error, element) => console.error(`going on at element ${element}: ${error.message}`);
  try {
    const spec = JSON.parse(readFileSync(path, "utf8"));
    for await (const part of client.stream(spec, region, { timeout, onRetry })) {
      described = part.description;
      const wanted = 16 * ITEM_BYTES[described.spec.dtype];
      if (first.length < wanted) first = Buffer.concat([first, part.payload.subarray(0, wanted - first.length)]);
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
