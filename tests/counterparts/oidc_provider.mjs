// An OAuth2 provider that we did not write: oidc-provider with PKCE, rotation with reuse detection and short tokens.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, port, callback, secret, life] = process.argv.slice(2);
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
  ],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  features: { devInteractions: { enabled: true }, clientCredentials: { enabled: true }, introspection: { enabled: true } },
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
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
