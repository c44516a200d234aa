// A client of Seedbed in Node, from the contract alone: streams a tensor or a region of it, checks every chunk, goes on
// with a stream that broke, and tells what a request got wrong by its field.
//
//   node client.mjs HOST:PORT SPEC.json [--region 0:4,8:16] [--out FILE.npy] [--ca CA.pem] [--token-env NAME]
//
// SPEC.json is a TensorSpec: {"name": "w", "shape": [4, 3], "seed": "7", "normal": {"std": 0.02}}
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import crc32c from "crc-32/crc32c.js";
import protobuf from "protobufjs";

const PROTO = fileURLToPath(new URL("../../proto/seedbed/v1/init.proto", import.meta.url));
const ATTEMPTS = 5; // without a new element
const FIRST_DELAY = 100; // milliseconds; doubled for each attempt
const ITEM_BYTES = {
  DATA_TYPE_FLOAT32: 4, DATA_TYPE_FLOAT16: 2, DATA_TYPE_BFLOAT16: 2, DATA_TYPE_FLOAT64: 8, DATA_TYPE_COMPLEX64: 8,
};
// bfloat16 has no NumPy type of its own: the bits, as unsigned integers.
const NPY_TYPES = {
  DATA_TYPE_FLOAT32: "<f4", DATA_TYPE_FLOAT16: "<f2", DATA_TYPE_BFLOAT16: "<u2", DATA_TYPE_FLOAT64: "<f8",
  DATA_TYPE_COMPLEX64: "<c8",
};

// 64-bit integers as text: a seed may exceed what a number holds exactly.
const { seedbed } = grpc.loadPackageDefinition(
  protoLoader.loadSync(PROTO, { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true }),
);

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

/** The request is wrong; `field` names where, the message has the remedy. */
export class InvalidRequest extends Error {
  constructor({ field, description }) {
    super(`${field}: ${description}`);
    this.field = field;
  }
}

export class Client {
  /**
   * @param {string} target such as "localhost:50051"
   * @param {{ca?: Buffer, token?: string}} options ca makes it TLS; a token is never sent without
   */
  constructor(target, { ca, token } = {}) {
    if (token && !ca) throw new TypeError("a token is not sent without TLS; give the server's authority, ca");
    let credentials = ca ? grpc.credentials.createSsl(ca) : grpc.credentials.createInsecure();
    if (token) {
      const metadata = new grpc.Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => done(null, metadata));
      credentials = grpc.credentials.combineChannelCredentials(credentials, bearer);
    }
    // A chunk may exceed the 4 MiB that gRPC takes by default.
    this.stub = new seedbed.v1.InitService(target, credentials, { "grpc.max_receive_message_length": -1 });
  }

  close() {
    this.stub.close();
  }

  /**
   * Receives a tensor, or a region of it.
   *
   * @param {object} spec a TensorSpec, names as in the contract
   * @param {{start: number[], stop: number[]}} [region] default all of it
   * @returns {Promise<{description: object, data: Buffer}>} what it resolved to, and its elements, row-major, little-endian
   */
  async init(spec, region) {
    const ticket = randomBytes(16).toString("hex"); // a server that is full serves those first who came first
    let received = null;
    for (let attempt = 1; ; attempt++) {
      const before = received?.elements ?? 0;
      const call = this.#call(spec, region, before, ticket);
      call.on("error", () => {}); // what comes after the loop was left; in it, errors are thrown
      try {
        for await (const message of call) {
          received ??= new Received(message.description, spec);
          received.add(message);
        }
        return received.whole();
      } catch (error) {
        call.cancel();
        if ((received?.elements ?? 0) > before) attempt = 1;
        const delay = delayBefore(attempt, error);
        if (delay === null) throw error instanceof Corrupted ? error : told(error);
        await sleep(delay);
      }
    }
  }

  #call(spec, region, firstElement, ticket) {
    const metadata = new grpc.Metadata();
    metadata.set("seedbed-ticket", ticket);
    return this.stub.InitTensor({ spec, region, first_element: String(firstElement) }, metadata);
  }
}

/** The elements that came, each checked before it counts. */
class Received {
  constructor(description, spec) {
    const shape = JSON.stringify(description?.spec?.shape.map(Number));
    if (shape !== JSON.stringify((spec.shape ?? []).map(Number))) throw new Corrupted("another shape was described");
    this.description = description;
    this.itemBytes = ITEM_BYTES[description.spec.dtype];
    this.data = Buffer.alloc(Number(description.byte_count));
    this.elements = 0;
  }

  add({ chunk }) {
    if (!chunk) return;
    const { payload } = chunk;
    const end = this.elements * this.itemBytes + payload.length;
    if (Number(chunk.element_offset) !== this.elements) throw new Corrupted(`element ${this.elements} did not come next`);
    if (payload.length % this.itemBytes || end > this.data.length) throw new Corrupted("a chunk has another size");
    if (crc32c.buf(payload) >>> 0 !== chunk.crc32c) throw new Corrupted(`wrong checksum at element ${this.elements}`);
    payload.copy(this.data, end - payload.length);
    this.elements += payload.length / this.itemBytes;
  }

  whole() {
    if (this.elements * this.itemBytes !== this.data.length) throw new Corrupted("the stream ended too early");
    return { description: this.description, data: this.data };
  }
}

/** Milliseconds to wait before the stream is asked for again; null if that would not help. */
function delayBefore(attempt, error) {
  if (attempt >= ATTEMPTS) return null;
  const backoff = FIRST_DELAY * 2 ** (attempt - 1) * (0.5 + Math.random());
  if (error instanceof Corrupted || error.code === grpc.status.UNAVAILABLE) return backoff;
  if (error.code !== grpc.status.RESOURCE_EXHAUSTED) return null;
  const { retry_delay: wait } = detail(error, "RetryInfo") ?? {};
  return wait ? 1000 * Number(wait.seconds) + wait.nanos / 1e6 : null;
}

/** The error with the field, if the server named one. */
function told(error) {
  const violations = detail(error, "BadRequest")?.field_violations;
  return violations?.length ? new InvalidRequest(violations[0]) : error;
}

function detail(error, name) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return undefined;
  const any = rpc.lookupType("Status").decode(bytes).details.find((one) => one.type_url.endsWith(`/google.rpc.${name}`));
  return any && rpc.lookupType(name).decode(any.value);
}

/** A file of NumPy's. */
export function npy({ description, data }) {
  const { start, stop } = description.region;
  const extents = stop.map((end, axis) => end - start[axis]);
  const shape = extents.join(", ") + (extents.length === 1 ? "," : "");
  const header = `{'descr': '${NPY_TYPES[description.spec.dtype]}', 'fortran_order': False, 'shape': (${shape}), }`;
  const length = Math.ceil((header.length + 11) / 64) * 64 - 10;
  const beginning = Buffer.from("\x93NUMPY\x01\x00\x00\x00", "latin1");
  beginning.writeUInt16LE(length, 8);
  return Buffer.concat([beginning, Buffer.from(`${header.padEnd(length - 1)}\n`), data]);
}

/** The bits of the first elements as hexadecimal numbers, as the golden vectors have them. */
export function bits({ description, data }, count) {
  const size = ITEM_BYTES[description.spec.dtype];
  return Array.from({ length: Math.min(count, data.length / size) }, (_, index) =>
    Buffer.from(data.subarray(size * index, size * (index + 1))).reverse().toString("hex"), // little-endian
  );
}

async function main() {
  const { values: options, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      region: { type: "string" }, out: { type: "string" }, ca: { type: "string" }, "token-env": { type: "string" },
    },
  });
  const [target, path] = positionals;
  const client = new Client(target, {
    ca: options.ca && readFileSync(options.ca),
    token: options["token-env"] && process.env[options["token-env"]],
  });
  try {
    const sides = options.region?.split(",").map((side) => side.split(":"));
    const region = sides && { start: sides.map(([start]) => start), stop: sides.map(([, stop]) => stop) };
    const tensor = await client.init(JSON.parse(readFileSync(path, "utf8")), region);
    if (options.out) writeFileSync(options.out, npy(tensor));
    console.log(bits(tensor, 16).join(" "));
    console.log(createHash("sha256").update(tensor.data).digest("hex"));
  } finally {
    client.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    console.error(`${error.constructor.name}: ${error.message}`);
    process.exitCode = 1;
  });
}
