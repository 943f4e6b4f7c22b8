/** The few calls of the Kubernetes API that an installer uses, on top of a map. */

export interface FakeObject {
  metadata: { name: string; uid: string } & Record<string, unknown>;
  [key: string]: unknown;
}

export type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** RFC 7396. */
function merge(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: Json = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merge(result[key], value);
  }
  return result;
}

const failure = (status: number, reason: string) => ({
  status,
  body: JSON.stringify({ kind: "Status", reason, message: `the fake says ${reason}` }),
});

export interface MemoryApi {
  objects: Map<string, FakeObject>;
  /** Names of admission policies that are in force. What they refuse is as the real API server was seen to refuse it. */
  policies: Set<string>;
  answer(method: string, url: string, body: Json): { status: number; body: string };
}

export function memoryApi(): MemoryApi {
  let uid = 0;
  const objects = new Map<string, FakeObject>();
  const policies = new Set<string>();

  /** Of leases in a namespace, or of pods in all of them, by node and phase; undefined: no such collection. */
  const listed = (path: string, fieldSelector: string): FakeObject[] | undefined => {
    const isPods = path === "/api/v1/pods";
    if (!isPods && !path.endsWith("/leases")) return undefined;
    const inside = isPods ? /^[/]api[/]v1[/]namespaces[/][^/]+[/]pods[/]/ : new RegExp(`^${path}/`);
    const terms = fieldSelector.split(",").filter(Boolean);
    return [...objects].flatMap(([key, object]) => {
      const field = (name: string) =>
        name.split(".").reduce<unknown>((at, part) => (at as Json | undefined)?.[part], object);
      const holds = (term: string) => {
        const [name = "", not = "", value] = term.split(/(!?)=/);
        return (field(name) === value) !== (not === "!");
      };
      return inside.test(key) && terms.every(holds) ? [object] : [];
    });
  };

  const answer = (
    method: string,
    path: string,
    body: Json,
    fieldSelector: string,
  ): { status: number; body: string } => {
    const existing = objects.get(path);
    if (method === "POST") {
      const metadata = body.metadata as { name: string };
      const created = `${path}/${metadata.name}`;
      if (objects.has(created)) return failure(409, "AlreadyExists");
      uid += 1;
      objects.set(created, { ...body, metadata: { ...metadata, uid: `uid-${uid}` } });
      return { status: 201, body: JSON.stringify(objects.get(created)) };
    }
    const items = method === "GET" ? listed(path, fieldSelector) : undefined;
    if (items !== undefined) return { status: 200, body: JSON.stringify({ items }) };
    if (existing === undefined) return failure(404, "NotFound");
    const { resourceVersion } = (body.metadata ?? {}) as Json;
    if (resourceVersion !== undefined && resourceVersion !== existing.metadata.resourceVersion)
      return failure(409, "Conflict");
    if (method === "PATCH") objects.set(path, merge(existing, body) as FakeObject);
    if (method === "DELETE") {
      const { preconditions } = body as { preconditions?: { uid: string } };
      if (preconditions !== undefined && preconditions.uid !== existing.metadata.uid) return failure(409, "Conflict");
      objects.delete(path);
    }
    return { status: 200, body: JSON.stringify(objects.get(path) ?? {}) };
  };

  /** Only a probe is ever tried: refused by the policy for its kind, else allowed; either way nothing is kept. */
  const dryRun = (path: string): { status: number; body: string } => {
    const kind = path.includes("/nodes/") ? "-node" : path.endsWith("/events") ? "-events" : "-tickets";
    const policy = [...policies].find((name) => name.endsWith(kind));
    if (policy === undefined) return { status: 200, body: "{}" };
    const message = `forbidden: ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: An installer may only …`;
    return { status: 403, body: JSON.stringify({ kind: "Status", reason: "Forbidden", message }) };
  };

  return {
    objects,
    policies,
    answer(method, url, body) {
      const [path = "", query = ""] = url.split("?");
      const parameters = new URLSearchParams(query);
      if (parameters.get("dryRun") === "All") return dryRun(path);
      return answer(method, path, body, parameters.get("fieldSelector") ?? "");
    },
  };
}
