// A naive service for the same requests as Keywright's WriteKey, on Fastify and better-sqlite3: `node server.mjs DATABASE SECRET LOCKS`.
// It verifies the token, makes two durable transactions for each request, and has the shadows in the process. It has no recovery, so
// that a crash or a lost answer loses the outcome of a write.

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import Database from "better-sqlite3";
import Fastify from "fastify";

const [file, secretFile, locks] = process.argv.slice(2);
const secret = readFileSync(secretFile);
const FIRST_LOCK = 1001;
const TIME_TO_LIVE_MS = 48 * 3600 * 1000;

const database = new Database(file);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.exec(readFileSync(new URL("../schema.sql", import.meta.url), "utf8"));

const insertLock = database.prepare(
  "INSERT INTO locks (id, uuid, owner, organization, capacity, version) VALUES (?, ?, 'demo-user', 'demo-org', 100, 2)",
);
database.transaction(() => {
  for (let n = 0; n < Number(locks); n += 1) {
    insertLock.run(FIRST_LOCK + n, randomUUID());
  }
})();

const selectLock = database.prepare("SELECT uuid, owner, organization, capacity FROM locks WHERE id = ?");
const insertWrite = database.prepare(
  "INSERT INTO writes (id, lock, key_uuid, key_index, state, requested_by, requested_at, expires_at) " +
    "VALUES (?, ?, ?, ?, 'PREPARED', ?, ?, ?)",
);
const finishWrite = database.prepare("UPDATE writes SET state = ?, version = ? WHERE id = ?");
const nextVersion = database.prepare("UPDATE locks SET version = version + 1 WHERE id = ? RETURNING version");
const insertEvent = database.prepare("INSERT INTO events (lock, version, type, time, data) VALUES (?, ?, ?, ?, ?)");

const recordIntent = database.transaction((write) => {
  insertWrite.run(write.id, write.lock, write.key, write.index, write.by, write.time, write.time + TIME_TO_LIVE_MS);
});
const recordResult = database.transaction((write, data) => {
  const { version } = nextVersion.get(write.lock);
  insertEvent.run(write.lock, version, "KeyWriteRequested", write.time, JSON.stringify(data));
  finishWrite.run("SENT", version, write.id);
  return version;
});

// The desired entries of each lock's shadow, by key index, and the version of the shadow.
const shadows = new Map();

function updateShadow(write) {
  const shadow = shadows.get(write.lock) ?? { version: 0, desired: {} };
  shadow.version += 1;
  shadow.desired[write.index ?? write.id] = { id: write.id, keyUuid: write.key, expiresAt: write.time + TIME_TO_LIVE_MS };
  shadows.set(write.lock, shadow);
}

const MAX_VERIFIED = 10_000;
const verified = new Map();

// The claims of a valid token; null if it is not valid.
function verify(token, now) {
  let claims = verified.get(token);
  if (claims === undefined) {
    const parts = token.split(".");
    if (parts.length !== 3) return null;
    const expected = createHmac("sha256", secret).update(`${parts[0]}.${parts[1]}`).digest();
    const signature = Buffer.from(parts[2], "base64url");
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) return null;
    try {
      const header = JSON.parse(Buffer.from(parts[0], "base64url"));
      claims = JSON.parse(Buffer.from(parts[1], "base64url"));
      if (header.alg !== "HS256") return null;
    } catch {
      return null;
    }
    if (claims.iss !== "bench" || claims.aud !== "bench" || typeof claims.sub !== "string") return null;
    if (verified.size >= MAX_VERIFIED) verified.clear();
    verified.set(token, claims);
  }
  return claims.exp * 1000 > now ? claims : null;
}

const server = Fastify({ bodyLimit: 4096 });

const schema = {
  params: { type: "object", properties: { id: { type: "integer", minimum: 1 } } },
  body: {
    type: "object",
    required: ["keyUuid"],
    properties: {
      keyUuid: { type: "string", minLength: 1, maxLength: 128 },
      keyIndexNumber: { type: "integer", minimum: 0 },
    },
  },
};

function refuse(reply, code, message) {
  return reply.code(code).send({ success: false, message, code });
}

server.post("/locks/:id/WriteKey", { schema }, async (request, reply) => {
  const time = Date.now();
  const [scheme, token] = (request.headers.authorization ?? "").split(" ");
  const claims = scheme === "Bearer" && token ? verify(token, time) : null;
  if (claims === null) return refuse(reply, 401, "the credentials are not valid");
  const lock = selectLock.get(request.params.id);
  if (lock === undefined) return refuse(reply, 404, "no such lock");
  const mayAccess = claims.org ? lock.organization === claims.org : lock.owner === claims.sub;
  if (!mayAccess) return refuse(reply, 403, "no access to the lock");
  const { keyUuid, keyIndexNumber } = request.body;
  if (keyIndexNumber >= lock.capacity) return refuse(reply, 422, "the lock has no such slot");
  const write = {
    id: randomUUID(), lock: request.params.id, key: keyUuid, index: keyIndexNumber ?? null, by: `user:${claims.sub}`, time,
  };
  recordIntent(write);
  updateShadow(write);
  const timestamp = new Date(time).toISOString();
  const data = { lockId: write.lock, uuid: lock.uuid, timestamp, keyUuid, keyIndexNumber };
  const version = recordResult(write, data);
  reply.header("location", `/locks/${write.lock}/writes/${write.id}`);
  reply.header("x-request-id", randomUUID().slice(0, 16));
  return { success: true, aggregateId: String(write.lock), version, event: { type: "KeyWriteRequested", data } };
});

const address = await server.listen({ host: "127.0.0.1", port: 0 });
console.log(`fastify is at ${address}`);
