// A certified OpenID provider with two clients: a department's system and the portal. Whoever signs in is who they say.
// Arguments: port, file with the signing keys (JWKS), address that the portal comes back to.
import { readFileSync } from "node:fs";
import * as oidc from "oidc-provider";

const [port, keys, redirect] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const people = { "li.na": { department: "tax" }, "wang.wei": { department: "governance", bus_administrator: true } };

const provider = new oidc.Provider(issuer, {
  clients: [
    {
      client_id: "tax", client_secret: "secret-of-tax", grant_types: ["client_credentials"],
      redirect_uris: [], response_types: [], id_token_signed_response_alg: "ES256",
    },
    {
      client_id: "portal", client_secret: "secret-of-portal", redirect_uris: [redirect],
      post_logout_redirect_uris: [new URL("/", redirect).href], id_token_signed_response_alg: "ES256",
    },
  ],
  jwks: JSON.parse(readFileSync(keys, "utf8")),
  claims: { openid: ["sub"], profile: ["preferred_username", "department", "bus_administrator"] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, ...(people[id] ?? { department: "nobody" }) }),
  }),
  extraTokenClaims: () => ({ bus_attributes: { district: 7 } }),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:bus",
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        audience: "bus", scope: "", accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
});
provider.listen(Number(port), "127.0.0.1", () => console.log(`ready ${issuer}`));
