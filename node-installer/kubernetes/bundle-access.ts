import * as z from "zod";
import { bundleAudience, bundleReader } from "../../runtime/names.ts";
import type { Api } from "./api.ts";

/** Whether the bearer of a token may read this node's bundle. Throws `ApiError` if the API server cannot be asked. */
export type MayReadBundle = (token: string) => Promise<boolean>;

const review = z.object({
  status: z.object({
    authenticated: z.boolean().default(false),
    audiences: z.array(z.string()).default([]),
    user: z.object({ username: z.string().default("") }).default({ username: "" }),
  }),
});

/** As service accounts' tokens look; nothing else is worth the API server's time. */
const jwt = /^[\w-]{1,2048}\.([\w-]{1,4096})\.[\w-]{1,2048}$/;
const claims = z.object({ iat: z.number(), exp: z.number() });
/** Of a token: who stole a reader's own cannot have one made that outlives it for long. */
const longestSeconds = 3600;

/** Whether the API server, if it made this token, made it for a short time. */
function isShortLived(token: string): boolean {
  const [, payload] = jwt.exec(token) ?? [];
  if (payload === undefined) return false;
  try {
    const { iat, exp } = claims.parse(JSON.parse(Buffer.from(payload, "base64url").toString()));
    return exp - iat <= longestSeconds;
  } catch {
    return false;
  }
}

/**
 * The API server says whose a token is and that it was made for this node's bundle. It has to be one of a ServiceAccount
 * that has no rights at all and exists for nothing else: any pod can have a token of its *own* account for any audience.
 *
 * A bundle leaves a node in this way, and not through `pods/exec`, because the right to create that on installers is the
 * right to be root on every node, which no reader in a pipeline should have. What a node receives, somebody who broke into
 * it can keep: he has a token for the bundle that he could read already, for some minutes.
 */
export function bundleAccess(api: Api, namespace: string, nodeName: string): MayReadBundle {
  const audience = bundleAudience(nodeName);
  return async (token) => {
    if (!isShortLived(token)) return false;
    const answer = review.safeParse(
      await api.create("/apis/authentication.k8s.io/v1/tokenreviews", {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: { token, audiences: [audience] },
      }),
    );
    if (!answer.success) return false;
    const { authenticated, audiences, user } = answer.data.status;
    return (
      authenticated &&
      // An API server whose authenticator knows no audiences leaves them out: then it is a token for anything.
      audiences.includes(audience) &&
      user.username === `system:serviceaccount:${namespace}:${bundleReader}`
    );
  };
}
