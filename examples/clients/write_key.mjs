// Writes a key and waits for the lock: node write_key.mjs LOCK KEY [INDEX]. Who you are is in the environment (sandbox.env).

async function writeKey(lock, keyUuid, index) {
  const body = { keyUuid };
  if (index !== undefined) body.keyIndexNumber = Number(index);
  const response = await fetch(`${process.env.KEYWRIGHT_URL}/locks/${lock}/WriteKey`, {
    method: "POST",
    headers: {
      Authorization: `Bearer ${process.env.KEYWRIGHT_TOKEN}`,
      "Content-Type": "application/json",
      Prefer: "wait=10",
    },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${answer.message}`);
  return answer;
}

const [lock, key, index] = process.argv.slice(2);
try {
  console.log(JSON.stringify(await writeKey(lock, key, index)));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
