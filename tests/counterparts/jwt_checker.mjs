// Checks signed tokens with jose, which we did not write: a token endpoint for the grant jwt-bearer, and an API that
// takes tokens that its callers sign.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { createSecretKey } from "node:crypto";

const [modules, port, keysFile] = process.argv.slice(2);
const { jwtVerify, importSPKI, decodeProtectedHeader } = await import(
  pathToFileURL(createRequire(`${modules}/x`).resolve("jose"))
);
// {kid: {algorithm, public | secret}}
const keys = JSON.parse(readFileSync(keysFile));

async function verified(token, expected) {
  const { kid } = decodeProtectedHeader(token);
  const key = keys[kid];
  if (!key) throw new Error(`no key ${kid}`);
  const material = key.secret ? createSecretKey(Buffer.from(key.secret)) : await importSPKI(key.public, key.algorithm);
  const options = { algorithms: [key.algorithm], requiredClaims: ["exp", "iat", "jti", "iss"], ...expected };
  return jwtVerify(token, material, options);
}

const seen = new Set();
async function answer(request, body) {
  const url = `http://127.0.0.1:${port}${request.url}`;
  if (request.url === "/token") {
    const form = new URLSearchParams(body);
    if (form.get("grant_type") !== "urn:ietf:params:oauth:grant-type:jwt-bearer") return [400, { error: "unsupported_grant_type" }];
    try {
      const { payload, protectedHeader } = await verified(form.get("assertion"), { audience: url, maxTokenAge: "10m" });
      if (seen.has(payload.jti)) throw new Error("used twice");
      seen.add(payload.jti);
      const said = Buffer.from(JSON.stringify({ payload, protectedHeader, scope: form.get("scope"), client_id: form.get("client_id") }));
      return [200, { access_token: `given.${said.toString("base64url")}`, expires_in: 3600, token_type: "Bearer" }];
    } catch (error) {
      return [400, { error: "invalid_grant", error_description: error.message }];
    }
  }
  const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
  if (token.startsWith("given.")) return [200, JSON.parse(Buffer.from(token.slice(6), "base64url"))];
  try {
    const { payload, protectedHeader } = await verified(token, { audience: "https://api.test", maxTokenAge: "10m" });
    return [200, { payload, protectedHeader }];
  } catch (error) {
    return [401, { error: error.message }];
  }
}

createServer((request, response) => {
  let body = "";
  request.on("data", (piece) => (body += piece));
  request.on("end", async () => {
    const [status, said] = await answer(request, body);
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(said));
  });
}).listen(Number(port), "127.0.0.1", () => console.log("listening"));
