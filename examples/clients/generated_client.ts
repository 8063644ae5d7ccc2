// Writes a key by a client that hey-api has generated from /openapi.json: see examples/clients/generated.md.
// The service accepts a token or an API key. Each goes into its own header, so `auth` must look at the scheme that it is asked for:
// one value for both is refused with 401. A scheme for which `auth` returns nothing is left out.

import { client } from "./client/client.gen";
import { writeKey } from "./client/sdk.gen";

const { KEYWRIGHT_URL, KEYWRIGHT_TOKEN, KEYWRIGHT_API_KEY } = process.env;

client.setConfig({
  baseUrl: KEYWRIGHT_URL,
  auth: (scheme) => (scheme.type === "http" ? KEYWRIGHT_TOKEN : KEYWRIGHT_API_KEY),
});

async function main([lock, keyUuid, index]: string[]) {
  const { data, error } = await writeKey({
    path: { id: Number(lock) },
    headers: { Prefer: "wait=10" },
    body: { keyUuid, keyIndexNumber: index === undefined ? undefined : Number(index) },
  });
  if (error) {
    console.error(`${error.code}: ${error.message}`);
    process.exitCode = 1;
  } else {
    console.log(JSON.stringify(data));
  }
}

main(process.argv.slice(2));
