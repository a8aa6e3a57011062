// A receiver with the verifier of Standard Webhooks that is published on npm.
//
// The argument is the secret. The receiver prints its port. It answers a webhook with 204 if the
// verifier accepts it, and with 400 otherwise. A POST to /sign is answered with a signature of its body.

const http = require("node:http");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

const webhook = new Webhook(process.argv[2]);

const server = http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts).toString();
  if (request.url === "/sign") {
    const now = new Date();
    response.setHeader("webhook-id", "msg_node");
    response.setHeader("webhook-timestamp", Math.floor(now.getTime() / 1000));
    response.setHeader("webhook-signature", webhook.sign("msg_node", now, body));
    response.end();
    return;
  }
  try {
    webhook.verify(body, request.headers);
    response.statusCode = 204;
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    response.statusCode = 400;
  }
  response.end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
