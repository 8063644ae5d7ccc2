// Receives webhooks, verifies their signatures and ignores repetitions: node receiver.mjs PORT. The secret is in WEBHOOK_SECRET.
// It needs Node 18 and nothing besides. It prints the id and the type of each new event.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const key = Buffer.from((process.env.WEBHOOK_SECRET ?? "").replace(/^whsec_/, ""), "base64");
if (key.length < 24) {
  console.error("set WEBHOOK_SECRET to the secret of the webhook, which begins with whsec_");
  process.exit(1);
}
const tolerance = 300; // seconds
const maxBody = 256 * 1024;
const seen = new Set(); // Use a table with a unique key, so that it outlives the process.

function isValid(headers, body) {
  const timestamp = headers["webhook-timestamp"] ?? "";
  const age = Math.abs(Date.now() / 1000 - Number(timestamp));
  if (!/^\d+$/.test(timestamp) || age > tolerance) return false;
  const hmac = createHmac("sha256", key);
  hmac.update(`${headers["webhook-id"] ?? ""}.${timestamp}.`).update(body);
  const expected = Buffer.from(`v1,${hmac.digest("base64")}`);
  const signatures = (headers["webhook-signature"] ?? "").split(" ").map((text) => Buffer.from(text));
  return signatures.some((signature) => signature.length === expected.length && timingSafeEqual(signature, expected));
}

const server = createServer(async (request, response) => {
  const chunks = [];
  let length = 0;
  try {
    for await (const chunk of request) {
      length += chunk.length;
      if (length > maxBody) return response.writeHead(413).end();
      chunks.push(chunk);
    }
  } catch {
    return; // The client has closed the connection.
  }
  const body = Buffer.concat(chunks);
  if (!isValid(request.headers, body)) return response.writeHead(401).end();
  const event = JSON.parse(body.toString());
  if (!seen.has(event.id)) {
    console.log(event.id, event["detail-type"]);
    seen.add(event.id); // Only what is processed: an event that was not is delivered again.
  }
  response.writeHead(204).end();
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready", server.address().port));
