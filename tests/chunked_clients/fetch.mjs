// Sends a body of unknown length with Node.js' fetch: node fetch.mjs URL TOKEN KEY
const [url, token, key] = process.argv.slice(2);
const body = new ReadableStream({
  start(controller) {
    const text = new TextEncoder();
    controller.enqueue(text.encode('{"keyUuid":'));
    controller.enqueue(text.encode(`${JSON.stringify(key)}}`));
    controller.close();
  },
});
const response = await fetch(url, {
  method: "POST",
  headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
  body,
  duplex: "half",
});
console.log(response.status, await response.text());
