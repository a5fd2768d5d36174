// An OAuth2 provider that we did not write: oidc-provider with PKCE, rotation with reuse detection and short tokens.
import { createHash, createPublicKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, port, callback, secret, life, moreFile] = process.argv.slice(2);
// What a test wants besides: {clients: [{client_id, auth, public, algorithm, subject}], mtls}
const more = JSON.parse(readFileSync(moreFile));
// This script lies outside the folder of the packages, where Node does not look by itself.
const { Provider } = await import(pathToFileURL(createRequire(`${modules}/x`).resolve("oidc-provider")));

const client = (client_id, token_endpoint_auth_method, grant_types) => ({
  client_id,
  client_secret: secret,
  token_endpoint_auth_method,
  grant_types,
  redirect_uris: grant_types.includes("authorization_code") ? [callback] : [],
  response_types: grant_types.includes("authorization_code") ? ["code"] : [],
});

// Clients without a secret: by a key whose public half is known, or by a certificate's subject.
const proved = ({ client_id, auth, public: key, algorithm, subject }) => ({
  client_id,
  token_endpoint_auth_method: auth,
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
  ...(key && { jwks: { keys: [{ ...createPublicKey(key).export({ format: "jwk" }), kid: "k-1", use: "sig" }] } }),
  ...(algorithm && { token_endpoint_auth_signing_alg: algorithm }),
  ...(subject && { tls_client_auth_subject_dn: subject, tls_client_certificate_bound_access_tokens: true }),
});
const shown = (ctx) => {
  const pem = decodeURIComponent(ctx.get("x-client-certificate"));
  return pem ? new X509Certificate(pem) : undefined;
};
// TLS ends at a server in front, which says in headers whom it saw.
const mTLS = {
  enabled: true,
  certificateBoundAccessTokens: true,
  tlsClientAuth: true,
  getCertificate: shown,
  certificateAuthorized: (ctx) => ctx.get("x-client-verify") === "SUCCESS",
  certificateSubjectMatches: (ctx, property, expected) =>
    property === "tls_client_auth_subject_dn" && ctx.get("x-client-subject") === expected,
};

const counts = { granted: 0, refused: [], revoked: 0 };
// How long the first token lives, the second, and so on; the last of these counts for all that follow.
const lives = life.split(",").map(Number);
const ttl = () => lives[Math.min(counts.granted, lives.length - 1)];
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    client("user-basic", "client_secret_basic", ["authorization_code", "refresh_token"]),
    client("user-body", "client_secret_post", ["authorization_code", "refresh_token"]),
    client("machine-basic", "client_secret_basic", ["client_credentials"]),
    client("machine-body", "client_secret_post", ["client_credentials"]),
    ...(more.clients ?? []).map(proved),
  ],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  features: { devInteractions: { enabled: true }, clientCredentials: { enabled: true }, introspection: { enabled: true }, ...(more.mtls && { mTLS }) },
  clientAuthMethods: [
    "client_secret_basic", "client_secret_post", "private_key_jwt", "none", ...(more.mtls ? ["tls_client_auth"] : []),
  ],
  enabledJWA: { clientAuthSigningAlgValues: ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"] },
  ttl: { AccessToken: ttl, ClientCredentials: ttl, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600 },
  scopes: ["openid", "offline_access", "read"],
});
provider.on("grant.success", () => (counts.granted += 1));
provider.on("grant.error", (_, error) => counts.refused.push(error.error_description ?? error.message));
provider.on("grant.revoked", () => (counts.revoked += 1));

// An API beside it: takes the provider's live tokens and no other.
provider.use(async (ctx, next) => {
  if (ctx.path === "/counts") {
    ctx.body = counts;
    return;
  }
  if (!ctx.path.startsWith("/api")) return next();
  const token = (ctx.get("authorization").match(/^Bearer (.+)$/) ?? [])[1] ?? "";
  const found = (await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token));
  ctx.status = found && !found.isExpired ? 200 : 401;
  ctx.body = { client: found?.clientId ?? null };
  if (found?.["x5t#S256"]) {
    ctx.body.bound = found["x5t#S256"] === createHash("sha256").update(shown(ctx)?.raw ?? "").digest("base64url");
  }
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
